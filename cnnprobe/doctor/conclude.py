"""The verdict: one word and one sentence over all findings."""

import math
import time

from cnnprobe.checks import NO_TIME
from cnnprobe.doctor.bench import above_chance
from cnnprobe.doctor.causes.noise import is_limited_by_noise
from cnnprobe.doctor.harm import ENOUGH
from cnnprobe.doctor.locate import located
from cnnprobe.doctor.observation import Observation, error_text, fact
from cnnprobe.doctor.progress import BASELINE, has_learnt, is_behind, is_cut_short, is_solved, may_be_luck
from cnnprobe.doctor.trial import Plan, control, scored_run
from cnnprobe.types import Diagnosis, Evidence, Finding

STOPPERS = ("the model's init", "the model's forward pass", "the user's loss", "the training step")
FEW_UPDATES = 50  # below which even a healthy network still predicts one class
WORSE = 1.5  # times the loss of a blind guess: a network that is surely wrong on what it gets wrong
MUCH = 0.2  # of accuracy that a reference part must bring to a network that does well by any other measure
LONGER = 3  # times the user's own steps, to see whether more would help


def _gain_from_longer(plan: Plan, seen: Observation) -> float:
    """What three times the user's steps gain; NaN where the run was not the whole training, or time is short.

    So it is where nearly everything is right already, which leaves nothing to gain that counts.
    """
    whole = (
        seen.run is not None and seen.run.is_complete and fact(seen, "steps of the whole training") <= plan.num_steps
    )
    if not whole or fact(seen, "validation accuracy") > 1 - ENOUGH or not plan.has_time(runs=LONGER):
        return float("nan")
    longer = plan._replace(num_steps=LONGER * plan.num_steps, run_seconds=LONGER * plan.run_seconds)
    try:
        return scored_run(plan.bench.problem, plan.bench, longer).accuracy - control(plan, 0).accuracy
    except Exception:  # a loader may end, and the clock may cut the run
        return float("nan")


def _steps(seen: Observation) -> str:
    """How long the run was, and what it reached."""
    reached = fact(seen, "validation accuracy")
    score = "" if math.isnan(reached) else f" and reached {reached:.0%} balanced accuracy"
    return f"The network ran {fact(seen, 'number of steps'):.0f} steps{score}"


def _without_fault(plan: Plan, seen: Observation) -> tuple[str, str]:
    """Verdict and sentence where no cause was found."""
    if seen.run is None:
        return "cannot-tell", "The budget was over before a training step was made. Give it more seconds."
    if NO_TIME in seen.failures.values():
        return "cannot-tell", f"{_steps(seen)}: the budget was over before all was measured. Give it more seconds."
    fits = fact(seen, "training accuracy") > above_chance(seen.bench)
    if not seen.run.is_complete and not has_learnt(seen) and not fits:
        return "cannot-tell", f"{_steps(seen)}: more did not fit the budget. Give it more seconds."
    few = fact(seen, "number of updates") < FEW_UPDATES
    if few and not has_learnt(seen):
        return "untrained", f"{_steps(seen)}: too few for any network; train for longer before you judge it."
    gain = _gain_from_longer(plan, seen)
    if gain >= ENOUGH:
        return (
            "under-trained",
            f"{_steps(seen)}; {LONGER} times as many bring {100 * gain:.0f} points more: train for longer."
            f"{located(plan, seen) if is_behind(seen) else ''}",
        )
    if not has_learnt(seen):
        guess = "which its seeds leave to chance" if may_be_luck(seen) else "which is no better than a guess"
        return "cannot-tell", f"{_steps(seen)}, {guess}, but no known cause explains it.{located(plan, seen)}"
    if fact(seen, "end loss ratio") > WORSE:
        worse = fact(seen, "end loss ratio")
        return "cannot-tell", f"{_steps(seen)}, but its loss is still {worse:.3g} times that of a blind guess."
    if is_limited_by_noise(seen):
        share, fitted = fact(seen, "contradicted label share"), fact(seen, "training accuracy")
        return "noise-limited", (
            f"{_steps(seen)}. About {share:.0%} of the training labels contradict their images, and it fits"
            f" {fitted:.0%} of them: better labels would help, a better network would not."
        )
    if is_behind(seen) and not seen.run.is_complete:
        return "cannot-tell", f"{_steps(seen)}: more did not fit the budget. Give it more seconds."
    if is_behind(seen):
        return "cannot-tell", (
            f"{_steps(seen)}, where a linear rule on features of a fixed random network reaches"
            f" {fact(seen, BASELINE):.0%}: something holds it back, but no known cause explains it."
            f"{located(plan, seen)}"
        )
    held_back = located(plan, seen, gain=MUCH) if seen.run.is_complete and not is_solved(seen) else ""
    if held_back:
        return "cannot-tell", f"{_steps(seen)}, and no known cause explains why not more.{held_back}"
    return "healthy", f"{_steps(seen)}. No fault was found."


def _with_fault(first: Finding) -> str:
    """The sentence of the first finding."""
    if first.trial is None or first.remedy is None:
        return f"The first thing to mend: {first.title}."
    trial = first.trial
    return (
        f"The first thing to mend: {first.title}. The remedy takes the {trial.metric} from "
        f"{trial.control.mean():.0%} to {trial.remedied.mean():.0%} in {trial.num_steps} steps."
    )


def _does_not_run(where: str, why: str) -> Finding:
    """Where a program stops, and what it says there."""
    return Finding(
        cause="cannot-tell",
        title=f"{where} stops with an error",
        severity="cause",
        confidence=1.0,
        evidence=Evidence(f"{where[0].upper()}{where[1:]} raises {why}", (), 1.0),
        remedy=None,
        advice="Mend this error first: until the program runs, nothing else can be measured.",
        snippet="",
        trial=None,
        explanation="A program that stops before its first update cannot be examined any further.",
        references=(),
    )


def unreadable(error: Exception, started: float) -> Diagnosis:
    """The diagnosis of a problem whose data cannot be read as the user reads them."""
    finding = _does_not_run("reading a batch", error_text(error))
    return Diagnosis("faulty", _with_fault(finding), (finding,), None, (), (), {}, (), time.monotonic() - started)


def conclude(
    plan: Plan, seen: Observation, findings: tuple[Finding, ...], untried: tuple[str, ...], started: float
) -> Diagnosis:
    """The diagnosis whole."""
    causes = [finding for finding in findings if finding.severity == "cause"]
    if seen.run is None and not causes and not is_cut_short(seen):
        stopped = [(what, why) for what, why in seen.failures.items() if what in STOPPERS]
        causes = [_does_not_run(*(stopped or [("the training", "no step was made")])[-1])]
        findings = (*causes, *findings)
    verdict, summary = ("faulty", _with_fault(causes[0])) if causes else _without_fault(plan, seen)
    if verdict == "healthy" and any(NO_TIME in item for item in untried):
        summary += " Some remedies were not tried: more seconds would do so."
    missed = tuple(f"{what}: {why}" for what, why in seen.failures.items())
    return Diagnosis(
        verdict=verdict,
        summary=summary,
        findings=findings,
        curve=seen.run.curve if seen.run else None,
        layers=seen.layers,
        class_names=tuple(str(index) for index in range(seen.bench.num_classes)),
        facts={**seen.facts, **seen.names},
        untried=(*missed, *untried),
        seconds=time.monotonic() - started,
        graph=seen.graph,
    )
