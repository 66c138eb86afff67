"""From suspicions to findings: every remedy is run, upstream causes explain others, harm decides the severity."""

import functools
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from cnnprobe.doctor.causes import CAUSES
from cnnprobe.doctor.causes.record import STAGES, Cause
from cnnprobe.doctor.observation import Observation
from cnnprobe.doctor.substitute import FITTED, rescues
from cnnprobe.doctor.trial import Attempt, Plan, best_attempt, control, make_trial, run_twin
from cnnprobe.types import Curve, Evidence, Finding, Problem, Remedy, Trial

ENOUGH = 0.05  # points of balanced accuracy that a remedy must gain to show harm
RIVAL = 0.7  # share of the best gain from which an earlier cause is held to explain the later one
DECISIVE = 0.9  # strength of evidence that speaks for itself
SUFFICIENT = 0.5  # the same where no remedy exists that could be run
LARGE = 0.3  # points after which no further candidate of the same cause is tried
SEEDS = 3
REPLACEMENTS = 6  # runs' worth of time that substitution takes


class Suspect(NamedTuple):
    """A cause with what speaks for it."""

    cause: Cause
    evidence: Evidence


class Tried(NamedTuple):
    """A suspect whose best remedy was run from the first seed."""

    suspect: Suspect
    attempt: Attempt
    gain: float  # over the control of the same seed


def suspect(seen: Observation) -> tuple[Suspect, ...]:
    """The causes that something speaks for, strongest first."""
    evidence = ((cause, cause.evidence(seen)) for cause in CAUSES)
    suspects = [Suspect(cause, found) for cause, found in evidence if found is not None and found.strength > 0]
    return tuple(sorted(suspects, key=lambda s: -s.evidence.strength))


def _depth(item: Suspect) -> int:
    """How far down the chain of effects a cause stands."""
    return STAGES.index(item.cause.stage)


def _screen(plan: Plan, seen: Observation, suspects: Iterable[Suspect]) -> tuple[list[Tried], list[str]]:
    """Runs the remedies of each suspect once; says what the clock or an error left out."""
    tried: list[Tried] = []
    untried: list[str] = []
    for item in suspects:
        remedies = item.cause.remedies(seen)
        if not remedies:
            continue
        if not plan.has_time():
            untried.append(f"the remedy of {item.cause.id}: no time was left")
            continue
        try:
            best = best_attempt(plan, remedies, LARGE)
        except Exception as error:  # the user's functions, on inputs that a remedy has changed, may raise anything
            untried.append(f"the remedy of {item.cause.id}: {error!r:.200}")
            continue
        tried.append(Tried(item, best, best.scored.accuracy - control(plan, 0).accuracy))
    return tried, untried


def _rescued(plan: Plan) -> frozenset[str]:
    """The stages whose reference part alone lets the network fit sixteen images that it does not fit as it is."""
    if plan.bench.train.ids is None or not plan.has_time(runs=REPLACEMENTS):
        return frozenset()
    accuracies = dict(rescues(plan.bench, deadline=plan.deadline))
    if accuracies.pop("as it is", 1.0) >= FITTED:
        return frozenset()
    return frozenset(stage for stage, accuracy in accuracies.items() if accuracy >= FITTED)


def _first_cause(plan: Plan, helpful: list[Tried]) -> Tried:
    """The earliest in the chain of effects among those that gain nearly as much as the best.

    Where several stages are close, substitution on sixteen images has the first word.
    """
    most = max(item.gain for item in helpful)
    rivals = [item for item in helpful if item.gain >= RIVAL * most]
    if len({item.suspect.cause.stage for item in rivals}) > 1:
        rescued = _rescued(plan)
        rivals = [item for item in rivals if item.suspect.cause.stage in rescued] or rivals
    return min(rivals, key=lambda item: (_depth(item.suspect), -item.suspect.evidence.strength, -item.gain))


def _still_helps(plan: Plan, first: Tried, other: Tried) -> bool:
    """Whether a second remedy gains on top of the first."""
    if not plan.has_time():
        return False
    try:
        both = other.attempt.remedy(first.attempt.problem)
        return run_twin(plan, both, 0).accuracy - first.attempt.scored.accuracy >= ENOUGH
    except Exception:  # two remedies may not go together; then the second is not proved
        return False


def _confirm(plan: Plan, item: Tried) -> Trial:
    """The same pair from fresh seeds, as long as there is time.

    The first seed chose the remedy, so it would flatter it: it counts only where there was no time for another.
    """
    scored = {}
    for seed in range(1, 1 + SEEDS):
        if not plan.has_time(runs=2):
            break
        scored[seed] = run_twin(plan, item.attempt.problem, seed)
        control(plan, seed)
    return make_trial(plan, scored or {0: item.attempt.scored})


def _makes_finite(control: Curve, remedied: Curve) -> bool:
    """Whether the loss ends as NaN or infinite without the remedy, and never is with it."""
    return not np.isfinite(control.loss[-1:]).all() and bool(np.isfinite(remedied.loss).all())


def _helps(plan: Plan, item: Tried) -> bool:
    """Whether the first seed speaks for the remedy."""
    return item.gain >= ENOUGH or _makes_finite(control(plan, 0).curve, item.attempt.scored.curve)


def _does_harm(trial: Trial) -> bool:
    """Whether the gain is large, and twice its standard error where seeds tell; or the remedy makes the loss finite."""
    error = 0.0 if math.isnan(trial.spread) else trial.spread / math.sqrt(len(trial.control))
    gains = trial.gain >= max(ENOUGH, 2 * error)
    return gains or _makes_finite(trial.control_curve, trial.remedied_curve)


def _finding(
    seen: Observation, item: Suspect, severity: str, *, remedy: Remedy | None = None, trial: Trial | None = None
) -> Finding:
    """The record of one cause."""
    advice, strength = item.cause.advice(seen), item.evidence.strength
    proof = min(max(trial.gain, 0.0) / LARGE, 1.0) if trial else 0.6
    return Finding(
        cause=item.cause.id,
        title=item.cause.title,
        severity=severity,
        confidence=round(0.5 * strength + 0.5 * proof, 3) if severity == "cause" else round(0.5 * strength, 3),
        evidence=item.evidence,
        remedy=remedy,
        advice=advice.text,
        snippet=advice.snippet,
        trial=trial,
        explanation=item.cause.explanation,
        references=item.cause.references,
    )


def _proved(plan: Plan, seen: Observation, tried: list[Tried]) -> list[Finding]:
    """The first cause and those that help on top of it, each with its trial."""
    helpful = [item for item in tried if _helps(plan, item)]
    if not helpful:
        return _proved_together(plan, seen, [item for item in tried if item.suspect.evidence.strength >= DECISIVE])
    first = _first_cause(plan, helpful)
    others = sorted((item for item in helpful if item is not first), key=lambda item: -item.gain)
    chosen = [first, *(item for item in others if _still_helps(plan, first, item))]
    trials = [(item, _confirm(plan, item)) for item in chosen]
    return [
        _finding(seen, item.suspect, "cause", remedy=item.attempt.remedy, trial=trial)
        for item, trial in trials
        if _does_harm(trial)
    ]


def _proved_together(plan: Plan, seen: Observation, decisive: list[Tried]) -> list[Finding]:
    """Faults that hide each other: no remedy gains alone, but all decisive ones together do."""
    if len(decisive) < 2 or not plan.has_time():
        return []

    def remedy(problem: Problem) -> Problem:
        """All remedies, one after the other."""
        return functools.reduce(lambda mended, item: item.attempt.remedy(mended), decisive, problem)

    try:
        trial = make_trial(plan, {0: run_twin(plan, remedy(plan.bench.problem), 0)})
    except Exception:  # remedies may not go together; then nothing is proved
        return []
    if trial.gain < ENOUGH:
        return []
    joint = trial._replace(metric=f"{trial.metric}, all remedies together,")
    return [_finding(seen, item.suspect, "cause", remedy=remedy, trial=joint) for item in decisive]


def _unproved(plan: Plan, seen: Observation, item: Suspect, tried: Tried | None) -> Finding | None:
    """A cause where nothing could be run, a warning where the remedy was run in vain and the evidence is decisive."""
    strength = item.evidence.strength
    if tried is None:
        enough = DECISIVE if item.cause.remedies(seen) else SUFFICIENT
        return _finding(seen, item, "cause") if strength >= enough else None
    if _helps(plan, tried) or strength < DECISIVE:
        return None
    trial = make_trial(plan, {0: tried.attempt.scored})
    return _finding(seen, item, "warning", remedy=tried.attempt.remedy, trial=trial)


def _add_unproved(
    plan: Plan, seen: Observation, suspects: Iterable[Suspect], tried: list[Tried], causes: list[Finding]
) -> list[Finding]:
    """The proved causes and what else the evidence alone supports; what an earlier cause explains is left out."""
    stages = {cause.id: STAGES.index(cause.stage) for cause in CAUSES}
    runs = {item.suspect.cause.id: item for item in tried}
    findings = list(causes)
    for item in sorted(suspects, key=_depth):
        explained = any(f.severity == "cause" and stages[f.cause] <= _depth(item) for f in findings)
        finding = None if explained else _unproved(plan, seen, item, runs.get(item.cause.id))
        if finding is not None and not (causes and finding.severity == "cause"):
            findings.append(finding)
    return findings


def weigh(plan: Plan, seen: Observation, suspects: tuple[Suspect, ...]) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """Findings, best first, and what was left untried."""
    tried, untried = _screen(plan, seen, suspects)
    findings = _add_unproved(plan, seen, suspects, tried, _proved(plan, seen, tried))
    return tuple(sorted(findings, key=lambda finding: finding.severity != "cause")), tuple(untried)
