"""What half of the images would have given: the measured slope of the learning curve."""

import math
from collections.abc import Iterator

import numpy as np

from cnnprobe.doctor.bands import healthy_band
from cnnprobe.doctor.observation import Observation
from cnnprobe.doctor.remedies import keep_examples
from cnnprobe.doctor.trial import Plan, control, run_twin
from cnnprobe.types import Dataset

FITTED = 0.9  # training accuracy from which optimisation is not the problem
FEWEST = 8  # images that half a training set must hold
NUM_SEEDS = 3


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
    gains = np.array([gain for gain in _gains(plan, len(problem.train.images)) if not math.isnan(gain)])
    if not gains.size:
        return seen
    error = float(gains.std(ddof=1) / math.sqrt(len(gains))) if len(gains) > 1 else math.nan
    found = {"gain from doubling the images": float(gains.mean()), "error of the gain from doubling": error}
    return seen._replace(facts={**seen.facts, **found})


def _gains(plan: Plan, num: int) -> Iterator[float]:
    """What all images reach above a half of them, seed by seed, as long as there is time."""
    for seed in range(NUM_SEEDS):
        if not plan.has_time(runs=2):
            return
        half = np.random.default_rng([plan.bench.problem.seed, seed]).permutation(num)[: num // 2]
        try:
            yield control(plan, seed).accuracy - run_twin(plan, keep_examples(half)(plan.bench.problem), seed).accuracy
        except TimeoutError:
            return
