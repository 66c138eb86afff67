"""Whole diagnoses: faults planted in several networks and data sets, and healthy problems beside them."""

import numpy as np
import pytest

import cnnprobe as cp
from experiments.faults import EXPECTED, plant
from experiments.healthy import HEALTHY
from experiments.problems import build_problem

pytestmark = pytest.mark.slow

SLICE = (  # of the benchmark, which plants every fault in several networks
    *("destroying_augmentation", "labels_off_by_one", "sorted_batches", "softmax_twice"),
    *("constant_init", "dropout_too_strong", "learning_rate_too_high", "negated_update"),
)
BUDGET = 150.0  # seconds; CI machines are shared, and what time leaves untried would hide a cause


def clothes(**choices):
    return build_problem(dataset="fashion_mnist", num_images=1000, num_epochs=10, seed=3, **choices)[0]


@pytest.mark.parametrize("fault", SLICE)
def test_names_the_planted_fault(fault):
    diagnosis = cp.diagnose(plant(clothes(), fault), budget_seconds=BUDGET)
    assert diagnosis.verdict == "faulty"
    assert diagnosis.findings[0].cause == EXPECTED[fault]


@pytest.mark.parametrize("variant", ["batch norm", "own loader", "mixup"])
def test_silent_on_healthy_clothes(variant):
    diagnosis = cp.diagnose(HEALTHY[variant](clothes()), budget_seconds=BUDGET)
    assert [finding.cause for finding in diagnosis.findings] == []
    assert diagnosis.verdict in ("healthy", "under-trained")


def test_no_cause_on_healthy_cells():
    problem, _ = build_problem(dataset="blood_cells", num_images=1000, num_epochs=12, seed=3)
    diagnosis = cp.diagnose(problem, budget_seconds=BUDGET)
    assert [finding.cause for finding in diagnosis.findings if finding.severity == "cause"] == []


def test_two_faults_that_hide_each_other_are_both_named():
    problem = plant(plant(clothes(), "labels_off_by_one"), "inputs_scaled_twice")
    causes = {finding.cause for finding in cp.diagnose(problem, budget_seconds=BUDGET).findings}
    assert {"label-encoding", "inputs-scaled-twice"} <= causes


def test_same_seed_gives_the_same_diagnosis():
    first, second = (cp.diagnose(plant(clothes(), "blank_images"), budget_seconds=BUDGET) for _ in range(2))
    assert [f.cause for f in first.findings] == [f.cause for f in second.findings]
    made = min(len(first.curve.loss), len(second.curve.loss))  # the clock may cut one of the runs
    np.testing.assert_array_equal(first.curve.loss[:made], second.curve.loss[:made])


def test_user_arrays_are_left_alone():
    problem = clothes()
    told = []
    images, labels = np.array(problem.train.images), np.array(problem.train.labels)
    cp.diagnose(problem, budget_seconds=20.0, tell=told.append)
    np.testing.assert_array_equal(problem.train.images, images)
    np.testing.assert_array_equal(problem.train.labels, labels)
    assert told[:2] == ["reading the data", "running the network as it is"]
