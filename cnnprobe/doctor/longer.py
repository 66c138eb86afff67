"""Longer runs: where short ones proved nothing, more of the training may, and time is left."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from cnnprobe.checks import NO_TIME
from cnnprobe.doctor.harm import SUFFICIENT
from cnnprobe.doctor.looks.run import look_at_loss_curve, look_at_updates
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.doctor.observe import look_at_answers
from cnnprobe.doctor.other_seeds import with_other_seeds
from cnnprobe.doctor.progress import AT_LEAST, has_learnt, is_behind
from cnnprobe.doctor.prove import Suspect, Tried
from cnnprobe.doctor.run import Run, planned_steps
from cnnprobe.doctor.screen import screen
from cnnprobe.doctor.trial import Attempt, Plan, Scored, lengthened, run_twin, settled_run

T = TypeVar("T")
MOST_SUSPECTS = 2  # more of them would leave no time for runs that are much longer
PROOF = 4  # runs that a proof takes beside those from the first seed: two pairs from fresh ones


class Longer(NamedTuple):
    """What is known after longer runs, if there were any."""

    plan: Plan
    seen: Observation
    tried: list[Tried]
    untried: list[str]  # what the clock or an error left out


def try_for_longer(plan: Plan, seen: Observation, tried: Sequence[Tried]) -> Longer:
    """The problem in a longer run, and the remedies that may gain there.

    A run of a few hundred steps may be a small part of the user's whole training, too short for a remedy to gain. That
    is worth finding out where the network is far behind, or where a fault costs nothing until late.
    """
    unchanged = Longer(plan, seen, [], [])
    telling = sorted(tried, key=lambda item: -item.suspect.evidence.strength)
    telling = [item for item in telling if _may_gain(seen, item)][:MOST_SUSPECTS]
    if seen.run is None or not (telling or is_far_behind(seen)):
        return unchanged
    longer, num = _lengthened(plan, seen, seen.run, len(telling))
    if longer is None:
        return unchanged
    plan.tell(f"running the network for {longer.num_steps} steps")
    try:
        run = settled_run(plan.bench.problem, plan.bench, longer)
        seen = _with_run(seen, seen.run, run)
    except Exception:  # a loader may end, and the clock may cut this run too
        return unchanged
    longer = longer._replace(controls={0: Scored(fact(seen, "validation accuracy"), run.curve)})
    seen = with_other_seeds(longer, seen)
    return Longer(longer, seen, *_try_again(longer, seen, [item for item in telling[:num] if _may_gain(seen, item)]))


def _may_gain(seen: Observation, item: Tried) -> bool:
    """Whether a remedy that gained nothing may do so in a longer run."""
    told = item.suspect.evidence.strength >= SUFFICIENT
    return item.suspect.cause.harms_late or (told and is_far_behind(seen))


def is_far_behind(seen: Observation) -> bool:
    """Whether the run got nowhere near what the data allow."""
    return is_behind(seen) or not has_learnt(seen)


def _lengthened(plan: Plan, seen: Observation, run: Run, num_suspects: int) -> tuple[Plan | None, int]:
    """Runs as long as the time left allows, and for how many suspects; None where they would not be much longer.

    With fewer suspects runs may be longer, and with none where the network is far behind.
    """
    for num in range(num_suspects, -1 if is_far_behind(seen) else 0, -1):
        longer = lengthened(plan, run, runs=1 + num + (PROOF if num else 0))
        if longer is not None:
            return longer, num
    return None, 0


def _with_run(seen: Observation, short: Run, run: Run) -> Observation:
    """The same with a longer run in place of the short one: its losses, and what it says of validation images."""
    blind = fact(seen, "loss uniform")
    outdated = {AT_LEAST, *look_at_loss_curve(short.curve, blind)}
    kept = {name: seen.facts[name] for name in seen.facts.keys() - outdated}
    reached = look_at_loss_curve(run.curve, blind) | look_at_updates(run)
    answered, called = look_at_answers(seen.bench, run, _or_raise)
    run = run._replace(is_complete=len(run.curve.loss) >= planned_steps(seen.bench))
    return seen._replace(run=run, facts={**kept, **reached, **answered}, names={**seen.names, **called})


def _or_raise(_: str, measure: Callable[[], T], otherwise: T) -> T:
    """What `measure` returns: the longer run as a whole is left out where it raises."""
    del otherwise
    return measure()


def _try_again(longer: Plan, seen: Observation, items: Sequence[Tried]) -> tuple[list[Tried], list[str]]:
    """Each remedy in a longer run, as `screen`; none counts where no time is left for a fresh pair: its proof."""
    attempts = {item.suspect.cause.id: item.attempt for item in items}

    def attempt(item: Suspect) -> Attempt:
        """The same remedy, run for longer."""
        known = attempts[item.cause.id]
        return known._replace(scored=run_twin(longer, known.problem, 0))

    again, untried = screen(longer, seen, [item.suspect for item in items], attempt)
    if again and not longer.has_time(runs=2):
        untried += [f"the proof of {item.suspect.cause.id}: {NO_TIME}" for item in again]
        again = []
    return again, [f"{what} (in a longer run)" for what in untried]
