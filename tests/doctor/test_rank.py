"""Ranking on made-up runs: a remedy writes the accuracy that it leads to, in percent, into the batch size."""

import time

import numpy as np
import pytest

from cnnprobe.checks import NO_TIME
from cnnprobe.doctor import prove, rank, trial
from cnnprobe.doctor.causes.record import Advice, Cause
from cnnprobe.doctor.harm import does_harm, is_beyond_chance
from cnnprobe.doctor.prove import Suspect
from cnnprobe.doctor.rank import weigh
from cnnprobe.doctor.trial import Plan, Scored
from cnnprobe.types import Curve, Evidence

CURVE = Curve(np.zeros(1), np.zeros(1), np.zeros((1, 10), int), np.zeros((1, 10), int))


def fake_runs(monkeypatch, run_twin):
    """Runs of remedied problems, and controls that are not given."""

    def control(plan, seed):
        return plan.controls[seed] if seed in plan.controls else run_twin(plan, plan.bench.problem, seed)

    for module in (trial, prove):
        monkeypatch.setattr(module, "run_twin", run_twin)
        monkeypatch.setattr(module, "control", control)


@pytest.fixture
def plan(tiny_bench, monkeypatch):
    def run_twin(plan, problem, seed):
        return Scored(problem.batch_size / 100 + 0.001 * seed, CURVE)

    fake_runs(monkeypatch, run_twin)
    monkeypatch.setattr(prove, "_rescued", lambda plan: frozenset())
    return Plan(tiny_bench, 100, 1.0, 1.0, 0, time.monotonic() + 1e4, {seed: Scored(0.1, CURVE) for seed in range(9)})


def suspect(cause_id, stage, percent, *, strength=1.0):
    def remedy(problem):
        return problem._replace(batch_size=max(percent, problem.batch_size) if percent else problem.batch_size)

    remedies = () if percent is None else (remedy,)
    record = Cause(
        cause_id, cause_id, stage, lambda seen: None, lambda seen: remedies, lambda seen: Advice(""), "why", ()
    )
    return Suspect(record, Evidence("seen", (), strength), remedies)


def low(plan):
    return plan._replace(bench=plan.bench._replace(problem=plan.bench.problem._replace(batch_size=10)))


@pytest.fixture
def lost(healthy):
    """A run that learnt nothing."""
    return healthy._replace(facts={**healthy.facts, "validation accuracy": 0.1})


def severities(plan, healthy, *suspects):
    findings = weigh(low(plan), healthy, suspects).findings
    return [(finding.cause, finding.severity) for finding in findings]


@pytest.fixture(autouse=True)
def known_causes(monkeypatch):
    stages = {"input": "data", "loss": "loss", "step": "optimisation", "labels": "labels"}
    monkeypatch.setattr(rank, "CAUSES", tuple(suspect(name, stage, None).cause for name, stage in stages.items()))


def test_remedy_that_gains_makes_a_cause(plan, healthy):
    assert severities(plan, healthy, suspect("step", "optimisation", 80)) == [("step", "cause")]


@pytest.mark.parametrize(
    ("percent", "strength", "seeds"), [(80, 0.8, (1, 2)), (30, 0.8, (1, 2, 3)), (30, 1.0, (1, 2)), (19, 1.0, (1, 2, 3))]
)
def test_trial_reports_fresh_seeds_until_there_is_no_doubt(percent, strength, seeds, plan, healthy):
    findings = weigh(low(plan), healthy, (suspect("step", "optimisation", percent, strength=strength),)).findings
    np.testing.assert_allclose(findings[0].trial.remedied, [percent / 100 + 0.001 * seed for seed in seeds])
    assert findings[0].trial.gain == pytest.approx(percent / 100 - 0.1 + 0.001 * np.mean(seeds))


GAINS = {  # of the seeds 1 to 6: what three leave to chance, six may tell
    "told by six": ([0.02, 0.20, 0.05, 0.09, 0.09, 0.09], "cause", 6),
    "large and unlike, told by a third": ([0.35, 0.75, 0.5, 0.5, 0.5, 0.5], "cause", 3),
    "left to chance": ([0.0, 0.20, 0.0, 0.20, 0.0, 0.0], "warning", 6),
    "too little": ([0.0, 0.08, 0.0, 0.30, 0.30, 0.30], None, 3),
}


@pytest.mark.parametrize("case", GAINS)
def test_a_gain_that_three_seeds_leave_to_chance_is_run_from_three_more(case, plan, healthy, monkeypatch):
    gains, severity, num_seeds = GAINS[case]
    seeds = []

    def run_twin(plan, problem, seed):
        seeds.append(seed)
        return Scored(0.1 + (0.2 if seed == 0 else gains[seed - 1]), CURVE)

    fake_runs(monkeypatch, run_twin)
    findings = weigh(low(plan), healthy, (suspect("step", "optimisation", 80, strength=0.8),)).findings
    assert [finding.severity for finding in findings] == ([] if severity is None else [severity])
    assert seeds == list(range(num_seeds + 1))


@pytest.mark.parametrize("gains", [[0.01, 0.5], [0.0, 0.6], [0.3, 0.0, 0.01], [0.5, 0.01, 0.5, 0.01]])
def test_a_gain_that_half_of_the_seeds_show_is_none(gains):
    assert not is_beyond_chance(np.array(gains), np.std(gains, ddof=1) / len(gains) ** 0.5, strength=1.0)


def test_a_gain_that_most_seeds_do_not_show_is_no_proof_whatever_the_evidence(plan, healthy, monkeypatch):
    gains = [0.2, 0.0, 0.30, 0.0, 0.35, 0.0, 0.0]
    fake_runs(monkeypatch, lambda plan, problem, seed: Scored(0.1 + gains[seed], CURVE))
    assert severities(plan, healthy, suspect("step", "optimisation", 80)) == [("step", "warning")]


def test_remedy_in_vain_with_decisive_evidence_is_a_warning(plan, healthy):
    assert severities(plan, healthy, suspect("loss", "loss", 12)) == [("loss", "warning")]


def test_remedy_in_vain_with_weak_evidence_is_nothing(plan, healthy):
    assert severities(plan, healthy, suspect("loss", "loss", 12, strength=0.5)) == []


def test_earlier_cause_explains_a_later_one_that_adds_nothing(plan, healthy):
    late, early = suspect("step", "optimisation", 80), suspect("input", "data", 80)
    assert severities(plan, healthy, late, early) == [("input", "cause")]


def test_what_a_cause_explains_is_not_first_though_substitution_says_so(plan, healthy, monkeypatch):
    monkeypatch.setattr(prove, "_rescued", lambda plan: frozenset({"optimisation"}))
    summed, late = suspect("loss", "loss", 35), suspect("step", "optimisation", 35)
    assert severities(plan, healthy, summed, late)[0] == ("step", "cause")
    telling = summed._replace(cause=summed.cause._replace(explains=("step",)))
    assert severities(plan, healthy, telling, late) == [("loss", "cause")]


@pytest.mark.parametrize(
    ("percent", "explains", "tried"),
    [(95, ("step",), ["sign"]), (95, (), ["step", "sign"]), (35, ("step",), ["sign", "step"])],
)
def test_what_a_cause_explains_is_not_run_where_its_remedy_leaves_nothing_to_explain(
    percent, explains, tried, plan, healthy
):
    sign = suspect("sign", "optimisation", percent, strength=0.8)
    sign = sign._replace(cause=sign.cause._replace(explains=explains))
    both = suspect("step", "optimisation", 80), sign
    assert [item.suspect.cause.id for item in rank._screen(low(plan), healthy, both)[0]] == tried


@pytest.mark.parametrize(("strength", "first"), [(1.0, "loss"), (0.8, "step")])
def test_evidence_that_speaks_for_itself_explains_what_gains_more(strength, first, plan, healthy):
    summed, late = suspect("loss", "loss", 20, strength=strength), suspect("step", "optimisation", 80)
    telling = summed._replace(cause=summed.cause._replace(explains=("step",)))
    assert severities(plan, healthy, telling, late)[0] == (first, "cause")


@pytest.mark.parametrize(("strength", "severity"), [(1.0, "cause"), (0.6, None)])
def test_harm_that_the_run_shows_makes_a_cause_though_the_remedy_was_in_vain(strength, severity, plan, healthy):
    item = suspect("labels", "labels", 12, strength=strength)
    harmful = item._replace(cause=item.cause._replace(shows_harm=lambda seen: True))
    findings = weigh(low(plan), healthy, (harmful,)).findings
    assert [found.severity for found in findings] == ([] if severity is None else [severity])
    assert all(found.remedy is None and found.trial.gain < 0.05 for found in findings)
    harmless = item._replace(cause=item.cause._replace(shows_harm=lambda seen: False))
    assert "cause" not in [found.severity for found in weigh(low(plan), healthy, (harmless,))[0]]


def test_second_cause_that_adds_is_reported_too(plan, healthy):
    first, second = suspect("input", "data", 70), suspect("step", "optimisation", 90)
    assert severities(plan, healthy, first, second) == [("input", "cause"), ("step", "cause")]


def test_later_cause_that_gains_far_more_is_first(plan, healthy):
    findings = severities(plan, healthy, suspect("input", "data", 20), suspect("step", "optimisation", 90))
    assert findings[0] == ("step", "cause")


def test_cause_without_remedy_needs_its_evidence_and_a_run_that_learnt_nothing(plan, healthy, lost):
    assert severities(plan, lost, suspect("labels", "labels", None)) == [("labels", "cause")]
    assert severities(plan, lost, suspect("labels", "labels", None, strength=0.3)) == []
    assert severities(plan, healthy, suspect("labels", "labels", None)) == [("labels", "warning")]


@pytest.mark.parametrize(("name", "stage"), [("input", "data"), ("late", "generalisation")])
def test_what_nothing_explains_stands_beside_a_proved_cause(name, stage, plan, healthy):
    proved, leak = suspect("step", "optimisation", 80), suspect(name, stage, None)
    leak = leak._replace(cause=leak.cause._replace(is_harmful=lambda seen: True))
    alone = leak._replace(cause=leak.cause._replace(stands_alone=True))
    assert severities(plan, healthy, proved, alone) == [("step", "cause"), (name, "cause")]
    assert severities(plan, healthy, proved, leak) == [("step", "cause")]


def test_a_run_that_shows_harm_keeps_a_remedy_that_gained(plan, healthy, monkeypatch):
    gains = [0.0, 0.2, 0.0, 0.2, 0.0, 0.0]
    fake_runs(monkeypatch, lambda plan, problem, seed: Scored(0.1 + (0.2 if seed == 0 else gains[seed - 1]), CURVE))
    item = suspect("labels", "labels", 80)
    findings = weigh(
        low(plan), healthy, (item._replace(cause=item.cause._replace(shows_harm=lambda seen: True)),)
    ).findings
    assert [(found.severity, found.remedy is not None) for found in findings] == [("cause", True)]


def test_run_that_the_clock_cut_short_proves_nothing(plan, lost):
    cut = lost._replace(run=None, failures={"the training step": NO_TIME})
    assert severities(plan, cut, suspect("labels", "labels", None)) == [("labels", "warning")]


def test_first_cause_that_fails_on_fresh_seeds_gives_way_to_the_next(plan, healthy, monkeypatch):
    lucky = low(plan)._replace(controls={seed: Scored(0.1 if seed == 0 else 0.6, CURVE) for seed in range(9)})
    findings = weigh(lucky, healthy, (suspect("input", "data", 60), suspect("step", "optimisation", 80))).findings
    assert [(f.cause, f.severity) for f in findings if f.severity == "cause"] == [("step", "cause")]


def test_what_the_clock_leaves_out_is_said(plan, healthy):
    findings, untried = weigh(low(plan)._replace(deadline=0.0), healthy, (suspect("step", "optimisation", 80),))[:2]
    assert untried == ("the remedy of step: no time was left",)
    assert [finding.trial for finding in findings] == [None]


def test_remedy_that_raises_is_said(plan, healthy):
    def broken(problem):
        raise RuntimeError("does not fit")

    item = suspect("step", "optimisation", 80, strength=0.5)._replace(remedies=(broken,))
    assert "does not fit" in weigh(low(plan), healthy, (item,))[1][0]


def test_remedies_that_cannot_be_made_are_none(healthy, monkeypatch):
    def broken(seen):
        raise OSError("the file is gone")

    record = suspect("step", "optimisation", None).cause
    record = record._replace(evidence=lambda seen: Evidence("seen", (), 1.0), remedies=broken)
    monkeypatch.setattr(rank, "CAUSES", (record,))
    assert [item.remedies for item in rank.suspect(healthy)] == [()]


def bit(cause_id, stage, mask):
    """A suspect whose remedy sets some of the bits of `num_epochs`."""
    item = suspect(cause_id, stage, 0)

    def remedy(problem):
        return problem._replace(num_epochs=problem.num_epochs | mask)

    return item._replace(remedies=(remedy,))


def test_faults_that_hide_each_other_are_named_without_the_harmless_one(plan, healthy, monkeypatch):
    def run_twin(plan, problem, seed):
        return Scored(0.9 if problem.num_epochs & 3 == 3 else 0.1, CURVE)

    fake_runs(monkeypatch, run_twin)
    start = plan._replace(bench=plan.bench._replace(problem=plan.bench.problem._replace(num_epochs=8)))
    suspects = (bit("input", "data", 1), bit("loss", "loss", 2), bit("step", "optimisation", 4))
    findings = weigh(start, healthy, suspects).findings
    assert [(f.cause, f.severity) for f in findings if f.severity == "cause"] == [("input", "cause"), ("loss", "cause")]


def test_second_fault_that_shows_only_once_the_first_is_mended(plan, healthy, monkeypatch):
    def run_twin(plan, problem, seed):
        return Scored({0: 0.1, 1: 0.1, 2: 0.5, 3: 0.9}[problem.num_epochs & 3], CURVE)

    fake_runs(monkeypatch, run_twin)
    start = plan._replace(bench=plan.bench._replace(problem=plan.bench.problem._replace(num_epochs=8)))
    findings = weigh(start, healthy, (bit("input", "data", 1), bit("loss", "loss", 2))).findings
    assert [(f.cause, f.severity) for f in findings] == [("loss", "cause"), ("input", "cause")]
    assert findings[1].trial.gain == pytest.approx(0.4)


def test_noise_is_no_harm(plan):
    noisy = trial.make_trial(plan, {0: Scored(0.3, CURVE), 1: Scored(0.05, CURVE), 2: Scored(0.25, CURVE)})
    assert noisy.gain == pytest.approx(0.1)
    assert not does_harm(plan, noisy, 0.5)


def test_gain_of_one_seed_is_held_against_the_number_of_images(plan):
    single = trial.make_trial(plan, {0: Scored(0.25, CURVE)})
    many = plan.bench._replace(valid=plan.bench.valid._replace(images=np.zeros((1000, 1))))
    assert not does_harm(plan, single, 0.5)
    assert does_harm(plan._replace(bench=many), single, 0.5)


def test_loss_made_finite_is_harm_enough(plan):
    broken = CURVE._replace(loss=np.array([np.nan]))
    single = trial.make_trial(plan._replace(controls={0: Scored(0.1, broken)}), {0: Scored(0.1, CURVE)})
    assert does_harm(plan, single, 0.5)


@pytest.mark.parametrize(("is_textbook", "expected"), [(True, [("step", "warning")]), (False, [])])
def test_a_textbook_fault_that_costs_nothing_is_a_warning(is_textbook, expected, plan, healthy):
    item = suspect("step", "optimisation", 10, strength=0.6)
    assert severities(plan, healthy, item._replace(cause=item.cause._replace(is_textbook=is_textbook))) == expected


@pytest.mark.parametrize(
    ("strength", "is_behind", "severity"), [(0.8, True, "cause"), (0.3, True, None), (0.8, False, None)]
)
def test_a_remedy_that_fails_from_an_unlucky_first_seed_is_run_from_others(
    strength, is_behind, severity, plan, healthy, monkeypatch
):
    fake_runs(monkeypatch, lambda plan, problem, seed: Scored(0.1 if seed == 0 else 0.8, CURVE))
    reached = {"validation accuracy": 0.1 if is_behind else 0.8, "random features accuracy": 0.8}
    seen = healthy._replace(facts={**healthy.facts, **reached})
    found = severities(plan, seen, suspect("loss", "loss", 80, strength=strength))
    assert found == ([("loss", severity)] if severity else [])
