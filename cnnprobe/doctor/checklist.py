"""The checklist of an experienced engineer, every line of it tested on the user's own problem."""

import math
import time
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from cnnprobe.checks import check_at_least
from cnnprobe.doctor.bench import make_bench
from cnnprobe.doctor.changes import CHANGES, Build, Change
from cnnprobe.doctor.diagnose import RUN_SHARE, SHORTEST
from cnnprobe.doctor.observation import Observation
from cnnprobe.doctor.observe import observe
from cnnprobe.doctor.orientation import largest_wins, reading_of
from cnnprobe.doctor.trial import Plan, control, make_plan, run_twin
from cnnprobe.training.validate import check_problem
from cnnprobe.types import Problem

SEEDS = 3
FACTS: tuple[tuple[str, str, str], ...] = (  # question, the reading that answers it, and how to say it
    (
        "Do the labels belong to the images?",
        "random features accuracy",
        "a linear classifier on fixed random convolutions agrees with {:.0%} of them",
    ),
    ("Are the classes balanced?", "label majority share", "the largest class holds {:.1%} of the labels"),
    ("Are the batches mixed?", "batch label entropy ratio", "they hold {:.0%} of the label entropy of random draws"),
    (
        "Are images mislabelled?",
        "contradicted label share",
        "where images leave least doubt, {:.1%} of the labels differ from those of images that look alike",
    ),
    (
        "Is there a leak between the splits?",
        "validation overlap share",
        "{:.1%} of the validation images occur in training",
    ),
    ("Are the inputs scaled?", "input standard deviation", "their standard deviation is {:.3g}"),
    ("Does it overfit?", "generalisation gap", "training accuracy lies {:+.0%} points above validation accuracy"),
)


class Line(NamedTuple):
    """One question with what was measured."""

    question: str
    answer: str  # with the numbers in it
    before: Float[np.ndarray, " seeds"]  # balanced accuracy without the change, in [0, 1]; empty: nothing was changed
    after: Float[np.ndarray, " seeds"]  # with it, of the same seeds

    @property
    def effect(self) -> float:
        """Mean gain over seeds, in points of [0, 1]; NaN where nothing was changed."""
        return float(np.mean(self.after - self.before)) if len(self.before) else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation of the gain over seeds; NaN below two."""
        return float(np.std(self.after - self.before, ddof=1)) if len(self.before) > 1 else math.nan


def checklist(problem: Problem, *, budget_seconds: float = 180.0) -> tuple[Line, ...]:
    """Tests every line of the checklist: what the data tell, then what each usual change does to the accuracy.

    A change and its control train from the same keys for as many steps as a diagnosis would. All changes run once
    before any runs from a second seed, so a short budget costs precision and not lines. Changes that the model itself
    cannot take, such as another size of its kernels, are tested on a small reference network with the user's data.

    Raises:
      ValueError: a field of `problem` is malformed, or the budget is below one second.
    """
    check_problem(problem)
    check_at_least("budget_seconds", budget_seconds, SHORTEST)
    deadline, seconds = time.monotonic() + budget_seconds, RUN_SHARE / 2 * budget_seconds
    bench = make_bench(problem, seconds=2 * seconds)
    bench = largest_wins(bench, reading_of(bench))
    seen = observe(bench, seconds=seconds, deadline=deadline)
    plan = make_plan(seen, run_seconds=seconds, deadline=deadline)
    return (*_looks(seen), *_tests(plan, seen))


def _looks(seen: Observation) -> tuple[Line, ...]:
    """What was read without changing anything."""
    none = np.zeros(0)
    held_out = f"yes, {len(seen.bench.valid.images)} images of it were scored" if seen.bench.has_valid else "no"
    lines = [
        Line(question, words.format(seen.facts[name]), none, none)
        for question, name, words in FACTS
        if name in seen.facts
    ]
    return (Line("Is there a validation set?", held_out, none, none), *lines)


def _tests(plan: Plan, seen: Observation) -> tuple[Line, ...]:
    """Every change, seed after seed until the time is over."""
    scores: dict[Change, list[tuple[float, float]]] = {change: [] for change in CHANGES}
    failures: dict[Change, str] = {}
    bases: dict[tuple[Build, int], float] = {}
    for seed in range(SEEDS):
        for change in CHANGES:
            if change in failures or not plan.has_time(runs=math.ceil(change.steps)):
                continue
            try:
                scores[change].append(_pair(plan, seen, change, seed, bases))
            except Exception as error:  # a change may not fit the user's functions, or the time is over
                failures[change] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return tuple(_line(change, scores[change], failures.get(change)) for change in CHANGES)


def _pair(
    plan: Plan, seen: Observation, change: Change, seed: int, bases: dict[tuple[Build, int], float]
) -> tuple[float, float]:
    """Accuracy without and with a change, from one seed; `bases` keeps those of the reference network."""
    own = plan.bench.problem
    if change.base is None:
        before = control(plan, seed).accuracy
    else:
        if (change.base, seed) not in bases:
            bases[change.base, seed] = run_twin(plan, change.base(seen)(own), seed).accuracy
        before = bases[change.base, seed]
    longer = plan._replace(
        num_steps=max(1, round(change.steps * plan.num_steps)), run_seconds=max(change.steps, 1.0) * plan.run_seconds
    )
    return before, run_twin(longer, change.change(seen)(own), seed).accuracy


def _line(change: Change, pairs: list[tuple[float, float]], failure: str | None) -> Line:
    """What the runs of a change say."""
    before, after = np.array(pairs).reshape(-1, 2).T
    line = Line(change.question, "", before, after)
    if not pairs:
        return line._replace(answer=f"not tested: {failure or 'no time was left'}")
    seeds = f"{len(pairs)} seeds, +- {100 * line.spread:.1f}" if len(pairs) > 1 else "1 seed"
    words = f"{before.mean():.0%} without, {after.mean():.0%} with: {100 * line.effect:+.1f} points ({seeds})"
    return line._replace(answer=words)
