"""Measures the healthy bands: runs the doctor's observations on healthy problems and keeps the range of every reading.

  python -m experiments.calibrate --output=cnnprobe/doctor/bands.json

The evidence of each cause is held against these bands. Seeds and variants used here are kept out of the tests.
"""

from collections.abc import Iterable, Mapping, Sequence

from absl import app, flags

_OUTPUT = flags.DEFINE_string("output", "cnnprobe/doctor/bands.json", "File to write.")
_SECONDS = flags.DEFINE_float("seconds", 8.0, "Training time of each run.", lower_bound=0.1)
_SEED = flags.DEFINE_integer("seed", 100, "Seed of the first problem.")
_ONLY = flags.DEFINE_list("only", [], "Names of the variants to run; all if empty.")

# Textures and cells run the variants whose readings depend on the images; Fashion-MNIST runs them all.
IMAGE_VARIANTS = (
    "adam",
    "sgd",
    "residual network",
    "batch norm",
    "dropout",
    "small batches",
    "standardised",
    "few images",
)


def readings_of(dataset: str, variant: str, *, seed: int, seconds: float) -> dict[str, float]:
    """Every fact of one healthy problem."""
    import time

    from cnnprobe.doctor.bench import make_bench
    from cnnprobe.doctor.observe import observe
    from experiments.healthy import HEALTHY
    from experiments.problems import build_problem

    problem, _ = build_problem(
        dataset=dataset, num_images=NUM_IMAGES[dataset], num_epochs=NUM_EPOCHS[dataset], seed=seed
    )
    seen = observe(make_bench(HEALTHY[variant](problem)), seconds=seconds, deadline=time.monotonic() + 60 * seconds)
    if seen.failures:
        raise RuntimeError(f"{dataset}, {variant}: {dict(seen.failures)}")
    return dict(seen.facts)


NUM_IMAGES = {"fashion_mnist": 2000, "textures": 900, "blood_cells": 1200}
NUM_EPOCHS = {"fashion_mnist": 10, "textures": 20, "blood_cells": 15}


def merge_bands(runs: Iterable[Mapping[str, float]]) -> dict[str, list[float]]:
    """Lowest and highest finite value of each fact."""
    import math

    bands: dict[str, list[float]] = {}
    for facts in runs:
        for name, value in facts.items():
            if math.isfinite(value):
                low, high = bands.get(name, [value, value])
                bands[name] = [min(low, value), max(high, value)]
    return dict(sorted(bands.items()))


def run(*, seed: int, seconds: float, only: Sequence[str] = ()) -> dict:
    """Observes all healthy problems; returns the bands and every run's readings."""
    from rich.progress import track

    from experiments.healthy import HEALTHY

    pairs = [("fashion_mnist", variant) for variant in HEALTHY]
    pairs += [(dataset, variant) for dataset in ("textures", "blood_cells") for variant in IMAGE_VARIANTS]
    wanted = [pair for pair in pairs if not only or pair[1] in only]
    runs = {}
    for index, (dataset, variant) in enumerate(track(wanted, description="observing healthy problems")):
        runs[f"{dataset}, {variant}"] = readings_of(dataset, variant, seed=seed + index, seconds=seconds)
    return {"bands": merge_bands(runs.values()), "runs": runs}


def main(argv: Sequence[str]) -> None:
    """Runs, and writes the bands with the names of the runs they come from."""
    import json
    from pathlib import Path

    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    result = run(seed=_SEED.value, seconds=_SECONDS.value, only=_ONLY.value)
    rounded = {name: [float(f"{value:.4g}") for value in band] for name, band in result["bands"].items()}
    Path(_OUTPUT.value).write_text(json.dumps({"runs": list(result["runs"]), "bands": rounded}, indent=1) + "\n")
    print(f"{len(result['runs'])} healthy runs, {len(rounded)} bands: {_OUTPUT.value}")


if __name__ == "__main__":
    app.run(main)
