"""`repair`: diagnose, apply the first remedy, and again, until nothing more helps."""

import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax

from cnnprobe.checks import check_at_least, check_integer
from cnnprobe.doctor.diagnose import SHORTEST, diagnose
from cnnprobe.types import Diagnosis, Finding, Problem

ROUND_SHARE = 1 / 3  # of the whole budget that one diagnosis may take: most programs have one fault or two


class Repair(NamedTuple):
    """What was mended, one remedy after the other."""

    problem: Problem  # with every remedy applied
    steps: tuple[Finding, ...]  # whose remedies were applied, in that order; each has its own measured gain
    diagnosis: Diagnosis  # of `problem`, the last that was made
    ended: str  # the last verdict; where faults remain: "nothing more helps", "out of budget" or "out of rounds"


def repair(
    problem: Problem,
    *,
    budget_seconds: float = 180.0,
    max_rounds: int = 4,
    devices: Sequence[jax.Device] | None = None,
) -> Repair:
    """Applies the remedy of the first cause, diagnoses what is left, and so on.

    A remedy is applied only where its trial showed a gain. Each diagnosis may take a third of the time.

    Args:
      problem: the training problem exactly as it is run; it is not changed.
      budget_seconds: wall time of all diagnoses together.
      max_rounds: remedies that may be applied.
      devices: those of `diagnose`.

    Raises:
      ValueError: a field of `problem` is malformed, or an argument is out of its range.
    """
    check_at_least("budget_seconds", budget_seconds, SHORTEST)
    check_integer("max_rounds", max_rounds, 1)
    deadline, share = time.monotonic() + budget_seconds, max(ROUND_SHARE * budget_seconds, SHORTEST)
    steps: tuple[Finding, ...] = ()
    look = partial(diagnose, devices=devices)
    diagnosis = look(problem, budget_seconds=share)
    while (first := _first_remedied(diagnosis)) is not None and first.remedy is not None:
        left = deadline - time.monotonic()
        if len(steps) == max_rounds or left < share / 2:
            return Repair(problem, steps, diagnosis, "out of rounds" if len(steps) == max_rounds else "out of budget")
        problem, steps = first.remedy(problem), (*steps, first)
        diagnosis = look(problem, budget_seconds=min(share, left))
    ended = "nothing more helps" if diagnosis.verdict == "faulty" else diagnosis.verdict
    return Repair(problem, steps, diagnosis, ended)


def _first_remedied(diagnosis: Diagnosis) -> Finding | None:
    """The first finding that costs accuracy and whose remedy was seen to help."""
    causes = [f for f in diagnosis.findings if f.severity == "cause" and f.remedy is not None and f.trial is not None]
    return causes[0] if causes else None
