"""Kills processes at random moments while they train or write, and prints what their files held; tests run it alone.

Every child is forked before jax has started a device, so that it costs no import.
"""

import contextlib
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from itertools import count
from pathlib import Path

import numpy as np
import optax

from cnnprobe.doctor.diagnose import diagnose
from cnnprobe.doctor.repair import repair
from cnnprobe.reporting.jsonfile import write_atomically
from cnnprobe.reporting.report import write_report
from cnnprobe.training.fit import fit
from cnnprobe.training.journal import read_log
from cnnprobe.training.locks import hold_folder
from cnnprobe.types import Problem
from experiments import benchmark_diagnosis
from experiments.rows import append_row, read_rows
from tests.training.conftest import ADAM, LINEAR, cross_entropy, separable

NUM_STEPS = 12
LENGTH = 20_000  # characters of what is written, so that many a kill falls within a write


def forked(work, *args):
    """The number of a new process that does the work and ends."""
    number = os.fork()
    if number:
        return number
    try:
        work(*args)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def has_ended(number):
    return os.waitpid(number, os.WNOHANG)[0] == number


def kill(number):
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)


def train(folder, output):
    """Trains to the end and keeps the parameters."""
    data, valid = separable(50), separable(20, seed=1)
    problem = Problem(LINEAR, cross_entropy, ADAM, data, valid, num_classes=3, batch_size=8, num_epochs=2)
    params = fit(problem, directory=folder, progress=False, checkpoint_every=1).params
    np.savez(output, **params["dense"])


def steps_of(folder):
    return [record["step"] for record in read_log(folder / "readings.jsonl") if record["kind"] == "step"]


def kill_training(root, num_kills, rng):
    """Trains one run that is killed again and again, and one that is not."""
    whole, killed, logs = root / "whole", root / "killed", []
    os.waitpid(forked(train, whole, root / "whole.npz"), 0)
    num_killed, left = 0, 0
    while num_killed < num_kills:
        number, seen = forked(train, killed, root / "killed.npz"), len(logs and logs[-1])
        ended = False
        while len(steps_of(killed)) < min(seen + 1, NUM_STEPS) and not (ended := has_ended(number)):
            time.sleep(0.002)
        if ended:  # the run came to its end first: another one begins
            left, logs, killed = left + 1, [], root / f"killed{left}"
            continue
        time.sleep(rng.random() * 0.05)
        kill(number)
        num_killed += 1
        logs.append(steps_of(killed))
    os.waitpid(forked(train, killed, root / "killed.npz"), 0)
    first, second = (np.load(root / name, allow_pickle=False) for name in ("whole.npz", "killed.npz"))
    return {
        "kills": num_killed,
        "same parameters": all(np.array_equal(first[name], second[name]) for name in first.files),
        "same log": steps_of(killed) == steps_of(whole) == list(range(NUM_STEPS)),
        "steps once in every log": all(log == list(range(len(log))) for log in logs),
    }


def text_of(number):
    return f"{number} " * LENGTH


def write(folder):
    """Writes without end: a report that is replaced and a row that is added."""
    for number in count():
        write_atomically(folder / "report.html", text_of(number))
        append_row(folder / "cases.jsonl", {"case": [os.getpid(), number], "text": "x" * LENGTH})


def kill_writers(folder, num_kills, rng):
    """Two processes at once write to one folder until both are killed, again and again."""
    folder.mkdir()
    broken = 0
    for _ in range(num_kills // 2):
        numbers = [forked(write, folder) for _ in range(2)]
        while not (folder / "report.html").exists():
            time.sleep(0.001)
        time.sleep(rng.random() * 0.03)
        for number in numbers:
            kill(number)
        report = (folder / "report.html").read_text()
        broken += report != text_of(report.split()[0])
    rows = read_rows(folder / "cases.jsonl")
    found: dict[int, list[int]] = {}
    for row in rows:
        writer, number = row["case"]
        found.setdefault(writer, []).append(number)
        broken += row["text"] != "x" * LENGTH
    gaps = sum(numbers != list(range(len(numbers))) for numbers in found.values())
    return {"kills": num_kills, "rows": len(rows), "writers": len(found), "broken": broken, "gaps": gaps}


def run_benchmark(folder):
    """The benchmark of the doctor on cases that take a moment each and are answered at once."""

    def answered(case, **_):
        time.sleep(0.002)
        return {"case": case.name, "verdict": "healthy", "causes": [], "seconds": 0.0, "text": "x" * LENGTH}

    benchmark_diagnosis.run_case = answered
    with contextlib.redirect_stdout(io.StringIO()):
        benchmark_diagnosis.run(output_dir=str(folder), only="textures, plain")


def kill_benchmark(folder, num_kills, rng):
    """One benchmark that is killed again and again until it is done."""
    lengths = []
    for _ in range(num_kills):
        number = forked(run_benchmark, folder)
        time.sleep(rng.random() * 0.1)
        kill(number)
        lengths.append(len(read_rows(folder / "cases.jsonl")))
    os.waitpid(forked(run_benchmark, folder), 0)
    names = [row["case"] for row in read_rows(folder / "cases.jsonl")]
    expected = [
        case.name for case in benchmark_diagnosis.chosen("held_out", only="textures, plain", subset=None, seed=0)
    ]
    once = sorted(names) == sorted(expected)
    return {"kills": num_kills, "rows after each": lengths, "every case once": once}


def ask(folder, question):
    """Diagnoses or repairs a problem of small steps, and writes what was found."""
    data, valid = separable(60), separable(40, seed=1)
    slow = optax.sgd(1e-5)
    problem = Problem(LINEAR, cross_entropy, slow, data, valid, num_classes=3, batch_size=8, num_epochs=8)
    if question == "repair":
        repaired = repair(problem, budget_seconds=360.0)
        text = json.dumps([[step.cause, float(step.trial.gain)] for step in repaired.steps])
        write_atomically(folder / "repair.json", text)
    else:
        write_report(diagnose(problem, budget_seconds=120.0), folder)


def answer_in(folder, question):
    """What the files of a folder say, all of them whole; None where there are none yet."""
    path = folder / {"diagnose": "diagnosis.json", "repair": "repair.json"}[question]
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    return content if question == "repair" else [content["verdict"], content["findings"]]


def kill_question(root, question, num_kills, rng):
    """One question to the doctor that is killed again and again and then asked to the end, and one that is not."""
    whole, killed = root / f"{question}-whole", root / f"{question}-killed"
    for folder in (whole, killed):
        folder.mkdir()
    started = time.monotonic()
    os.waitpid(forked(ask, whole, question), 0)
    lasted = time.monotonic() - started
    for _ in range(num_kills):
        number = forked(ask, killed, question)
        time.sleep(rng.random() * lasted)
        kill(number)
        answer_in(killed, question)  # raises where a file is half written
    os.waitpid(forked(ask, killed, question), 0)
    first, second = (answer_in(folder, question) for folder in (whole, killed))
    return {"kills": num_kills, "same": first == second, "found": bool(first and first[-1])}


def hold(folder):
    """Holds the folder until it is killed."""
    with hold_folder(folder):
        (folder / "held").touch()
        time.sleep(60)


def kill_holder(folder):
    """What a second run is told while the first lives, and once it is killed."""
    folder.mkdir()
    number, told = forked(hold, folder), ""
    while not (folder / "held").exists():
        time.sleep(0.001)
    try:
        hold_folder(folder).close()
    except ValueError as error:
        told = str(error)
    kill(number)
    hold_folder(folder).close()
    return {"kills": 1, "told": told, "holder": number}


if __name__ == "__main__":
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        result = {
            "training": kill_training(root, int(sys.argv[1]), rng),
            "writers": kill_writers(root / "writers", int(sys.argv[2]), rng),
            "benchmark": kill_benchmark(root / "benchmark", int(sys.argv[3]), rng),
            "diagnose": kill_question(root, "diagnose", int(sys.argv[4]), rng),
            "repair": kill_question(root, "repair", int(sys.argv[4]), rng),
            "holder": kill_holder(root / "holder"),
        }
    print(json.dumps(result))
