"""Measures the healthy bands: runs the doctor's observations on healthy problems and keeps the range of every reading.

python -m experiments.calibrate --output=cnnprobe/doctor/bands.json

The evidence of each cause is held against these bands. Every problem is observed from three seeds, as where one of them
happens to end is no edge of what is healthy. Some problems are also trained from several, and those runs are held
against each other as a trial would: how often is a gain seen where nothing was changed? Each run's readings are
appended to a file as they are made, so an interrupted calibration goes on where it stopped. Its seeds are kept out of
the tests.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean, stdev
from typing import Any, NamedTuple

from absl import flags

from experiments import cli

_OUTPUT = flags.DEFINE_string("output", "cnnprobe/doctor/bands.json", "File to write.")
_READINGS = flags.DEFINE_string("readings", "runs/calibration.jsonl", "File of the readings made so far.")
_SECONDS = flags.DEFINE_float("seconds", 6.0, "Training time of each run.", lower_bound=0.1)
_SEED = flags.DEFINE_integer("first_seed", 100, "Seed of the first problem.")

# Textures and cells run the variants whose readings depend on the images; Fashion-MNIST runs them all.
IMAGE_VARIANTS = ("adam", "sgd", "batch norm", "dropout", "small batches", "standardised", "few images")
PLACES = ("order that fits the labels", "first place out of order")  # these say where: no range of them is healthy
OBSERVED = 3  # times that each problem is observed, from other seeds
UNTRAINED = ("input ", "label ", "batch label ", "loss ", "initial ", "pixel ", "random ", "strongest ")
SEEDS = 6  # runs, which make twenty trials that change nothing but the seeds
SEEDED = ("adam", "sgd", "dropout")  # the variants that are run so often, on every data set
STRENGTHS = {"weak evidence": 0.5, "decisive evidence": 1.0}
SLOWER = {"blood_cells": 4.0}  # times the seconds: its images are the largest
CHOICES: dict[str, dict[str, Any]] = {
    "fashion_mnist": {"num_images": 2000, "num_epochs": 10},
    "textures": {"num_images": 600, "num_epochs": 20},
    "blood_cells": {"num_images": 1200, "num_epochs": 15},
}


class Calibrated(NamedTuple):
    """One healthy problem as it was seen."""

    facts: Mapping[str, float | None]  # None: not a finite number
    accuracies: Sequence[float]  # of `SEEDS` runs; none where only one was made


def calibrated(dataset: str, variant: str, *, seed: int, seconds: float) -> Calibrated:
    """Every fact of one healthy problem.

    Raises:
      RuntimeError: a measurement failed, which on a healthy problem is a fault of the doctor's.
    """
    import math
    import time

    from cnnprobe.doctor.bench import make_bench
    from cnnprobe.doctor.observe import observe
    from cnnprobe.doctor.trial import control, make_plan
    from experiments.healthy import HEALTHY
    from experiments.problems import build_problem

    seconds *= SLOWER.get(dataset, 1.0)
    deadline = time.monotonic() + 60 * seconds
    problem, _ = build_problem(dataset=dataset, seed=seed, **CHOICES[dataset])
    seen = observe(make_bench(HEALTHY[variant](problem)), seconds=seconds, deadline=deadline)
    if seen.failures:
        raise RuntimeError(f"{dataset}, {variant}: {dict(seen.failures)}")
    plan = make_plan(seen, run_seconds=seconds, deadline=deadline)
    facts = {name: value if math.isfinite(value) else None for name, value in seen.facts.items()}
    return Calibrated(facts, [control(plan, index).accuracy for index in range(SEEDS if variant in SEEDED else 0)])


def chance_gains(accuracies: Sequence[float]) -> list[list[float]]:
    """Gains of the pairs of every trial that holds one half of the runs against the other.

    >>> chance_gains([0.5, 0.5, 0.75, 0.75])[:2]
    [[0.25, 0.25], [0.0, 0.0]]
    """
    half = len(accuracies) // 2
    gains = []
    for chosen in combinations(range(len(accuracies)), half):
        others = [index for index in range(len(accuracies)) if index not in chosen]
        gains.append([accuracies[b] - accuracies[a] for a, b in zip(chosen, others, strict=True)])
    return gains


def chance_report(runs: Iterable[Calibrated]) -> dict[str, float]:
    """Share of trials without a change that the rule of harm takes for a gain, for each strength of evidence."""
    import numpy as np

    from cnnprobe.doctor.harm import is_beyond_chance

    def passes(gains: list[float], strength: float) -> bool:
        """Whether such a trial would be taken for proof."""
        return is_beyond_chance(np.array(gains), stdev(gains) / len(gains) ** 0.5, strength=strength)

    trials = [trial for run in runs if run.accuracies for trial in chance_gains(run.accuracies)]
    shares = {name: fmean(passes(trial, strength) for trial in trials) for name, strength in STRENGTHS.items()}
    return {"number of trials": len(trials), **{name: round(share, 4) for name, share in shares.items()}}


def has_learnt(facts: Mapping[str, float | None]) -> bool:
    """Whether a run got at least half of the way from a blind guess to every image right."""
    reached, num_classes = facts["validation accuracy"], facts["label num distinct"]
    assert reached is not None
    assert num_classes is not None
    return reached > (1 + 1 / num_classes) / 2


def healthy_facts(facts: Mapping[str, float | None]) -> dict[str, float | None]:
    """All amounts in a run that learnt; of one that was too short, those that no training has touched."""
    amounts = {name: value for name, value in facts.items() if name not in PLACES}
    return {name: value for name, value in amounts.items() if has_learnt(facts) or name.startswith(UNTRAINED)}


def merge_bands(runs: Iterable[Mapping[str, float | None]]) -> dict[str, list[float]]:
    """Lowest and highest value of each fact; what was not a finite number is stored as None and left out."""
    bands: dict[str, list[float]] = {}
    for facts in runs:
        for name, value in facts.items():
            if value is not None:
                low, high = bands.get(name, [value, value])
                bands[name] = [min(low, value), max(high, value)]
    return dict(sorted(bands.items()))


def run(*, readings: str, seed: int, seconds: float) -> dict[str, Calibrated]:
    """Observes all healthy problems that the file lacks; returns every one."""
    from itertools import product
    from pathlib import Path

    from experiments.healthy import HEALTHY
    from experiments.rows import append_row, read_rows

    pairs = [("fashion_mnist", variant) for variant in HEALTHY]
    pairs += product(("textures", "blood_cells"), IMAGE_VARIANTS)
    all_runs = [(dataset, variant, time) for time in range(1, OBSERVED + 1) for dataset, variant in pairs]
    path = Path(readings)
    path.parent.mkdir(parents=True, exist_ok=True)
    runs = {line["run"]: Calibrated(line["facts"], line["accuracies"]) for line in read_rows(path)}
    for index, (dataset, variant, time) in enumerate(all_runs):
        name = f"{dataset}, {variant}, {time}"
        if name not in runs:
            runs[name] = calibrated(dataset, variant, seed=seed + index, seconds=seconds)
            append_row(path, {"run": name, **runs[name]._asdict()})
            print(f"{len(runs)} of {len(all_runs)}: {name}", flush=True)
    return runs


def main(argv: Sequence[str]) -> None:
    """Runs, and writes the bands with the names of the runs they come from."""
    import json
    from pathlib import Path

    from cnnprobe.reporting.jsonfile import write_atomically

    del argv
    place = Path(_READINGS.value)
    cli.announce(place.parent, name=f"{place.stem}.config.json")
    runs = run(readings=_READINGS.value, seed=_SEED.value, seconds=_SECONDS.value)
    merged = merge_bands(healthy_facts(each.facts) for each in runs.values())
    content = {
        "runs": list(runs),
        "too short to learn": [name for name, each in runs.items() if not has_learnt(each.facts)],
        "gains where nothing was changed": chance_report(runs.values()),
        "bands": {name: [float(f"{x:.4g}") for x in band] for name, band in merged.items()},
    }
    write_atomically(_OUTPUT.value, json.dumps(content, indent=1) + "\n")
    print(f"{len(runs)} healthy runs, {len(merged)} bands: {_OUTPUT.value}")


if __name__ == "__main__":
    cli.launch(main)
