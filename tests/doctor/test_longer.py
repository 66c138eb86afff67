"""Longer runs on made-up runs: a remedy writes into the batch size how many steps it needs before it gains."""

import time

import numpy as np
import pytest

from cnnprobe.doctor import harm, longer, prove, trial
from cnnprobe.doctor.causes.record import Advice, Cause
from cnnprobe.doctor.longer import try_for_longer
from cnnprobe.doctor.prove import Suspect, Tried
from cnnprobe.doctor.rank import weigh
from cnnprobe.doctor.run import Run
from cnnprobe.doctor.trial import Attempt, Plan, Scored
from cnnprobe.types import Curve, Evidence

WHOLE = 6000  # steps of the user's training
NEVER = 10_000


def curve(num_steps):
    return Curve(
        np.zeros(num_steps), np.zeros(num_steps), np.zeros((num_steps, 10), int), np.zeros((num_steps, 10), int)
    )


def scored_after(needed, num_steps):
    return Scored(0.9 if num_steps >= needed else 0.1, curve(num_steps))


@pytest.fixture
def ran(monkeypatch):
    """Runs whose accuracy is 0.9 from as many steps as the batch size says; the steps of each."""
    made = []

    def run_twin(plan, problem, seed):
        made.append((problem.batch_size, seed, plan.num_steps))
        return scored_after(problem.batch_size, plan.num_steps)

    def control(plan, seed):
        return plan.controls.setdefault(seed, run_twin(plan, plan.bench.problem, seed))

    for module in (trial, prove, longer, harm):
        monkeypatch.setattr(module, "run_twin", run_twin, raising=False)
        monkeypatch.setattr(module, "control", control, raising=False)
    monkeypatch.setattr(longer, "steps_of_training", lambda bench: WHOLE)
    monkeypatch.setattr(prove, "_rescued", lambda plan: frozenset())
    return made


def plan_of(bench, *, own, seconds):
    """Runs of 100 steps that take a second; the problem itself needs `own` steps."""
    problem = bench.problem._replace(batch_size=own)
    first = scored_after(own, 100)
    return Plan(bench._replace(problem=problem), 100, 1.0, 1.0, 0, time.monotonic() + seconds, {0: first})


@pytest.fixture
def lost(healthy):
    """A run of 100 steps that learnt nothing, of data that a random network tells apart."""
    run = Run(curve(100), ({}, {}), ({}, {}), np.zeros((100, 5, 0)), (), (), 1.0, is_complete=True)
    return healthy._replace(
        run=run, facts={**healthy.facts, "validation accuracy": 0.1, "random features accuracy": 0.9}
    )


def suspect(cause_id, stage, needed, *, strength=1.0):
    def remedy(problem):
        return problem._replace(batch_size=needed)

    record = Cause(
        cause_id, cause_id, stage, lambda seen: None, lambda seen: (remedy,), lambda seen: Advice(""), "why", ()
    )
    return Suspect(record, Evidence("seen", (), strength))


def tried_of(plan, *items):
    """Suspects whose remedies were run for as long as the plan says."""
    found = []
    for item in items:
        remedy = item.cause.remedies(None)[0]
        problem = remedy(plan.bench.problem)
        found.append(Tried(item, Attempt(remedy, problem, scored_after(problem.batch_size, plan.num_steps)), 0.0))
    return found


def found_by(plan, seen, *suspects):
    return [(found.cause, found.severity) for found in weigh(plan, seen, suspects).findings]


@pytest.fixture(autouse=True)
def known_causes(monkeypatch):
    from cnnprobe.doctor import rank

    known = tuple(suspect(name, stage, 0).cause for name, stage in {"order": "data", "step": "optimisation"}.items())
    monkeypatch.setattr(rank, "CAUSES", known)


@pytest.mark.parametrize(("needed", "severity"), [(1500, "cause"), (3000, "warning"), (NEVER, "warning")])
def test_a_remedy_that_needs_many_steps_is_proved_in_longer_runs(needed, severity, tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=NEVER, seconds=80)  # four runs of 20 seconds
    assert found_by(plan, lost, suspect("order", "data", needed)) == [("order", severity)]


def test_longer_runs_are_no_longer_than_the_whole_training(tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=NEVER, seconds=10_000)
    assert try_for_longer(plan, lost, ()).plan.num_steps == WHOLE


@pytest.mark.parametrize("seconds", [0.0, 1.4])
def test_without_time_for_a_run_half_as_long_again_nothing_is_run(seconds, tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=NEVER, seconds=seconds)
    assert try_for_longer(plan, lost, tried_of(plan, suspect("order", "data", 1500))) == (plan, lost, [])
    assert not ran


def test_with_time_for_one_run_the_network_as_it_is_goes_on(tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=300, seconds=4.5)
    found = try_for_longer(plan, lost, tried_of(plan, suspect("order", "data", 200)))
    assert found.tried == []
    assert found.seen.facts["validation accuracy"] == 0.9
    assert len(found.seen.run.curve.loss) == found.plan.num_steps >= 300


def test_a_network_that_learns_in_a_longer_run_is_not_blamed(tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=1000, seconds=80)
    assert found_by(plan, lost, suspect("order", "data", 500)) == [("order", "warning")]
    assert {needed for needed, _, num_steps in ran if num_steps > 100} == {1000}


def test_one_that_had_learnt_is_not_run_again(tiny_bench, lost, ran):
    fine = lost._replace(facts={**lost.facts, "validation accuracy": 0.8})
    plan = plan_of(tiny_bench, own=NEVER, seconds=80)
    assert try_for_longer(plan, fine, tried_of(plan, suspect("order", "data", 500))) == (plan, fine, [])


def test_upstream_goes_first_and_what_solves_it_ends_the_search(tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=NEVER, seconds=100)
    items = tried_of(plan, suspect("step", "optimisation", 1200), suspect("order", "data", 1000))
    assert [item.suspect.cause.id for item in try_for_longer(plan, lost, items).tried] == ["order"]


def test_weak_evidence_gets_no_longer_run(tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=NEVER, seconds=80)
    assert try_for_longer(plan, lost, tried_of(plan, suspect("order", "data", 500, strength=0.4))).tried == []


def test_a_longer_run_that_fails_leaves_all_as_it_was(tiny_bench, lost, ran, monkeypatch):
    def stop(plan, seed):
        raise TimeoutError("no time was left")

    plan = plan_of(tiny_bench, own=NEVER, seconds=80)
    monkeypatch.setattr(longer, "control", stop)
    assert try_for_longer(plan, lost, ()) == (plan, lost, [])
