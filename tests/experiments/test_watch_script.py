import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cnnprobe.tracing.readings import LayerStats
from cnnprobe.training.probes import LAYER_READINGS
from experiments import cli, train, watch

ROOT = Path(__file__).parents[2]
HEADER = {"kind": "run", "parameters": ["conv/kernel"], "layers": list(LAYER_READINGS)}
SICK, HEALTHY = [1.4] * 20 + [60.0] * 40, np.linspace(1.4, 0.9, 60).tolist()


def log(losses, *, start=0):
    """Lines of a run with one layer."""
    rng = np.random.default_rng(0)
    for step, loss in enumerate(losses, start):
        counts = np.bincount(rng.integers(0, 4, 32), minlength=4).tolist()
        probes = {"layers": [[1.0], [0.0], [-2.5]]}
        row = {"kind": "step", "step": step, "loss": loss, "accuracy": 0.5, "probes": probes, "taps": {}}
        yield json.dumps(row | {"prediction_counts": counts, "label_counts": counts}) + "\n"


@pytest.fixture
def write(tmp_path):
    """`write(losses)` adds the lines of a run to its log."""

    def write(losses, *, start=0, tail=""):
        with (tmp_path / "readings.jsonl").open("a") as file:
            file.write(("" if start else json.dumps(HEADER) + "\n") + "".join(log(losses, start=start)) + tail)
        return str(tmp_path)

    return write


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run that has ended."""
    folder = str(tmp_path_factory.mktemp("run"))
    train.run(directory=folder, num_epochs=1, num_images=64, batch_size=32)
    return folder


@pytest.fixture
def after_each_look(monkeypatch):
    """`after_each_look(first, second)` runs these between the looks, and then presses Ctrl-C."""

    def plan(*actions):
        left = iter(actions)

        def sleep(_):
            action = next(left, None)
            if action is None:
                raise KeyboardInterrupt
            action()

        monkeypatch.setattr(watch.time, "sleep", sleep)

    return plan


def plain():
    return Console(file=io.StringIO(), width=100, color_system=None)


def test_the_names_of_readings_are_those_of_the_log():
    assert set(watch.OF_PARAMETERS) == set(LAYER_READINGS)
    assert set(watch.OF_LAYERS) == set(LayerStats._fields) - {"kind", "activation", "num_features", "num_activations"}


@pytest.mark.parametrize(("losses", "code"), [(HEALTHY, cli.HEALTHY), (SICK, cli.FAULTY)])
def test_once_shows_the_state_and_the_exit_code_tells_of_alarms(write, losses, code):
    console = plain()
    assert watch.run(run_dir=write(losses), once=True, console=console) == code
    shown = console.file.getvalue()
    assert "60 steps" in shown
    assert "conv/kernel" in shown
    assert ("ALARM" in shown) == (code == cli.FAULTY)


def test_once_reads_a_log_that_is_cut_in_the_middle_of_a_line(write):
    console = plain()
    watch.run(run_dir=write(HEALTHY, tail='{"kind": "st'), once=True, console=console)
    assert "60 steps" in console.file.getvalue()


@pytest.mark.parametrize(("reading", "layer"), [("log10_update_ratio", "dense2/kernel"), ("dead_share", "conv1")])
def test_a_run_of_train_is_read_layer_by_layer(trained, reading, layer):
    console = plain()
    assert watch.run(run_dir=trained, once=True, reading=reading, console=console) == cli.HEALTHY
    lines = console.file.getvalue().splitlines()
    assert "epoch 1 done, 2 steps" in lines[0]
    assert any(line.startswith("accuracy") and "validation" in line for line in lines)
    assert any(line.split()[:1] == [layer] for line in lines)


def test_once_without_a_log_is_bad_input(tmp_path):
    with pytest.raises(cli.BadInputError, match=r"run_dir must hold readings\.jsonl, got"):
        watch.run(run_dir=str(tmp_path), once=True)


def test_a_pipe_gets_a_line_when_something_was_added(write, tmp_path, after_each_look, capsys):
    after_each_look(lambda: None, lambda: write(HEALTHY), lambda: None, lambda: write([0.5], start=60))
    assert watch.run(run_dir=str(tmp_path), console=plain()) == cli.HEALTHY
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"waiting for {tmp_path / 'readings.jsonl'}"
    assert [line.split()[1:3] for line in lines[1:]] == [["60", "steps"], ["61", "steps"]]


def test_a_pipe_gets_each_alarm_once(write, tmp_path, after_each_look, capsys):
    after_each_look(lambda: write(SICK), lambda: write([60.0] * 60, start=60))
    assert watch.run(run_dir=str(tmp_path), console=plain()) == cli.FAULTY
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "ALARM" in line] == [lines[1]]
    assert lines[1].startswith("step 50: ALARM learning-rate-too-high: The loss reaches")


def test_a_terminal_gets_a_view_that_changes_in_place(write, tmp_path, after_each_look):
    after_each_look(lambda: write(HEALTHY), lambda: write([0.5], start=60))
    screen = Console(file=io.StringIO(), width=100, height=40, force_terminal=True, color_system="standard")
    assert watch.run(run_dir=str(tmp_path), console=screen) == cli.HEALTHY
    shown = screen.file.getvalue()
    assert "waiting for" in shown
    assert all(f"{steps} steps" in shown for steps in (60, 61))


def test_the_doctor_never_touches_the_accelerator(write):
    command = "import sys; from experiments import watch; watch.run(run_dir=sys.argv[1], once=True); import jax; "
    command += "print(jax._src.xla_bridge.backends_are_initialized())"
    ended = subprocess.run(
        [sys.executable, "-c", command, write(HEALTHY)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert ended.stdout.splitlines()[-1] == "False", ended.stderr


def test_ctrl_c_ends_a_process_cleanly(tmp_path):
    command = [sys.executable, "-m", "experiments.watch", f"--run_dir={tmp_path}"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        signal.signal(signal.SIGINT, before)
        assert process.stdout.readline() == f"waiting for {tmp_path / 'readings.jsonl'}\n"
        time.sleep(0.2)  # into its sleep
        process.send_signal(signal.SIGINT)
        try:
            out, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out, errors) == (0, "", "")


def test_no_folder_is_bad_input():
    ended = subprocess.run(
        [sys.executable, "-m", "experiments.watch"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (2, "error: run_dir must name the folder of a run, got none.\n")
