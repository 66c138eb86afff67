"""What half of the images would have given: the measured slope of the learning curve."""

import math

import numpy as np

from cnnprobe.doctor.bands import healthy_band
from cnnprobe.doctor.observation import Observation
from cnnprobe.doctor.remedies import keep_examples
from cnnprobe.doctor.trial import Plan, control, run_twin
from cnnprobe.types import Dataset

FITTED = 0.9  # training accuracy from which optimisation is not the problem
FEWEST = 8  # images that half a training set must hold


def _is_worth_it(seen: Observation) -> bool:
    """Whether training fits its images and others are far behind."""
    high = healthy_band("generalisation gap")[1] or 0.0
    gap, fitted = seen.facts.get("generalisation gap", 0.0), seen.facts.get("training accuracy", 0.0)
    return seen.run is not None and gap > high and fitted > FITTED


def with_learning_curve(plan: Plan, seen: Observation) -> Observation:
    """Adds what the second half of the images gained, where the training set is suspected to be too small.

    By the power law of learning curves the next doubling gains no more than the last one did.
    """
    problem = seen.bench.problem
    if problem.batches is not None or not isinstance(problem.train, Dataset) or not _is_worth_it(seen):
        return seen
    num = len(problem.train.images)
    if num < 2 * FEWEST or not plan.has_time():
        return seen
    half = np.random.default_rng(problem.seed).permutation(num)[: num // 2]
    gain = control(plan, 0).accuracy - run_twin(plan, keep_examples(half)(problem), 0).accuracy
    return seen if math.isnan(gain) else seen._replace(facts={**seen.facts, "gain from doubling the images": gain})
