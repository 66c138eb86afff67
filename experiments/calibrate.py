"""Measures the healthy bands: runs the doctor's observations on healthy problems and keeps the range of every reading.

python -m experiments.calibrate --output=cnnprobe/doctor/bands.json

The evidence of each cause is held against these bands. One reading is of the doctor itself: the gain that a trial shows
where nothing was changed but the seeds, which a remedy has to beat. Each run's readings are appended to a file as they
are made, so an interrupted calibration goes on where it stopped. Its seeds are kept out of the tests.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import flags

from experiments import cli

_OUTPUT = flags.DEFINE_string("output", "cnnprobe/doctor/bands.json", "File to write.")
_READINGS = flags.DEFINE_string("readings", "runs/calibration.jsonl", "File of the readings made so far.")
_SECONDS = flags.DEFINE_float("seconds", 6.0, "Training time of each run.", lower_bound=0.1)
_SEED = flags.DEFINE_integer("seed", 100, "Seed of the first problem.")

# Textures and cells run the variants whose readings depend on the images; Fashion-MNIST runs them all.
IMAGE_VARIANTS = ("adam", "sgd", "batch norm", "dropout", "small batches", "standardised", "few images")
UNTRAINED = ("input ", "label ", "batch label ", "loss ", "initial ", "pixel ", "random ", "strongest ")
CHANCE = "gain by chance"  # of a trial that changes nothing but the seeds
SEEDS = 6  # runs from which such trials are made
SEEDED = ("adam", "sgd", "dropout")  # the variants that are run so often, on every data set
SLOWER = {"blood_cells": 4.0}  # times the seconds: its images are the largest
CHOICES: dict[str, dict[str, Any]] = {
    "fashion_mnist": {"num_images": 2000, "num_epochs": 10},
    "textures": {"num_images": 600, "num_epochs": 20},
    "blood_cells": {"num_images": 1200, "num_epochs": 15},
}


def readings_of(dataset: str, variant: str, *, seed: int, seconds: float) -> dict[str, float]:
    """Every fact of one healthy problem.

    Raises:
      RuntimeError: a measurement failed, which on a healthy problem is a fault of the doctor's.
    """
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
    if variant not in SEEDED:
        return dict(seen.facts)
    plan = make_plan(seen, run_seconds=seconds, deadline=deadline)
    return {**seen.facts, CHANCE: gain_by_chance([control(plan, index).accuracy for index in range(SEEDS)])}


def gain_by_chance(accuracies: Sequence[float]) -> float:
    """The largest gain of any half of the runs over the others: that of the better half over the worse.

    >>> gain_by_chance([0.75, 1.0, 0.5, 1.0])
    0.375
    """
    ordered, half = sorted(accuracies), len(accuracies) // 2
    return sum(ordered[-half:]) / half - sum(ordered[:half]) / half


def has_learnt(facts: Mapping[str, float | None]) -> bool:
    """Whether a run got at least half of the way from a blind guess to every image right."""
    reached, num_classes = facts["validation accuracy"], facts["label num distinct"]
    assert reached is not None
    assert num_classes is not None
    return reached > (1 + 1 / num_classes) / 2


def healthy_facts(facts: Mapping[str, float | None]) -> dict[str, float | None]:
    """All facts of a run that learnt; of one that was too short, those that no training has touched."""
    return {name: value for name, value in facts.items() if has_learnt(facts) or name.startswith(UNTRAINED)}


def merge_bands(runs: Iterable[Mapping[str, float | None]]) -> dict[str, list[float]]:
    """Lowest and highest value of each fact; what was not a finite number is stored as None and left out."""
    bands: dict[str, list[float]] = {}
    for facts in runs:
        for name, value in facts.items():
            if value is not None:
                low, high = bands.get(name, [value, value])
                bands[name] = [min(low, value), max(high, value)]
    return dict(sorted(bands.items()))


def run(*, readings: str, seed: int, seconds: float) -> dict[str, dict[str, float]]:
    """Observes all healthy problems that the file lacks; returns the readings of every one."""
    import json
    import math
    from pathlib import Path

    from experiments.healthy import HEALTHY

    pairs = [("fashion_mnist", variant) for variant in HEALTHY]
    pairs += [(dataset, variant) for dataset in ("textures", "blood_cells") for variant in IMAGE_VARIANTS]
    path = Path(readings)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text().splitlines() if path.exists() else []
    runs = {line["run"]: line["facts"] for line in map(json.loads, lines)}
    for index, (dataset, variant) in enumerate(pairs):
        name = f"{dataset}, {variant}"
        if name not in runs:
            facts = readings_of(dataset, variant, seed=seed + index, seconds=seconds)
            runs[name] = {key: value if math.isfinite(value) else None for key, value in facts.items()}
            with path.open("a") as file:
                file.write(json.dumps({"run": name, "facts": runs[name]}) + "\n")
            print(f"{len(runs)} of {len(pairs)}: {name}", flush=True)
    return runs


def main(argv: Sequence[str]) -> None:
    """Runs, and writes the bands with the names of the runs they come from."""
    import json
    from pathlib import Path

    del argv
    runs = run(readings=_READINGS.value, seed=_SEED.value, seconds=_SECONDS.value)
    merged = merge_bands(map(healthy_facts, runs.values()))
    bands = {name: [float(f"{x:.4g}") for x in band] for name, band in merged.items()}
    too_short = [name for name, facts in runs.items() if not has_learnt(facts)]
    content = {"runs": list(runs), "too short to learn": too_short, "bands": bands}
    Path(_OUTPUT.value).write_text(json.dumps(content, indent=1) + "\n")
    print(f"{len(runs)} healthy runs, {len(bands)} bands: {_OUTPUT.value}")


if __name__ == "__main__":
    cli.launch(main)
