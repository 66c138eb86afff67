"""Trials: a problem and its remedied twin, trained from the same keys for the same steps."""

import time
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from cnnprobe.checks import NO_TIME
from cnnprobe.doctor.bench import Bench, make_bench
from cnnprobe.doctor.observation import Observation
from cnnprobe.doctor.run import MAX_STEPS, Run, planned_steps, score, settle, steps_of_training, train_run
from cnnprobe.types import Curve, Problem, Remedy, Trial

DATA = ("train", "valid", "preprocess", "preprocess_valid", "batches", "num_classes")  # fields that a bench is made of
Tell: TypeAlias = Callable[[str], None]  # hears what is being done, in a few words
OVERHEAD = 1.3  # for reading the data and scoring, beside the run itself
WORTH_IT = 1.5  # times the steps made so far, from which a run is made again, unless it is the whole training
LONGEST = 10 * MAX_STEPS  # steps: readings of each are kept
USED = 0.8  # of the time left, since a run that the clock cuts is lost


def say_nothing(_: str) -> None:
    """Where nobody listens."""


class Scored(NamedTuple):
    """One run and what it reached."""

    accuracy: float  # balanced, on the bench's validation sample, in evaluation mode
    curve: Curve

    @property
    def num_steps(self) -> int:
        """Updates made."""
        return len(self.curve.loss)


class Plan(NamedTuple):
    """What all trials of one diagnosis share."""

    bench: Bench
    num_steps: int
    run_seconds: float  # that one run may take, compilation aside
    cost_seconds: float  # what one run is expected to take, compilation and scoring included
    num_settling: int  # passes after a run, for statistics that a cut run has no time for
    deadline: float  # of the whole diagnosis, `time.monotonic()` seconds
    controls: dict[int, Scored]  # by seed: runs of the user's own problem, made once
    tell: Tell = say_nothing

    def has_time(self, *, runs: int = 1) -> bool:
        """Whether that many more runs are expected to end before the deadline."""
        return self.deadline - time.monotonic() > runs * self.cost_seconds


def make_plan(seen: Observation, *, run_seconds: float, deadline: float, tell: Tell = say_nothing) -> Plan:
    """Trials as long as the probed run, which is the first control."""
    if seen.run is None:
        return Plan(seen.bench, planned_steps(seen.bench), run_seconds, run_seconds, 0, deadline, {}, tell)
    first = Scored(seen.facts.get("validation accuracy", float("nan")), seen.run.curve)
    cost = OVERHEAD * seen.run.seconds
    return Plan(seen.bench, first.num_steps, run_seconds, cost, seen.num_settling, deadline, {0: first}, tell)


def lengthened(plan: Plan, run: Run, *, runs: int) -> Plan | None:
    """The same with runs so long that this many fit the time left, up to the user's whole training.

    None where they could not be much longer, or the pace of `run` is not known.
    """
    whole = min(steps_of_training(plan.bench) or LONGEST, LONGEST)
    pace = OVERHEAD * run.step_seconds
    fixed = max(plan.cost_seconds - pace * plan.num_steps, 0.0)  # of a run: compilation and scoring
    seconds = USED * (plan.deadline - time.monotonic()) / runs
    num_steps = int(min(whole, (seconds - fixed) / pace)) if pace > 0 else 0
    if not (num_steps >= WORTH_IT * plan.num_steps or num_steps == whole > plan.num_steps):
        return None
    cost = fixed + pace * num_steps
    return plan._replace(num_steps=num_steps, run_seconds=seconds, cost_seconds=cost, controls={})


def _reseeded(problem: Problem, seed: int) -> Problem:
    """The same problem with other keys."""
    return problem._replace(seed=problem.seed + seed)


def scored_run(problem: Problem, bench: Bench, plan: Plan) -> Scored:
    """Trains and scores.

    Raises:
      TimeoutError: the clock cut the run short, so that it cannot be held against whole ones.
    """
    run = settled_run(problem, bench, plan)
    return Scored(score(problem, bench, run.last), run.curve)


def settled_run(problem: Problem, bench: Bench, plan: Plan) -> Run:
    """Trains for as many steps as the plan says, and lets running statistics arrive.

    Raises:
      TimeoutError: the clock cut the run short.
    """
    run: Run = train_run(problem, bench, num_steps=plan.num_steps, seconds=2 * plan.run_seconds, deadline=plan.deadline)
    if not run.is_complete:
        raise TimeoutError(f"{NO_TIME}: {len(run.curve.loss)} of {plan.num_steps} steps were made")
    return run._replace(last=settle(problem, run.last, plan.num_settling, deadline=plan.deadline))


def control(plan: Plan, seed: int) -> Scored:
    """The user's own problem from one seed; a program that does not run at all is held to be a blind guess."""
    if seed not in plan.controls:
        plan.controls[seed] = _control(plan, seed)
    return plan.controls[seed]


def _control(plan: Plan, seed: int) -> Scored:
    """One run of the user's own problem."""
    try:
        return scored_run(_reseeded(plan.bench.problem, seed), plan.bench, plan)
    except TimeoutError:
        raise
    except Exception:  # the same error stands among the failures of the observation
        if 0 in plan.controls and plan.controls[0].num_steps:  # it has run: no remedy may gain by an error of this once
            raise
        nothing, none = np.zeros(0), np.zeros((0, plan.bench.num_classes), int)
        return Scored(1 / plan.bench.num_classes, Curve(nothing, nothing, none, none))


def run_twin(plan: Plan, remedied: Problem, seed: int) -> Scored:
    """The remedied problem from one seed, scored on the same images as its control, as the remedy changes them."""
    return scored_run(_reseeded(remedied, seed), _bench_of(plan, remedied), plan)


def _bench_of(plan: Plan, remedied: Problem) -> Bench:
    """The samples of the user's data, read anew where the remedy changes them."""
    own = plan.bench.problem
    if all(getattr(remedied, field) is getattr(own, field) for field in DATA):
        return plan.bench
    bench = make_bench(remedied._replace(seed=own.seed), seconds=plan.bench.read_seconds)
    return bench._replace(deadline=plan.deadline, mesh=plan.bench.mesh)


def metric_name(bench: Bench) -> str:
    """What `score` measures, in words."""
    which = "held-out" if bench.has_valid else "training"
    return f"balanced accuracy on {len(bench.valid.images)} {which} images"


def make_trial(plan: Plan, remedied: dict[int, Scored]) -> Trial:
    """Pairs the remedied runs with the controls of the same seeds."""
    seeds = sorted(remedied)
    controls = [control(plan, seed) for seed in seeds]
    return Trial(
        metric=metric_name(plan.bench),
        control=np.asarray([run.accuracy for run in controls]),
        remedied=np.asarray([remedied[seed].accuracy for seed in seeds]),
        num_steps=controls[0].num_steps,
        control_curve=controls[0].curve,
        remedied_curve=remedied[seeds[0]].curve,
    )


class Attempt(NamedTuple):
    """A remedy that was run from the first seed."""

    remedy: Remedy
    problem: Problem  # remedied; kept, since the same functions are compiled once
    scored: Scored


def best_attempt(plan: Plan, remedies: tuple[Remedy, ...], enough: float) -> Attempt:
    """The candidate that scores best from the first seed; later ones are skipped once one reaches `enough`.

    Raises:
      Exception: whatever the last candidate raised, if none of them runs.
    """
    best, problem = None, None
    for remedy in remedies:
        try:
            tried = _attempt(plan, remedy)
        except Exception as error:  # a remedy may not fit the user's functions; the next one may
            problem = error
            continue
        if best is None or not tried.scored.accuracy <= best.scored.accuracy:
            best = tried
        if best.scored.accuracy >= enough or not plan.has_time():
            break
    if best is None:
        raise problem or ValueError("remedies must be one or more, got none.")
    return best


def _attempt(plan: Plan, remedy: Remedy) -> Attempt:
    """One remedy, run from the first seed."""
    problem = remedy(plan.bench.problem)
    return Attempt(remedy, problem, run_twin(plan, problem, 0))


def mended_plan(plan: Plan, attempt: Attempt) -> Plan:
    """The same plan for the problem that a remedy leaves, whose run from the first seed is known."""
    bench = _bench_of(plan, attempt.problem)
    return plan._replace(bench=bench._replace(problem=attempt.problem), controls={0: attempt.scored})
