"""Whether a network that is better than chance is so by luck."""

import time

import numpy as np
import pytest

import cnnprobe as cp
from cnnprobe.doctor.causes import CAUSES
from cnnprobe.doctor.other_seeds import with_other_seeds
from cnnprobe.doctor.progress import has_learnt, may_be_luck
from cnnprobe.doctor.trial import Plan, Scored
from cnnprobe.types import Curve
from experiments.benchmark_diagnosis import Case, healthy_problem
from experiments.faults import plant

NOTHING = Curve(np.zeros(0), np.zeros(0), np.zeros((0, 10), int), np.zeros((0, 10), int))
HIDDEN = {"pixel neighbours z": 0.2, "random features z": -0.5, "images read": 600.0, "validation accuracy": 0.35}
UNRELATED = next(cause for cause in CAUSES if cause.id == "labels-unrelated-to-images")


def seen_again(healthy, accuracies, **changed):
    """The observation after runs from other seeds, of a network that reached the first of the accuracies."""
    plan = Plan(healthy.bench, 10, 1.0, 1.0, 0, time.monotonic(), {})
    plan.controls.update({seed: Scored(accuracy, NOTHING) for seed, accuracy in enumerate(accuracies)})
    return with_other_seeds(plan, healthy._replace(facts={**healthy.facts, **HIDDEN, **changed}))


@pytest.mark.parametrize(
    ("accuracies", "is_named"),
    [((0.35, 0.05, 0.1, 0.02), True), ((0.35, 0.3, 0.38, 0.33), False), ((0.35, 0.05), True), ((0.35,), False)],
)
def test_what_one_seed_reaches_by_luck_others_do_not(accuracies, is_named, healthy):
    seen = seen_again(healthy, accuracies)
    assert seen.facts["validation accuracy"] == pytest.approx(np.mean(accuracies[1:] or accuracies))
    assert (UNRELATED.evidence(seen) is not None) == is_named
    assert has_learnt(seen) == (not is_named)


def test_a_mean_that_one_of_the_seeds_makes_is_neither_learning_nor_a_cause(healthy):
    seen = seen_again(healthy, (0.35, 0.75, 0.02, 0.05))
    assert may_be_luck(seen)
    assert not has_learnt(seen)
    assert UNRELATED.evidence(seen) is None


@pytest.mark.parametrize("known", [{"pixel neighbours z": 9.0}, {"validation accuracy": 0.8}, {"images read": 100.0}])
def test_nothing_else_is_run_again(known, healthy):
    seen = seen_again(healthy, (0.35, 0.0, 0.0, 0.0), **known)
    assert seen.facts["validation accuracy"] == known.get("validation accuracy", 0.35)


@pytest.mark.slow
def test_shuffled_labels_of_images_of_few_kinds_are_not_called_healthy():
    case = Case("textures", "linen", "fault", "shuffled_labels")
    diagnosis = cp.diagnose(plant(healthy_problem(case, seed=4), "shuffled_labels"), budget_seconds=120)
    assert diagnosis.verdict in ("faulty", "cannot-tell")  # which of them, hangs by a few images
    assert {finding.cause for finding in diagnosis.findings} <= {UNRELATED.id}
