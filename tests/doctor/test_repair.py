"""The loop on made-up diagnoses: a problem's `num_epochs` counts the faults that are left in it."""

import numpy as np
import pytest

import cnnprobe as cp
from cnnprobe.doctor import repair as module
from cnnprobe.types import Curve, Diagnosis, Evidence, Finding, Trial
from experiments.faults import plant
from experiments.problems import build_problem

CURVE = Curve(np.zeros(1), np.zeros(1), np.zeros((1, 10), int), np.zeros((1, 10), int))
TRIAL = Trial("accuracy", np.array([0.1]), np.array([0.5]), 10, CURVE, CURVE)


def finding(cause, remedy, trial=TRIAL):
    return Finding(cause, "", "cause", 1.0, Evidence("", (), 1.0), remedy, "", "", trial, "", ())


def diagnosis(problem, *findings):
    verdict = "faulty" if findings else "healthy"
    return Diagnosis(verdict, "", findings, None, (), (), {}, (), 0.0)


@pytest.fixture
def problem(tiny_bench):
    return tiny_bench.problem._replace(num_epochs=3)


def mend(problem):
    return problem._replace(num_epochs=problem.num_epochs - 1)


@pytest.fixture(autouse=True)
def one_fault_an_epoch(monkeypatch, request):
    def diagnose(problem, *, budget_seconds, devices):
        faults = range(problem.num_epochs - 1)
        return diagnosis(problem, *[finding(f"fault {index}", mend) for index in faults])

    if "slow" not in request.keywords:
        monkeypatch.setattr(module, "diagnose", diagnose)


def test_one_fault_after_the_other_is_mended(problem):
    repaired = cp.repair(problem)
    assert repaired.ended == "healthy"
    assert (repaired.problem.num_epochs, [step.trial.gain for step in repaired.steps]) == (1, [0.4, 0.4])


def test_rounds_are_bounded(problem):
    repaired = cp.repair(problem, max_rounds=1)
    assert (repaired.ended, len(repaired.steps), repaired.diagnosis.verdict) == ("out of rounds", 1, "faulty")


def test_time_is_bounded(problem, monkeypatch):
    clock = iter([0.0, 170.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    assert cp.repair(problem, budget_seconds=180.0).ended == "out of budget"


def test_what_no_trial_has_shown_is_not_applied(problem, monkeypatch):
    monkeypatch.setattr(module, "diagnose", lambda p, **_: diagnosis(p, finding("fault", mend, trial=None)))
    repaired = cp.repair(problem)
    assert (repaired.ended, repaired.problem is problem) == ("nothing more helps", True)


@pytest.mark.parametrize(("choice", "value"), [("budget_seconds", 0.5), ("max_rounds", 0)])
def test_bounds_are_checked(problem, choice, value):
    with pytest.raises(ValueError, match=f"{choice} must be .*, got {value}"):
        cp.repair(problem, **{choice: value})


@pytest.mark.slow
def test_a_real_fault_is_mended_and_does_not_come_back():
    clothes = build_problem(dataset="fashion_mnist", num_images=1000, num_epochs=10, seed=3)[0]
    repaired = cp.repair(plant(clothes, "raw_pixels"), budget_seconds=300.0)
    assert repaired.steps[0].cause == "inputs-not-scaled"
    assert repaired.steps[0].trial.gain > 0.05
    assert "inputs-not-scaled" not in [f.cause for f in repaired.diagnosis.findings if f.severity == "cause"]
