"""From suspicions to findings: every remedy is run, upstream causes explain others, harm decides the severity."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cnnprobe.doctor.causes import CAUSES
from cnnprobe.doctor.causes.record import STAGES, Cause
from cnnprobe.doctor.harm import DECISIVE, ENOUGH, SUFFICIENT
from cnnprobe.doctor.learning_curve import with_learning_curve
from cnnprobe.doctor.longer import MOST_SUSPECTS, is_far_behind, try_for_longer
from cnnprobe.doctor.observation import Observation
from cnnprobe.doctor.progress import has_learnt, is_cut_short, solved_from
from cnnprobe.doctor.prove import Suspect, Tried, depth, finding, proved, proved_anew
from cnnprobe.doctor.screen import screen
from cnnprobe.doctor.trial import Plan, best_attempt, make_trial
from cnnprobe.types import Finding, Remedy, Trial


class Weighed(NamedTuple):
    """Findings, best first, with what they rest on."""

    findings: tuple[Finding, ...]
    untried: tuple[str, ...]  # what was left out, and why
    plan: Plan  # with runs as long as the last ones were
    seen: Observation  # with the longest run


def suspect(seen: Observation) -> tuple[Suspect, ...]:
    """The causes that something speaks for, strongest first."""
    evidence = ((cause, cause.evidence(seen)) for cause in CAUSES)
    suspects = [
        Suspect(cause, found, _remedies(cause, seen))
        for cause, found in evidence
        if found is not None and found.strength > 0
    ]
    return tuple(sorted(suspects, key=lambda s: -s.evidence.strength))


def _remedies(cause: Cause, seen: Observation) -> tuple[Remedy, ...]:
    """What may mend it; nothing where the user's data or functions fail when they are asked again."""
    try:
        return cause.remedies(seen)
    except Exception:
        return ()


def _screen(plan: Plan, seen: Observation, suspects: Iterable[Suspect]) -> tuple[list[Tried], list[str]]:
    """The best remedy of each suspect that has one; and what the clock or an error left out."""
    mendable, enough = [item for item in suspects if item.remedies], solved_from(seen.facts)
    return screen(plan, seen, mendable, lambda item: best_attempt(plan, item.remedies, enough))


def _unproved(seen: Observation, item: Suspect, tried: Tried | None, trial: Trial | None) -> Finding | None:
    """A finding on decisive evidence alone: a cause if the run learnt nothing and no remedy speaks against it.

    That is so where none could be run, or where its gain is large but not beyond its spread over seeds; and where the
    run shows the harm, though the remedy was run in vain. It is a warning where nothing but the remedy could show harm
    and did not, as for a textbook fault that was measured to be benign here, and where other evidence meets a gain from
    fresh seeds that may be chance.
    """
    strength, is_lost = item.evidence.strength, not (has_learnt(seen) or is_cut_short(seen))
    is_shown = item.cause.shows_harm is not None and item.cause.shows_harm(seen)
    if tried is None:
        if strength < (DECISIVE if item.remedies else SUFFICIENT):
            return None
        is_harmful = (is_lost or is_shown) if item.cause.is_harmful is None else item.cause.is_harmful(seen)
        return finding(seen, item, "cause" if is_harmful else "warning")
    if trial is None or math.isnan(trial.gain):
        return None
    may_gain = len(trial.control) > 1 and trial.gain >= ENOUGH  # from fresh seeds
    if strength < (SUFFICIENT if item.cause.is_textbook or may_gain else DECISIVE):
        return None
    gains = trial.gain >= ENOUGH
    is_harmful = strength >= DECISIVE and (is_shown or (gains and is_lost))
    remedy = None if is_harmful and not gains else tried.attempt.remedy
    return finding(seen, item, "cause" if is_harmful else "warning", remedy=remedy, trial=trial)


def _add_unproved(
    seen: Observation, suspects: Iterable[Suspect], tried: list[Tried], causes: list[Finding], trials: dict[str, Trial]
) -> list[Finding]:
    """The proved causes and what else the evidence alone supports; what an earlier cause explains is left out.

    Beside proved causes only those are causes that nothing else explains: a score that is read wrong stays so.
    """
    stages = {cause.id: STAGES.index(cause.stage) for cause in CAUSES}
    runs = {item.suspect.cause.id: item for item in tried}
    findings = list(causes)
    for item in sorted(suspects, key=depth):
        explained = any(f.severity == "cause" and stages[f.cause] <= depth(item) for f in findings)
        name, is_free = item.cause.id, item.cause.stands_alone
        finding = None if explained and not is_free else _unproved(seen, item, runs.get(name), trials.get(name))
        if finding is not None and (is_free or not causes or finding.severity != "cause"):
            findings.append(finding)
    return findings


def weigh(plan: Plan, seen: Observation, suspects: tuple[Suspect, ...]) -> Weighed:
    """Runs the remedies, in longer runs too where short ones prove nothing, and says what is proved."""
    tried, untried = _screen(plan, seen, suspects)
    causes, failed = proved(plan, seen, tried)
    trials = _trials(plan, tried) | failed
    if not causes:
        plan, seen, again, skipped = try_for_longer(plan, with_learning_curve(plan, seen), tried)
        late = _late(seen, suspects)
        more, left_out = _screen(plan, seen, late)
        suspects, tried, untried = (*suspects, *late), [*tried, *more], [*untried, *skipped, *left_out]
        causes, failed = proved(plan, seen, [*again, *more])
        trials |= _trials(plan, [*again, *more]) | failed
    if not causes:
        causes, failed = proved_anew(plan, seen, _unlucky(seen, tried, trials))
        trials |= failed
    findings = _add_unproved(seen, suspects, tried, causes, trials)
    return Weighed(tuple(sorted(findings, key=lambda finding: finding.severity != "cause")), tuple(untried), plan, seen)


def _late(seen: Observation, suspects: Iterable[Suspect]) -> tuple[Suspect, ...]:
    """What the learning curve or a longer run speaks for, and the short run did not."""
    known = {item.cause.id for item in suspects}
    return tuple(item for item in suspect(seen) if item.cause.id not in known)


def _unlucky(seen: Observation, tried: Iterable[Tried], trials: Mapping[str, Trial]) -> list[Tried]:
    """Of a network that is far behind: what most speaks for, and no more than one seed against."""
    telling = sorted(tried, key=lambda item: -item.suspect.evidence.strength)
    telling = [item for item in telling if item.suspect.evidence.strength >= SUFFICIENT]
    alone = [item for item in telling if len(trials[item.suspect.cause.id].control) == 1]
    return alone[:MOST_SUSPECTS] if is_far_behind(seen) else []


def _trials(plan: Plan, tried: Iterable[Tried]) -> dict[str, Trial]:
    """What each remedy gained from the first seed, by cause."""
    return {item.suspect.cause.id: make_trial(plan, {0: item.attempt.scored}) for item in tried}
