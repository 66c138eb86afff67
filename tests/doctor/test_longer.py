"""Longer runs on made-up runs: a remedy writes into the batch size how many steps it needs before it gains."""

import time

import numpy as np
import optax
import pytest

import cnnprobe as cp
from cnnprobe.doctor import catch_up, harm, longer, prove, rank, run, trial
from cnnprobe.doctor.catch_up import catches_up
from cnnprobe.doctor.causes.record import Advice, Cause
from cnnprobe.doctor.longer import try_for_longer
from cnnprobe.doctor.prove import Suspect, Tried
from cnnprobe.doctor.rank import weigh
from cnnprobe.doctor.run import Run
from cnnprobe.doctor.trial import Attempt, Plan, Scored
from cnnprobe.types import Curve, Evidence, Trial
from experiments.problems import cross_entropy

WHOLE = 3000  # steps of the user's training
NEVER = 10_000
PACE = 0.01 / trial.OVERHEAD  # seconds a step


def curve(num_steps):
    return Curve(
        np.zeros(num_steps), np.zeros(num_steps), np.zeros((num_steps, 10), int), np.zeros((num_steps, 10), int)
    )


SHORT = Run(curve(100), ({}, {}), ({}, {}), np.zeros((100, 5, 0)), (), (), 1.0, is_complete=True, step_seconds=PACE)


def scored_after(needed, num_steps):
    return Scored(0.9 if num_steps >= needed else 0.1, curve(num_steps))


@pytest.fixture
def ran(monkeypatch):
    """Runs whose accuracy is 0.9 from as many steps as the batch size says; what was run for how many steps."""
    made = []

    def run_twin(plan, problem, seed):
        made.append((problem.batch_size, plan.num_steps))
        return scored_after(problem.batch_size, plan.num_steps)

    def settled_run(problem, bench, plan):
        made.append((problem.batch_size, plan.num_steps))
        return SHORT._replace(curve=curve(plan.num_steps))

    def look_at_answers(bench, run, attempt):
        return {"validation accuracy": scored_after(bench.problem.batch_size, len(run.curve.loss)).accuracy}, {}

    def control(plan, seed):
        return plan.controls.setdefault(seed, scored_after(plan.bench.problem.batch_size, plan.num_steps))

    for module in (trial, prove, longer, harm, catch_up):
        monkeypatch.setattr(module, "run_twin", run_twin, raising=False)
        monkeypatch.setattr(module, "control", control, raising=False)
    monkeypatch.setattr(longer, "settled_run", settled_run)
    monkeypatch.setattr(longer, "look_at_answers", look_at_answers)
    monkeypatch.setattr(longer, "look_at_updates", lambda run: {"number of updates": len(run.curve.loss) / 10})
    monkeypatch.setattr(trial, "steps_of_training", lambda bench: WHOLE)
    monkeypatch.setattr(prove, "_rescued", lambda plan: frozenset())
    return made


def plan_of(bench, *, own, seconds):
    """Runs of 100 steps that take a second; the problem itself needs `own` steps, and so has its bench."""
    problem = bench.problem._replace(batch_size=own)
    first = scored_after(own, 100)
    return Plan(bench._replace(problem=problem), 100, 1.0, 1.0, 0, time.monotonic() + seconds, {0: first})


@pytest.fixture
def lost(healthy):
    """A run of 100 steps that learnt nothing, of data that a random network tells apart."""
    reached = {"validation accuracy": 0.1, "random features accuracy": 0.9, "number of updates": 10.0}
    return healthy._replace(run=SHORT, facts={**healthy.facts, **reached})


def lost_with(plan, lost):
    """The same, with the bench of a plan."""
    return lost._replace(bench=plan.bench)


def suspect(cause_id, stage, needed, *, strength=1.0, harms_late=False):
    def remedy(problem):
        return problem._replace(batch_size=needed)

    record = Cause(
        cause_id, cause_id, stage, lambda seen: None, lambda seen: (remedy,), lambda seen: Advice(""), "why", ()
    )._replace(harms_late=harms_late)
    return Suspect(record, Evidence("seen", (), strength), (remedy,))


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
    known = tuple(suspect(name, stage, 0).cause for name, stage in {"order": "data", "step": "optimisation"}.items())
    monkeypatch.setattr(rank, "CAUSES", known)


@pytest.mark.parametrize(("needed", "severity"), [(900, "cause"), (2000, "warning"), (NEVER, "warning")])
def test_a_remedy_that_needs_many_steps_is_proved_in_longer_runs(needed, severity, tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=NEVER, seconds=80)  # 64 seconds for six runs: some thousand steps each
    assert found_by(plan, lost_with(plan, lost), suspect("order", "data", needed)) == [("order", severity)]


def test_longer_runs_are_no_longer_than_the_whole_training(tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=NEVER, seconds=float("inf"))
    assert try_for_longer(plan, lost_with(plan, lost), ()).plan.num_steps == WHOLE


def test_of_a_loader_without_end_some_thousand_steps_are_run(tiny_bench, lost, ran, monkeypatch):
    monkeypatch.setattr(trial, "steps_of_training", lambda bench: None)
    plan = plan_of(tiny_bench, own=NEVER, seconds=float("inf"))
    assert try_for_longer(plan, lost_with(plan, lost), ()).plan.num_steps == trial.LONGEST


def test_the_rest_of_a_short_training_is_run_too(tiny_bench, lost, ran, monkeypatch):
    monkeypatch.setattr(trial, "steps_of_training", lambda bench: 120)
    plan = plan_of(tiny_bench, own=NEVER, seconds=80)
    assert try_for_longer(plan, lost_with(plan, lost), ()).plan.num_steps == 120


@pytest.mark.parametrize(("seconds", "pace"), [(0.0, PACE), (1.8, PACE), (80.0, float("nan"))])
def test_without_time_or_a_known_pace_nothing_is_run(seconds, pace, tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=NEVER, seconds=seconds)
    seen = lost_with(plan, lost)._replace(run=SHORT._replace(step_seconds=pace))
    assert try_for_longer(plan, seen, tried_of(plan, suspect("order", "data", 1500))) == (plan, seen, [], [])
    assert not ran


def test_with_time_for_one_run_the_network_as_it_is_goes_on(tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=300, seconds=4.5)
    found = try_for_longer(plan, lost_with(plan, lost), tried_of(plan, suspect("order", "data", 200)))
    assert found.tried == []
    assert found.seen.facts["validation accuracy"] == 0.9
    assert len(found.seen.run.curve.loss) == found.seen.facts["number of steps"] == found.plan.num_steps >= 300
    assert found.seen.facts["number of updates"] == found.plan.num_steps / 10


def test_a_network_that_learns_in_a_longer_run_is_not_blamed(tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=900, seconds=80)
    assert found_by(plan, lost_with(plan, lost), suspect("order", "data", 500)) == [("order", "warning")]
    assert {needed for needed, num_steps in ran if num_steps > 100} == {900}


def test_one_that_had_learnt_is_not_run_again(tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=NEVER, seconds=80)
    fine = lost._replace(facts={**lost.facts, "validation accuracy": 0.8}, bench=plan.bench)
    assert try_for_longer(plan, fine, tried_of(plan, suspect("order", "data", 500))) == (plan, fine, [], [])


@pytest.mark.parametrize("harms_late", [False, True])
def test_a_fault_whose_harm_comes_late_is_proved_in_longer_runs(harms_late, tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=NEVER, seconds=80)  # as of labels learnt by heart: in longer runs little is left
    fine = lost._replace(facts={**lost.facts, "validation accuracy": 0.8}, bench=plan.bench)
    weak = suspect("order", "data", 900, strength=0.3, harms_late=harms_late)
    assert found_by(plan, fine, weak) == ([("order", "cause")] if harms_late else [])


def test_a_fault_that_costs_nothing_late_either_is_none(tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=100, seconds=80)
    fine = lost._replace(facts={**lost.facts, "validation accuracy": 0.9}, bench=plan.bench)
    items = tried_of(plan, suspect("order", "data", 900, strength=0.3, harms_late=True))
    found = try_for_longer(plan, fine, items)
    assert [(item.suspect.cause.id, item.gain) for item in found.tried] == [("order", 0.0)]
    assert found_by(plan, fine, items[0].suspect) == []


def test_without_time_for_its_proof_a_fault_of_late_harm_is_not_run_again(tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=100, seconds=4.5)
    fine = lost._replace(facts={**lost.facts, "validation accuracy": 0.9}, bench=plan.bench)
    items = tried_of(plan, suspect("order", "data", 900, strength=0.3, harms_late=True))
    assert try_for_longer(plan, fine, items) == (plan, fine, [], [])


@pytest.mark.parametrize(("needed", "again"), [(900, ["order"]), (NEVER, ["order", "step"])])
def test_upstream_goes_first_and_what_solves_it_ends_the_search(needed, again, tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=NEVER, seconds=100)
    items = tried_of(plan, suspect("step", "optimisation", 800), suspect("order", "data", needed))
    found = try_for_longer(plan, lost_with(plan, lost), items)
    assert [item.suspect.cause.id for item in found.tried] == again


def test_what_the_longest_runs_leave_no_time_to_prove_is_not_held_for_proved(tiny_bench, lost, ran, monkeypatch):
    plan = plan_of(tiny_bench, own=NEVER, seconds=80)
    monkeypatch.setattr(longer, "PROOF", 0)  # as if all runs had taken far longer than expected
    monkeypatch.setattr(Plan, "has_time", lambda plan, runs=1: runs == 1)
    assert try_for_longer(plan, lost_with(plan, lost), tried_of(plan, suspect("order", "data", 900))).tried == []


def test_what_a_longer_run_leaves_out_is_listed(tiny_bench, lost, ran, monkeypatch):
    def stop(plan, problem, seed):
        raise OSError("the disk is gone")

    plan = plan_of(tiny_bench, own=NEVER, seconds=80)
    monkeypatch.setattr(longer, "run_twin", stop)
    found = weigh(plan, lost_with(plan, lost), [suspect("order", "data", 900)])
    assert len(found.untried) == 1
    assert "order: OSError('the disk is gone') (in a longer run)" in found.untried[0]


def test_weak_evidence_gets_no_longer_run(tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=NEVER, seconds=80)
    items = tried_of(plan, suspect("order", "data", 500, strength=0.4))
    assert try_for_longer(plan, lost_with(plan, lost), items).tried == []


def test_a_longer_run_that_fails_leaves_all_as_it_was(tiny_bench, lost, ran, monkeypatch):
    def stop(problem, bench, plan):
        raise OSError("the file ends here")

    plan = plan_of(tiny_bench, own=NEVER, seconds=80)
    monkeypatch.setattr(longer, "settled_run", stop)
    seen = lost_with(plan, lost)
    assert try_for_longer(plan, seen, ()) == (plan, seen, [], [])


def test_a_control_that_fails_once_proves_no_remedy(tiny_bench, monkeypatch):
    def stop(problem, bench, plan):
        raise OSError("the file ends here")

    monkeypatch.setattr(trial, "scored_run", stop)
    plan = plan_of(tiny_bench, own=NEVER, seconds=80)
    with pytest.raises(OSError, match="ends here"):
        trial.control(plan, 1)
    assert trial.control(plan._replace(controls={}), 1).accuracy == 1 / tiny_bench.num_classes


def test_a_network_that_needs_longer_is_run_for_longer_and_healthy(monkeypatch):
    rng = np.random.default_rng(0)
    labels = np.arange(160) % 4
    images = (rng.random((160, 8, 8, 1)) + labels[:, None, None, None]).astype(np.float32) / 4
    data = cp.Dataset(images, labels)
    slow = cp.Problem(cp.small_cnn(4), cross_entropy, optax.adam(3e-4), data, data, num_classes=4)
    slow = slow._replace(batch_size=16, num_epochs=30)
    monkeypatch.setattr(run, "MAX_STEPS", 20)
    said = []
    diagnosis = cp.diagnose(slow, budget_seconds=90, tell=said.append)
    assert diagnosis.verdict == "healthy"
    assert "ran 300 steps" in diagnosis.summary
    assert "running the network for 300 steps" in said


def test_what_the_longer_run_alone_speaks_for_is_tried_too(tiny_bench, lost, ran, monkeypatch):
    late = suspect("order", "data", 2000)
    monkeypatch.setattr(rank, "suspect", lambda seen: (late,) if seen.facts["number of updates"] > 10 else ())
    plan = plan_of(tiny_bench, own=NEVER, seconds=1000)
    assert found_by(plan, lost_with(plan, lost)) == [("order", "cause")]


@pytest.mark.parametrize(
    ("own", "strength", "seconds", "severity"),
    [
        (1000, 0.6, 80, "warning"),  # the rest of the training brings the same
        (NEVER, 0.6, 80, "cause"),  # nothing but the remedy does
        (1000, 1.0, 80, "cause"),  # the evidence speaks for itself
        (1000, 0.6, 12, "cause"),  # no time is left to find out
    ],
)
def test_a_gain_of_time_alone_is_no_harm(own, strength, seconds, severity, tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=own, seconds=seconds)
    seen = lost_with(plan, lost)._replace(run=SHORT)
    assert found_by(plan, seen, suspect("order", "data", 50, strength=strength)) == [("order", severity)]


def test_what_gains_at_the_end_of_the_training_too_is_harm(tiny_bench, lost, ran, monkeypatch):
    def run_twin(plan, problem, seed):
        return Scored(1.0 if plan.num_steps > 100 else 0.6, curve(plan.num_steps))

    monkeypatch.setattr(catch_up, "run_twin", run_twin)
    monkeypatch.setattr(prove, "run_twin", run_twin)
    plan = plan_of(tiny_bench, own=1000, seconds=80)
    assert found_by(plan, lost_with(plan, lost), suspect("order", "data", 50, strength=0.6)) == [("order", "cause")]


@pytest.mark.parametrize(("first_loss", "is_doubted"), [(np.nan, False), (1.0, True)])
def test_a_loss_that_is_made_finite_is_not_doubted(first_loss, is_doubted, tiny_bench, lost, ran):
    plan = plan_of(tiny_bench, own=1000, seconds=80)
    sick = curve(100)._replace(loss=np.full(100, first_loss))
    accuracy = np.array([0.1, 0.1])
    trial_ = Trial("accuracy", accuracy, accuracy, 100, sick, curve(100))
    attempt = Attempt(lambda problem: problem, plan.bench.problem, scored_after(50, 100))
    assert catches_up(plan, lost._replace(run=SHORT), attempt, trial_, strength=0.6) is is_doubted
