"""A cause is data: what speaks for it, what mends it, what to tell its owner."""

import math
from collections.abc import Callable
from typing import NamedTuple

from cnnprobe.doctor.bands import healthy_band
from cnnprobe.doctor.harm import ENOUGH, ERRORS
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.types import Evidence, Reading, Remedy

TINY = 1e-30  # under a logarithm
STAGES = ("data", "labels", "loss", "architecture", "regularisation", "optimisation", "generalisation")


class Advice(NamedTuple):
    """What to change."""

    text: str  # in words, with the user's own numbers
    snippet: str = ""  # as code


class Way(NamedTuple):
    """What speaks for a cause, what mends it and what to say of it, where that belongs together."""

    evidence: Callable[[Observation], Evidence | None]
    remedies: Callable[[Observation], tuple[Remedy, ...]]
    advice: Callable[[Observation], Advice]


class Cause(NamedTuple):
    """One way in which a CNN fails to learn."""

    id: str  # of the public vocabulary
    title: str
    stage: str  # one of `STAGES`; a fault explains the symptoms of later stages
    evidence: Callable[[Observation], Evidence | None]
    remedies: Callable[
        [Observation], tuple[Remedy, ...]
    ]  # candidates; the one that gains most is kept; () where none exists
    advice: Callable[[Observation], Advice]
    explanation: str
    references: tuple[str, ...]
    is_harmful: Callable[[Observation], bool] | None = None  # where no trial can tell; None: if the run learnt nothing
    shows_harm: Callable[[Observation], bool] | None = None  # where the run may, though the remedy was run in vain
    stands_alone: bool = False  # what no fault of another stage explains
    is_textbook: bool = False  # worth a warning where its remedy was run in vain, though the evidence is not decisive
    harms_late: bool = False  # what it costs may come after the short runs: its remedy is run for longer, too
    explains: tuple[str, ...] = ()  # ids of causes that are but its results, where its own remedy gains as well
    look_alikes: str = ""  # which faults end alike, and what tells this one from them; ids of causes in backticks


def first_of(*ways: Way) -> Way:
    """Several ways to one cause: the first that anything speaks for; where nothing does, the advice of the last."""

    def chosen(seen: Observation) -> Way | None:
        """The first that anything speaks for."""
        return next((way for way in ways if way.evidence(seen)), None)

    def evidence(seen: Observation) -> Evidence | None:
        """What speaks for it."""
        return next(filter(None, (way.evidence(seen) for way in ways)), None)

    def remedies(seen: Observation) -> tuple[Remedy, ...]:
        """What mends it."""
        way = chosen(seen)
        return way.remedies(seen) if way else ()

    return Way(evidence, remedies, lambda seen: (chosen(seen) or ways[-1]).advice(seen))


def is_cross_entropy_of_logits(seen: Observation) -> bool:
    """Whether the loss is that, and is given what it wants."""
    return seen.names.get("loss of logits") == "cross-entropy" and seen.names.get("outputs") == "logits"


def always(_: Observation) -> bool:
    """Harm that lies in what the evidence itself has measured."""
    return True


def no_remedy(_: Observation) -> tuple[Remedy, ...]:
    """Nothing that a program could change would help."""
    return ()


def reading(seen: Observation, name: str) -> Reading:
    """One fact beside its healthy band."""
    return Reading(name, seen.facts[name], healthy_band(name))


def readings(seen: Observation, *names: str) -> tuple[Reading, ...]:
    """Those of the facts `names` that were measured."""
    return tuple(reading(seen, name) for name in names if name in seen.facts)


def graded(value: float, start: float, full: float) -> float:
    """How far `value` is on its way from `start` to `full`, in [0, 1]; `start` may be the larger one.

    0 where anything is NaN: what was not measured, or has no healthy band, speaks for nothing.
    """
    if math.isnan(value + start + full):
        return 0.0
    if start == full:
        return float(value > start)
    return min(max((value - start) / (full - start), 0.0), 1.0)


def rising(value: float, start: float, full: float) -> float:
    """`graded` for what is worse the larger it is; where the healthy band reaches past `full`, 1 beyond the band."""
    return graded(value, start, max(start, full))


def graded_log(value: float, start: float, full: float) -> float:
    """`graded` on a logarithmic scale, for positive values."""
    return graded(*(math.log(max(x, TINY)) if not math.isnan(x) else x for x in (value, start, full)))


def highest(name: str, *, factor: float = 1.0) -> float:
    """The largest healthy value of a fact, times a margin; NaN where no healthy run had it."""
    high = healthy_band(name)[1]
    return math.nan if high is None else high * factor


def lowest(name: str, *, factor: float = 1.0) -> float:
    """The smallest healthy value of a fact, times a margin; NaN where no healthy run had it."""
    low = healthy_band(name)[0]
    return math.nan if low is None else low * factor


def costs(seen: Observation, name: str) -> bool:
    """Whether a measured loss of accuracy counts as harm, and is beyond its error."""
    return fact(seen, name) >= max(ENOUGH, ERRORS * fact(seen, f"error of the {name}"))
