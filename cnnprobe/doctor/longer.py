"""Longer runs: where short ones proved nothing about a network that is far behind, and time is left."""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

from cnnprobe.doctor.causes.record import fact
from cnnprobe.doctor.harm import LARGE, SUFFICIENT, gain_of
from cnnprobe.doctor.looks.run import look_at_loss_curve
from cnnprobe.doctor.observation import Observation
from cnnprobe.doctor.progress import has_learnt, is_behind
from cnnprobe.doctor.prove import Tried, depth
from cnnprobe.doctor.run import planned_steps, steps_of_training
from cnnprobe.doctor.trial import Plan, Scored, control, run_twin

WORTH_IT = 1.5  # times the steps made so far, from which a run is made again
PROOF = 2  # runs that a proof takes at least, beside those from the first seed: a pair from a fresh one


class Longer(NamedTuple):
    """What is known after longer runs, if there were any."""

    plan: Plan
    seen: Observation
    tried: list[Tried]


def try_for_longer(plan: Plan, seen: Observation, tried: Sequence[Tried]) -> Longer:
    """The problem in a longer run and, where it is still far behind, the remedies that something speaks for.

    A run of a few hundred steps may be a small part of the user's whole training, too short for a remedy to gain.
    """
    unchanged = Longer(plan, seen, [])
    if seen.run is None or not _is_far_behind(seen):
        return unchanged
    telling = [item for item in tried if item.suspect.evidence.strength >= SUFFICIENT]
    telling.sort(key=lambda item: -item.suspect.evidence.strength)
    longer, num = _lengthened(plan, seen, len(telling))
    if longer is None:
        return unchanged
    try:
        seen = _with_run(seen, control(longer, 0))
    except Exception:  # a loader may end, and the clock may cut this run too
        return unchanged
    return Longer(longer, seen, _tried_again(longer, telling[:num]) if _is_far_behind(seen) else [])


def _is_far_behind(seen: Observation) -> bool:
    """Whether the run got nowhere near what the data allow."""
    return is_behind(seen) or not has_learnt(seen)


def _lengthened(plan: Plan, seen: Observation, num_suspects: int) -> tuple[Plan | None, int]:
    """Runs as long as the time left allows, up to the user's whole training, with as many suspects as that leaves.

    None where no run could be much longer.
    """
    whole = steps_of_training(seen.bench) or math.inf
    for num in range(num_suspects, -1, -1):
        seconds = (plan.deadline - time.monotonic()) / (1 + num + (PROOF if num else 0))
        num_steps = int(min(plan.num_steps * seconds / plan.cost_seconds, whole))
        if num_steps >= WORTH_IT * plan.num_steps:
            cost = plan.cost_seconds * num_steps / plan.num_steps
            return plan._replace(num_steps=num_steps, run_seconds=seconds, cost_seconds=cost, controls={}), num
    return None, 0


def _with_run(seen: Observation, scored: Scored) -> Observation:
    """The same with what a longer run reached."""
    num_steps = scored.num_steps
    reached = {"validation accuracy": scored.accuracy, "number of updates": float(num_steps)}
    reached |= look_at_loss_curve(scored.curve, fact(seen, "loss uniform"))
    assert seen.run is not None
    run = seen.run._replace(curve=scored.curve, is_complete=num_steps >= planned_steps(seen.bench))
    return seen._replace(run=run, facts={**seen.facts, **reached})


def _tried_again(longer: Plan, items: Sequence[Tried]) -> list[Tried]:
    """Each remedy in a longer run, upstream first, until one gains so much that it explains the others."""
    again: list[Tried] = []
    for item in sorted(items, key=lambda item: depth(item.suspect)):
        if not longer.has_time() or any(each.gain >= LARGE for each in again):
            break
        try:
            attempt = item.attempt._replace(scored=run_twin(longer, item.attempt.problem, 0))
        except Exception:  # a loader may end, and the clock may cut this run
            continue
        again.append(Tried(item.suspect, attempt, gain_of(longer, attempt)))
    return again
