"""From suspicions to findings: every remedy is run, upstream causes explain others, harm decides the severity."""

import functools
import math
from collections.abc import Iterable
from typing import NamedTuple

from cnnprobe.doctor.bench import above_chance
from cnnprobe.doctor.causes import CAUSES
from cnnprobe.doctor.causes.record import STAGES, Cause
from cnnprobe.doctor.harm import DECISIVE, ENOUGH, LARGE, does_harm, gain_of
from cnnprobe.doctor.observation import NO_TIME, Observation
from cnnprobe.doctor.run import FEWEST_STEPS
from cnnprobe.doctor.substitute import FITTED, rescues
from cnnprobe.doctor.trial import Attempt, Plan, best_attempt, control, make_trial, run_twin
from cnnprobe.types import Evidence, Finding, Problem, Remedy, Trial

RIVAL = 0.7  # share of the best gain from which an earlier cause is held to explain the later one
SUFFICIENT = 0.5  # the same where no remedy exists that could be run
LEARNT = 0.97  # of the loss of a blind guess: what has not fallen below it has learnt nothing
BASELINE = "random features accuracy"
SOLVED = 0.9  # of the baseline, from which nothing else is held to be wrong
SEEDS = 3
IN_NETWORK = {"loss", "architecture", "regularisation"}  # stages of faults that another network does not have
REPLACEMENTS = 6  # runs' worth of time that substitution takes


class Suspect(NamedTuple):
    """A cause with what speaks for it."""

    cause: Cause
    evidence: Evidence


class Tried(NamedTuple):
    """A suspect whose best remedy was run from the first seed."""

    suspect: Suspect
    attempt: Attempt
    gain: float  # `gain_of`, over the control of the same seed


def has_learnt(seen: Observation) -> bool:
    """Whether the run got better than any blind guess; where no accuracy is known, whether its loss fell."""
    reached = seen.facts.get("validation accuracy", math.nan)
    if math.isnan(reached):
        return seen.facts.get("end loss ratio", math.inf) < LEARNT
    return reached > above_chance(seen.bench)


def is_cut_short(seen: Observation) -> bool:
    """Whether the clock ended the run before it could tell anything."""
    if seen.run is None:
        return NO_TIME in seen.failures.values()
    return not seen.run.is_complete and len(seen.run.curve.loss) < FEWEST_STEPS


def suspect(seen: Observation) -> tuple[Suspect, ...]:
    """The causes that something speaks for, strongest first."""
    evidence = ((cause, cause.evidence(seen)) for cause in CAUSES)
    suspects = [Suspect(cause, found) for cause, found in evidence if found is not None and found.strength > 0]
    return tuple(sorted(suspects, key=lambda s: -s.evidence.strength))


def _depth(item: Suspect) -> int:
    """How far down the chain of effects a cause stands."""
    return STAGES.index(item.cause.stage)


def _screen(plan: Plan, seen: Observation, suspects: Iterable[Suspect]) -> tuple[list[Tried], list[str]]:
    """Runs the remedies of each suspect once, upstream first; says what the clock or an error left out.

    A remedy that brings the network to what fixed random features reach on the same data explains what stands further
    down the chain of effects: none of that is run.
    """
    tried: list[Tried] = []
    untried: list[str] = []
    solved_at, solved_from = len(STAGES), SOLVED * seen.facts.get(BASELINE, 1.0)
    for item in sorted(suspects, key=_depth):
        remedies = item.cause.remedies(seen)
        if not remedies or _depth(item) > solved_at:
            continue
        if not plan.has_time():
            untried.append(f"the remedy of {item.cause.id}: no time was left")
            continue
        try:
            best = best_attempt(plan, remedies, solved_from)
        except Exception as error:  # the user's functions, on inputs that a remedy has changed, may raise anything
            untried.append(f"the remedy of {item.cause.id}: {error!r:.200}")
            continue
        tried.append(Tried(item, best, gain_of(plan, best)))
        if tried[-1].gain >= LARGE and best.scored.accuracy >= solved_from:
            solved_at = min(solved_at, _depth(item))
    return tried, untried


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
        try:
            twin = run_twin(plan, item.attempt.problem, seed)
            control(plan, seed)
        except Exception:  # another order or other draws may meet an error that the first seed did not, or the deadline
            break
        scored[seed] = twin
    return make_trial(plan, scored or {0: item.attempt.scored})


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


def _proved(plan: Plan, seen: Observation, tried: list[Tried]) -> tuple[list[Finding], dict[str, Trial]]:
    """The first cause and those that help on top of it; and the trials that fresh seeds did not bear out, by cause."""
    failed: dict[str, Trial] = {}
    helpful = [item for item in tried if item.gain >= ENOUGH]
    if not helpful:
        decisive = [item for item in tried if item.suspect.evidence.strength >= DECISIVE]
        return _proved_together(plan, seen, decisive), failed
    while helpful:
        first = _first_cause(plan, helpful)
        helpful.remove(first)
        trial = _confirm(plan, first)
        if does_harm(plan, trial, first.suspect.evidence.strength):
            others = sorted(helpful, key=lambda item: -item.gain)
            more = [(item, _confirm(plan, item)) for item in others if _still_helps(plan, first, item)]
            proved = [(first, trial), *((i, t) for i, t in more if does_harm(plan, t, i.suspect.evidence.strength))]
            return [_finding(seen, i.suspect, "cause", remedy=i.attempt.remedy, trial=t) for i, t in proved], failed
        failed[first.suspect.cause.id] = trial
    return [], failed


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
    return [_finding(seen, item.suspect, "cause", remedy=joint.remedy, trial=joined) for item in needed]


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


def _unproved(seen: Observation, item: Suspect, tried: Tried | None, trial: Trial | None) -> Finding | None:
    """A finding on decisive evidence alone: a cause if the run learnt nothing and no remedy speaks against it.

    That is so where none could be run, or where its gain is large but not beyond its spread over seeds. Where the
    remedy was run in vain it is a warning: a textbook fault that was measured to be benign here.
    """
    strength, is_lost = item.evidence.strength, not (has_learnt(seen) or is_cut_short(seen))
    if tried is None:
        if strength < (DECISIVE if item.cause.remedies(seen) else SUFFICIENT):
            return None
        is_harmful = item.cause.stage == "generalisation" or is_lost
        return _finding(seen, item, "cause" if is_harmful else "warning")
    if trial is None or math.isnan(trial.gain) or strength < DECISIVE:
        return None
    is_harmful = trial.gain >= ENOUGH and is_lost
    return _finding(seen, item, "cause" if is_harmful else "warning", remedy=tried.attempt.remedy, trial=trial)


def _add_unproved(
    seen: Observation, suspects: Iterable[Suspect], tried: list[Tried], causes: list[Finding], trials: dict[str, Trial]
) -> list[Finding]:
    """The proved causes and what else the evidence alone supports; what an earlier cause explains is left out."""
    stages = {cause.id: STAGES.index(cause.stage) for cause in CAUSES}
    runs = {item.suspect.cause.id: item for item in tried}
    findings = list(causes)
    for item in sorted(suspects, key=_depth):
        explained = any(f.severity == "cause" and stages[f.cause] <= _depth(item) for f in findings)
        name = item.cause.id
        finding = None if explained else _unproved(seen, item, runs.get(name), trials.get(name))
        if finding is not None and not (causes and finding.severity == "cause"):
            findings.append(finding)
    return findings


def weigh(plan: Plan, seen: Observation, suspects: tuple[Suspect, ...]) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """Findings, best first, and what was left untried."""
    tried, untried = _screen(plan, seen, suspects)
    causes, failed = _proved(plan, seen, tried)
    trials = {item.suspect.cause.id: make_trial(plan, {0: item.attempt.scored}) for item in tried} | failed
    findings = _add_unproved(seen, suspects, tried, causes, trials)
    return tuple(sorted(findings, key=lambda finding: finding.severity != "cause")), tuple(untried)
