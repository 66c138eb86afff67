import time

import numpy as np
import pytest

from cnnprobe.doctor import conclude, locate
from cnnprobe.doctor.run import Run
from cnnprobe.doctor.trial import Plan, Scored
from cnnprobe.types import Curve, Model

CURVE = Curve(np.ones(100), np.zeros(100), np.zeros((100, 10), int), np.zeros((100, 10), int))
RUN = Run(CURVE, ({}, {}), ({}, {}), np.zeros((100, 5, 0)), (), (), 1.0, is_complete=True)


def concluded(healthy, bench, *, reached, run=RUN, seconds=0.0, controls=None):
    facts = {"validation accuracy": reached, "random features accuracy": 0.8, "number of updates": 100.0}
    seen = healthy._replace(run=run, facts={**healthy.facts, **facts, "number of steps": 100.0})
    controls = {0: Scored(reached, CURVE)} if controls is None else controls
    plan = Plan(bench, 100, 1.0, 1.0, 0, time.monotonic() + seconds, controls)
    return conclude.conclude(plan, seen, (), (), time.monotonic())


@pytest.mark.parametrize(("reached", "verdict"), [(0.8, "healthy"), (0.5, "cannot-tell")])
def test_far_below_what_needs_no_training_is_not_called_healthy(healthy, tiny_bench, reached, verdict):
    diagnosis = concluded(healthy, tiny_bench, reached=reached)
    assert diagnosis.verdict == verdict
    assert ("fixed random network reaches 80%" in diagnosis.summary) is (verdict == "cannot-tell")


@pytest.mark.parametrize(
    ("mends", "seconds", "said"),
    [
        ("network", 100.0, "a small CNN in place of the network it reaches 90%"),
        ("none", 100.0, ""),
        ("network", 0.0, ""),
    ],
)
def test_the_part_that_holds_a_network_back_is_named_where_its_swap_mends_it(
    mends, seconds, said, healthy, tiny_bench, monkeypatch
):
    own = tiny_bench.problem._replace(model=Model(*tiny_bench.problem.model))

    def run_twin(plan, problem, seed):
        if problem.optimizer is not own.optimizer:
            raise ValueError("written for another network")
        return Scored(0.9 if mends == "network" and problem.model is not own.model else 0.6, CURVE)

    monkeypatch.setattr(locate, "run_twin", run_twin)
    controls = {0: Scored(0.5, CURVE)}
    bench = tiny_bench._replace(problem=own)
    summary = concluded(healthy, bench, reached=0.5, seconds=seconds, controls=controls).summary
    assert summary.endswith(f"With {said}: that part holds it back." if said else "no known cause explains it.")


@pytest.mark.parametrize(("reaches", "verdict"), [(0.95, "cannot-tell"), (0.75, "healthy")])
def test_one_that_does_well_is_held_back_only_where_a_part_brings_much(
    reaches, verdict, healthy, tiny_bench, monkeypatch
):
    monkeypatch.setattr(locate, "run_twin", lambda plan, problem, seed: Scored(reaches, CURVE))
    diagnosis = concluded(healthy, tiny_bench, reached=0.65, seconds=100.0)
    assert diagnosis.verdict == verdict
    assert ("that part holds it back" in diagnosis.summary) is (verdict == "cannot-tell")


def test_a_run_that_the_budget_cut_is_not_said_to_be_held_back(healthy, tiny_bench):
    diagnosis = concluded(healthy, tiny_bench, reached=0.5, run=RUN._replace(is_complete=False))
    assert diagnosis.verdict == "cannot-tell"
    assert "Give it more seconds" in diagnosis.summary


@pytest.mark.parametrize(("reached", "is_located"), [(0.5, True), (0.75, False)])
def test_one_that_more_steps_help_is_under_trained_and_one_far_behind_is_held_back_too(
    reached, is_located, healthy, tiny_bench, monkeypatch
):
    monkeypatch.setattr(conclude, "scored_run", lambda problem, bench, plan: Scored(0.95, CURVE))
    monkeypatch.setattr(locate, "run_twin", lambda plan, problem, seed: Scored(0.95, CURVE))
    whole = healthy._replace(facts={**healthy.facts, "steps of the whole training": 100.0})
    diagnosis = concluded(whole, tiny_bench, reached=reached, seconds=100.0)
    assert diagnosis.verdict == "under-trained"
    assert f"3 times as many bring {100 * (0.95 - reached):.0f} points more" in diagnosis.summary
    assert ("Adam in place of the optimizer it reaches 95%" in diagnosis.summary) == is_located
