"""What half of the images would have given: the measured slope of the learning curve."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from cnnprobe.doctor.bands import healthy_band
from cnnprobe.doctor.harm import ENOUGH, errors_of_chance
from cnnprobe.doctor.observation import Observation
from cnnprobe.doctor.remedies_data import keep_examples
from cnnprobe.doctor.trial import Plan, control, run_twin
from cnnprobe.types import Dataset

FITTED = 0.9  # training accuracy from which optimisation is not the problem
FEWEST = 8  # images that half a training set must hold
NUM_SEEDS = 3  # that are always run
MOST_SEEDS = 8  # that are run where three leave it to chance whether the gain is worth it


def _is_worth_it(seen: Observation) -> bool:
    """Whether training fits its images and others are far behind."""
    high = healthy_band("generalisation gap")[1] or 0.0
    gap, fitted = seen.facts.get("generalisation gap", 0.0), seen.facts.get("training accuracy", 0.0)
    return seen.run is not None and gap > high and fitted > FITTED


def with_learning_curve(plan: Plan, seen: Observation) -> Observation:
    """Adds what the second half of the images gained, where the training set is suspected to be too small.

    By the power law of learning curves the next doubling gains no more than the last one did. Each seed draws a half of
    its own.
    """
    problem = seen.bench.problem
    if problem.batches is not None or not isinstance(problem.train, Dataset) or not _is_worth_it(seen):
        return seen
    if len(problem.train.images) < 2 * FEWEST:
        return seen
    gains: list[float] = []
    for gain in _gains(plan, len(problem.train.images)):
        gains += [] if math.isnan(gain) else [gain]
        if len(gains) >= NUM_SEEDS and _is_decided(gains):
            break
    if not gains:
        return seen
    found = {"gain from doubling the images": float(np.mean(gains)), "error of the gain from doubling": _error(gains)}
    return seen._replace(facts={**seen.facts, **found})


def _is_decided(gains: Sequence[float]) -> bool:
    """Whether the mean is above or below what a remedy must gain, and not by chance."""
    return abs(float(np.mean(gains)) - ENOUGH) > errors_of_chance(len(gains)) * _error(gains)


def _error(gains: Sequence[float]) -> float:
    """Standard error of the mean; NaN of a single one."""
    return float(np.std(gains, ddof=1) / math.sqrt(len(gains))) if len(gains) > 1 else math.nan


def _gains(plan: Plan, num: int) -> Iterator[float]:
    """What all images reach above a half of them, seed by seed, as long as there is time."""
    for seed in range(MOST_SEEDS):
        if not plan.has_time(runs=2):
            return
        half = np.random.default_rng([plan.bench.problem.seed, seed]).permutation(num)[: num // 2]
        try:
            yield control(plan, seed).accuracy - run_twin(plan, keep_examples(half)(plan.bench.problem), seed).accuracy
        except Exception:  # the user's functions may fail from another seed, and the clock may cut a run
            return
