import time

import numpy as np
import pytest

import cnnprobe as cp
from cnnprobe.doctor import checklist as module
from cnnprobe.doctor.changes import CHANGES
from cnnprobe.doctor.trial import Plan, Scored
from cnnprobe.types import Curve
from experiments.problems import build_problem

CURVE = Curve(np.zeros(1), np.zeros(1), np.zeros((1, 10), int), np.zeros((1, 10), int))


@pytest.fixture
def plan(tiny_bench):
    controls = {seed: Scored(0.5 + 0.1 * seed, CURVE) for seed in range(3)}
    return Plan(tiny_bench, 100, 1.0, 1.0, 0, time.monotonic() + 1e4, controls)


def lines_of(plan, healthy, monkeypatch, run_twin):
    monkeypatch.setattr(module, "run_twin", run_twin)
    return {line.question: line for line in module._tests(plan, healthy)}


def test_effect_is_the_mean_gain_over_seeds(plan, healthy, monkeypatch):
    lines = lines_of(plan, healthy, monkeypatch, lambda plan, problem, seed: Scored(0.7 + 0.2 * seed, CURVE))
    line = lines["Augment by flips?"]
    np.testing.assert_allclose((line.effect, line.spread), (0.3, 0.1))
    assert line.answer == "60% without, 90% with: +30.0 points (3 seeds, +- 10.0)"


def test_changes_of_the_reference_are_held_against_the_reference(plan, healthy, monkeypatch):
    lines = lines_of(plan, healthy, monkeypatch, lambda plan, problem, seed: Scored(0.25, CURVE))
    np.testing.assert_array_equal(lines["Kernels of 5x5, in a small network?"].before, [0.25] * 3)


def test_batches_of_another_size_see_as_many_images(plan, healthy, monkeypatch):
    seen = set()

    def run_twin(plan, problem, seed):
        seen.add(plan.num_steps * problem.batch_size)
        return Scored(0.5, CURVE)

    monkeypatch.setattr(module, "CHANGES", [change for change in CHANGES if change.question.startswith("Batches")])
    lines_of(plan, healthy, monkeypatch, run_twin)
    assert seen == {100 * plan.bench.problem.batch_size}


def test_change_that_does_not_fit_says_why(plan, healthy, monkeypatch):
    def run_twin(plan, problem, seed):
        raise TypeError("no such thing\nmore")

    line = lines_of(plan, healthy, monkeypatch, run_twin)["Adam, 0.001?"]
    assert line.answer == "not tested: TypeError: no such thing"
    assert np.isnan([line.effect, line.spread]).all()


def test_what_no_time_is_left_for_is_said(plan, healthy, monkeypatch):
    lines = lines_of(plan._replace(deadline=0.0), healthy, monkeypatch, None)
    assert {line.answer for line in lines.values()} == {"not tested: no time was left"}


def test_budget_is_checked(tiny_bench):
    with pytest.raises(ValueError, match=r"budget_seconds must be a number of at least 1\.0, got 0"):
        cp.checklist(tiny_bench.problem, budget_seconds=0)


@pytest.mark.slow
def test_longer_steps_are_seen_to_help_on_real_images():
    clothes = build_problem(dataset="fashion_mnist", num_images=400, num_epochs=8, learning_rate=1e-5)[0]
    lines = {line.question: line for line in cp.checklist(clothes, budget_seconds=60.0)}
    assert lines["Steps ten times as long?"].effect > 0.1
    assert sum(len(line.before) > 0 for line in lines.values()) > 10
