"""Screening: each remedy once from the first seed, upstream first."""

from collections.abc import Callable, Iterable, Sequence

from cnnprobe.checks import NO_TIME
from cnnprobe.doctor.harm import ENOUGH, LARGE, gain_of
from cnnprobe.doctor.observation import Observation
from cnnprobe.doctor.progress import solved_from
from cnnprobe.doctor.prove import Suspect, Tried, depth
from cnnprobe.doctor.trial import Attempt, Plan


def screen(
    plan: Plan, seen: Observation, suspects: Iterable[Suspect], attempt: Callable[[Suspect], Attempt]
) -> tuple[list[Tried], list[str]]:
    """What `attempt` makes of the suspects; and what the clock or an error left out.

    A remedy that brings the network to what fixed random features reach on the same data explains what stands further
    down the chain of effects, and what is known to be its cause's result: none of that is run.
    """
    tried: list[Tried] = []
    untried: list[str] = []
    for item in _causes_first(tuple(suspects)):
        if any(_solves(seen, done) and _accounts_for(done.suspect, item) for done in tried):
            continue
        if not plan.has_time():
            untried.append(f"the remedy of {item.cause.id}: {NO_TIME}")
            continue
        plan.tell(f"trying the remedy of: {item.cause.title}")
        try:
            best = attempt(item)
        except Exception as error:  # the user's functions, on inputs that a remedy has changed, may raise anything
            untried.append(f"the remedy of {item.cause.id}: {error!r:.200}")
            continue
        tried.append(Tried(item, best, gain_of(plan, best)))
        if tried[-1].gain >= ENOUGH:
            gain = 100 * tried[-1].gain
            plan.tell(f"found: {item.cause.title}; its remedy gains {gain:.0f} points from the first seed")
    return tried, untried


def _causes_first(suspects: Sequence[Suspect]) -> list[Suspect]:
    """Down the chain of effects; what another suspect explains comes behind the others of its stage."""
    explained = {name for item in suspects for name in item.cause.explains}
    return sorted(suspects, key=lambda item: (depth(item), item.cause.id in explained))


def _accounts_for(done: Suspect, item: Suspect) -> bool:
    """Whether the one would bring about what speaks for the other."""
    return depth(done) < depth(item) or item.cause.id in done.cause.explains


def _solves(seen: Observation, done: Tried) -> bool:
    """Whether nothing is left to explain where this remedy is applied."""
    return done.gain >= LARGE and done.attempt.scored.accuracy >= solved_from(seen.facts)
