"""Which places along one axis of the input a value sees: the arithmetic of receptive fields, on whole maps.

Places are kept for every position and not as a size and a stride, so borders, transposed convolutions and branches
come out as a gradient would measure them.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from cnnprobe.tracing.axes import Shape, factor_groups

NOWHERE = 2**31  # the first place seen by what sees nothing: neutral under a minimum, as -1 is under a maximum
LONGEST = 100_000  # positions of an axis that are kept apart


class Reach(NamedTuple):
    """What each position of a value sees of one axis of the input."""

    axis: int | None  # the axis of the value whose positions differ in what they see; None: all see the same
    low: Int[np.ndarray, " positions"]  # the first place seen
    high: Int[np.ndarray, " positions"]  # the last place seen; below `low` where nothing is
    stride: float  # places of the input between neighbours; 0 where all see the same
    is_mixed: bool = False  # weights have mixed the places, or nobody knows what; else a statistic of all of them

    @property
    def size(self) -> int:
        """Places from the first to the last one seen, at the position that sees most."""
        return int(max(np.max(self.high - self.low) + 1, 0))


class Sliding(NamedTuple):
    """How a window slides along one axis."""

    num_outputs: int
    size: int = 1
    stride: int = 1
    dilation: int = 1  # steps between the taps of the window
    base_dilation: int = 1  # steps between the entries of what it slides over; above 1 in a transposed convolution
    padding: int = 0  # steps in front of the first entry


def axis_reach(axis: int, length: int) -> Reach:
    """An axis of the input seen by itself."""
    places = np.arange(length)
    return Reach(axis, places, places, 1.0)


def whole(reach: Reach, *, is_mixed: bool = True) -> Reach:
    """What all positions together see."""
    return Reach(None, reach.low.min(keepdims=True), reach.high.max(keepdims=True), 0.0, is_mixed)


def tap_sources(sliding: Sliding, num_inputs: int) -> Int[np.ndarray, "outputs taps"]:
    """The entry that each tap of the window meets at each position; -1 on padding and between dilated entries."""
    starts = np.arange(sliding.num_outputs)[:, None] * sliding.stride - sliding.padding
    steps = starts + np.arange(sliding.size) * sliding.dilation
    entries = steps // sliding.base_dilation
    is_entry = (steps % sliding.base_dilation == 0) & (entries >= 0) & (entries < num_inputs)
    return np.where(is_entry, entries, -1)


def slide(reach: Reach, sliding: Sliding) -> Reach:
    """What a window sees that slides along the reach's own axis."""
    entries = tap_sources(sliding, len(reach.low))
    low = np.where(entries < 0, NOWHERE, reach.low[entries]).min(axis=1, initial=NOWHERE)
    high = np.where(entries < 0, -1, reach.high[entries]).max(axis=1, initial=-1)
    return reach._replace(low=low, high=high, stride=reach.stride * sliding.stride / sliding.base_dilation)


def pick(reach: Reach, positions: slice) -> Reach:
    """Some positions of a reach."""
    return reach._replace(
        low=reach.low[positions], high=reach.high[positions], stride=reach.stride * abs(positions.step or 1)
    )


def join(reaches: Sequence[Reach]) -> Reach:
    """What an elementwise function of several values sees.

    Beside a value that sees different places at different positions, statistics do not count: those of a normalisation
    and the gates of squeeze-and-excitation see everything.
    """
    first = next((reach for reach in reaches if reach.axis is not None), reaches[0])
    along = [reach for reach in reaches if (reach.axis, len(reach.low)) == (first.axis, len(first.low))]
    across = [whole(reach) for reach in reaches if reach.axis not in (None, first.axis) or reach.is_mixed]
    return Reach(
        first.axis,
        functools.reduce(np.minimum, [reach.low for reach in (*along, *across)]),
        functools.reduce(np.maximum, [reach.high for reach in (*along, *across)]),
        max(reach.stride for reach in along),
        any(reach.is_mixed for reach in reaches),
    )


def reshape(reach: Reach, before: Shape, after: Shape) -> Reach:
    """Follows a reach through a reshape; of an axis that is split, the longest part keeps its positions apart."""
    groups = (group for group in factor_groups(before, after) if reach.axis in group[0])
    old, new = next(groups, ([], []))
    old_shape, new_shape = [before[axis] for axis in old], [after[axis] for axis in new]
    if reach.axis is None or not new or not 0 < math.prod(old_shape) <= LONGEST:
        return whole(reach)
    at = old.index(reach.axis)
    kept = int(np.argmax(new_shape))
    others = tuple(axis for axis in range(len(new)) if axis != kept)
    low, high = (
        np.broadcast_to(places.reshape([-1 if axis == at else 1 for axis in range(len(old))]), old_shape)
        for places in (reach.low, reach.high)
    )
    return Reach(
        new[kept],
        low.reshape(new_shape).min(axis=others),
        high.reshape(new_shape).max(axis=others),
        reach.stride * old_shape[at] / new_shape[kept],
        reach.is_mixed,
    )
