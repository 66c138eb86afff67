"""Proof: remedies that gain from fresh seeds make causes, the earliest in the chain of effects first."""

import functools
from collections.abc import Set
from typing import NamedTuple

import numpy as np

from cnnprobe.doctor.catch_up import catches_up
from cnnprobe.doctor.causes.record import STAGES, Cause
from cnnprobe.doctor.harm import DECISIVE, ENOUGH, LARGE, does_harm, gain_of
from cnnprobe.doctor.observation import Observation
from cnnprobe.doctor.substitute import FITTED, rescues
from cnnprobe.doctor.trial import Attempt, Plan, Scored, control, make_trial, mended_plan, run_twin
from cnnprobe.types import Evidence, Finding, Problem, Remedy, Trial

RIVAL = 0.7  # share of the best gain from which an earlier cause is held to explain the later one
SEEDS = 3
MOST_SEEDS = 6  # where three leave it to chance
IN_NETWORK = {"loss", "architecture", "regularisation"}  # stages of faults that another network does not have
CLEAR = 2 * ENOUGH  # points that each of two seeds must gain to prove what speaks for itself
REPLACEMENTS = 6  # runs' worth of time that substitution takes


class Suspect(NamedTuple):
    """A cause with what speaks for it and what may mend it."""

    cause: Cause
    evidence: Evidence
    remedies: tuple[Remedy, ...]


class Tried(NamedTuple):
    """A suspect whose best remedy was run from the first seed."""

    suspect: Suspect
    attempt: Attempt
    gain: float  # `gain_of`, over the control of the same seed


def depth(item: Suspect) -> int:
    """How far down the chain of effects a cause stands."""
    return STAGES.index(item.cause.stage)


def proved(plan: Plan, seen: Observation, tried: list[Tried]) -> tuple[list[Finding], dict[str, Trial]]:
    """The first cause and those that help on top of it; and the trials that fresh seeds did not bear out, by cause."""
    failed: dict[str, Trial] = {}
    helpful = [item for item in tried if item.gain >= ENOUGH]
    decisive = [item for item in tried if item.suspect.evidence.strength >= DECISIVE]
    if not helpful:
        return _proved_together(plan, seen, decisive), failed
    while helpful:
        first = _first_cause(plan, helpful)
        helpful.remove(first)
        trial = _confirm(plan, first)
        if _is_harm(plan, seen, first, trial):
            others = sorted(helpful, key=lambda item: -item.gain)
            others += [item for item in decisive if item is not first and item not in helpful]
            more = _proved_on_top(plan, seen, first, others)
            return [finding(seen, first.suspect, "cause", remedy=first.attempt.remedy, trial=trial), *more], failed
        failed[first.suspect.cause.id] = trial
    return [], failed


def proved_anew(plan: Plan, seen: Observation, tried: list[Tried]) -> tuple[list[Finding], dict[str, Trial]]:
    """As `proved`, of remedies that gained nothing from a first seed that may have been an unlucky one."""
    failed: dict[str, Trial] = {}
    for item in tried:
        if not plan.has_time(runs=2):
            break
        trial = _confirm(plan, item)
        if len(trial.control) == 1:  # an error or the clock: nothing is known that was not before
            continue
        if _is_harm(plan, seen, item, trial):
            return [finding(seen, item.suspect, "cause", remedy=item.attempt.remedy, trial=trial)], failed
        failed[item.suspect.cause.id] = trial
    return [], failed


def _is_harm(plan: Plan, seen: Observation, item: Tried, trial: Trial) -> bool:
    """Whether the gain is beyond chance, and not one of time alone."""
    strength = item.suspect.evidence.strength
    return does_harm(plan, trial, strength) and not catches_up(plan, seen, item.attempt, trial, strength=strength)


def _proved_on_top(plan: Plan, seen: Observation, first: Tried, others: list[Tried]) -> list[Finding]:
    """Those of the other causes whose remedies gain where the first remedy has been applied."""
    if not others or not plan.has_time():
        return []
    try:
        after = mended_plan(plan, first.attempt)
    except Exception:  # the data as the first remedy leaves them cannot be read; then nothing is proved on them
        return []
    findings = []
    for item in others:
        second = _on_top(after, item)
        if second is None:
            continue
        trial = _confirm(after, second)
        if _is_harm(after, seen, second, trial):
            said = trial._replace(metric=f"{trial.metric}, on top of the first remedy,")
            findings.append(finding(seen, item.suspect, "cause", remedy=item.attempt.remedy, trial=said))
    return findings


def _on_top(after: Plan, item: Tried) -> Tried | None:
    """A remedy run on the mended problem from the first seed, if it gains there too."""
    if not after.has_time():
        return None
    try:
        both = item.attempt.remedy(after.bench.problem)
        attempt = Attempt(item.attempt.remedy, both, run_twin(after, both, 0))
    except Exception:  # two remedies may not go together; then the second is not proved
        return None
    gain = gain_of(after, attempt)
    return Tried(item.suspect, attempt, gain) if gain >= ENOUGH else None


def _confirm(plan: Plan, item: Tried) -> Trial:
    """The same pair from fresh seeds, as long as there is time, or until more of them would change nothing.

    The first seed chose the remedy, so it would flatter it: it counts only where there was no time for another.
    """
    plan.tell(f"confirming from other seeds: {item.suspect.cause.title}")
    scored: dict[int, Scored] = {}
    for seed in range(1, 1 + MOST_SEEDS):
        if not plan.has_time(runs=2) or _is_decided(plan, scored, item.suspect.evidence.strength):
            break
        try:
            twin = run_twin(plan, item.attempt.problem, seed)
            control(plan, seed)
        except Exception:  # another order or other draws may meet an error that the first seed did not, or the deadline
            break
        scored[seed] = twin
    return make_trial(plan, scored or {0: item.attempt.scored})


def _is_decided(plan: Plan, scored: dict[int, Scored], strength: float) -> bool:
    """Whether two seeds gained so much and so alike, or three so clearly or so little, that others would not matter.

    Of the pairs of calibration runs that differ in nothing but their seed one in forty gains as much as `LARGE`. Where
    the evidence speaks for itself less than that is enough.
    """
    if len(scored) not in (2, SEEDS):
        return False
    trial = make_trial(plan, scored)
    if len(scored) < SEEDS:
        is_large = np.min(trial.remedied - trial.control) >= (CLEAR if strength >= DECISIVE else LARGE)
        return bool(is_large) and does_harm(plan, trial, strength)
    return not trial.gain >= ENOUGH or does_harm(plan, trial, strength)


def _rescued(plan: Plan) -> frozenset[str]:
    """The stages whose reference part alone lets the network fit sixteen images that it does not fit as it is."""
    if plan.bench.train.ids is None or not plan.has_time(runs=REPLACEMENTS):
        return frozenset()
    accuracies = dict(rescues(plan.bench, deadline=plan.deadline))
    if accuracies.pop("as it is", 1.0) >= FITTED:
        return frozenset()
    rescued = {part for part, accuracy in accuracies.items() if accuracy >= FITTED}
    return frozenset(rescued | (IN_NETWORK if "network" in rescued else set()))


def _first_cause(plan: Plan, helpful: list[Tried]) -> Tried:
    """The earliest in the chain of effects among those that gain nearly as much as the best.

    What another of them explains is left out; evidence that speaks for itself explains even what gains more than its
    own remedy. Where several stages are close, substitution on sixteen images has the first word.
    """
    most = max(item.gain for item in helpful)
    close = {item.suspect.cause.id for item in helpful if item.gain >= RIVAL * most}
    rivals = [item for item in helpful if item.suspect.cause.id in close or _explains_decisively(item, close)]
    explained = {name for item in rivals for name in item.suspect.cause.explains}
    rivals = [item for item in rivals if item.suspect.cause.id not in explained]
    if len({item.suspect.cause.stage for item in rivals}) > 1:
        rescued = _rescued(plan)
        rivals = [item for item in rivals if item.suspect.cause.stage in rescued] or rivals
    return min(rivals, key=lambda item: (depth(item.suspect), -item.suspect.evidence.strength, -item.gain))


def _explains_decisively(item: Tried, others: Set[str]) -> bool:
    """Whether evidence that speaks for itself makes one of the other causes a result of this one."""
    return item.suspect.evidence.strength >= DECISIVE and not others.isdisjoint(item.suspect.cause.explains)


def _proved_together(plan: Plan, seen: Observation, decisive: list[Tried]) -> list[Finding]:
    """Faults that hide each other: no remedy gains alone, but all decisive ones together do, one of each stage."""
    decisive = list({item.suspect.cause.stage: item for item in decisive}.values())
    if len(decisive) < 2 or not plan.has_time():
        return []
    try:
        joint = _together(plan, decisive)
    except Exception:  # remedies may not go together; then nothing is proved
        return []
    needed = [item for item in decisive if _is_needed(plan, decisive, item, joint.scored.accuracy)]
    trial = _confirm(plan, Tried(decisive[0].suspect, joint, gain_of(plan, joint)))
    if not does_harm(plan, trial, DECISIVE):
        return []
    joined = trial._replace(metric=f"{trial.metric}, all remedies together,")
    return [finding(seen, item.suspect, "cause", remedy=joint.remedy, trial=joined) for item in needed]


def _together(plan: Plan, items: list[Tried]) -> Attempt:
    """All remedies, one after the other, run from the first seed."""

    def remedy(problem: Problem) -> Problem:
        """All remedies, one after the other."""
        return functools.reduce(lambda mended, item: item.attempt.remedy(mended), items, problem)

    problem = remedy(plan.bench.problem)
    return Attempt(remedy, problem, run_twin(plan, problem, 0))


def _is_needed(plan: Plan, items: list[Tried], item: Tried, reached: float) -> bool:
    """Whether the others without this one fall short of what all reach; of two, neither gained alone."""
    others = [other for other in items if other is not item]
    if len(others) == 1 or not plan.has_time():
        return True
    try:
        return reached - _together(plan, others).scored.accuracy >= ENOUGH
    except Exception:  # without it the others do not run
        return True


def finding(
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
        look_alikes=item.cause.look_alikes,
    )
