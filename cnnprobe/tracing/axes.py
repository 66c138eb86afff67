"""Which axes of a value are the feature axes, followed through operations that only rearrange entries."""

import itertools
import math

import numpy as np

from cnnprobe.tracing.program import Op, View

Shape = tuple[int, ...]
Axes = tuple[int, ...]


def axes_after(view: View, op: Op, axes: Axes) -> Axes | None:
    """The feature axes of what `op` makes of a value with feature axes `axes`; None if it does more than rearrange."""
    before, after = view.shape(op.inputs[0]), view.shape(op.outputs[0])
    if op.name == "transpose":
        return tuple(sorted(op.params["permutation"].index(axis) for axis in axes))
    if op.name == "broadcast_in_dim":
        moved = op.params["broadcast_dimensions"]
        return tuple(moved[axis] for axis in axes) if math.prod(before) == math.prod(after) else None
    if op.name in ("reshape", "squeeze", "expand_dims"):
        return reshaped_axes(before, after, axes)
    return axes if before == after else None


def reshaped_axes(before: Shape, after: Shape, axes: Axes) -> Axes | None:
    """Follows feature axes through a reshape; None where they are merged with other axes.

    >>> reshaped_axes((8, 4, 4, 6), (8, 16, 6), (3,)), reshaped_axes((8, 6), (8, 2, 3), (1,))
    ((2,), (1, 2))
    >>> reshaped_axes((8, 4, 4, 6), (8, 96), (3,)) is None
    True
    """
    result: list[int] = []
    for old, new in factor_groups(before, after):
        sizes = {axis in axes for axis in old if before[axis] > 1}
        if sizes == {True, False}:
            return None
        if sizes == {True}:
            result += [axis for axis in new if after[axis] > 1]
    return tuple(result) or None


def factor_groups(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """Smallest runs of axes on both sides that hold the same number of entries."""
    ends_before = np.cumprod((1, *before)).tolist()
    ends_after = np.cumprod((1, *after)).tolist()
    cuts = sorted(set(ends_before) & set(ends_after))
    return [
        (
            [axis for axis, end in enumerate(ends_before[1:]) if low < end <= high],
            [axis for axis, end in enumerate(ends_after[1:]) if low < end <= high],
        )
        for low, high in itertools.pairwise(cuts)
    ]


def layer_axes(op: Op, kernel: int) -> Axes:
    """The feature axes of a convolution's or product's result, where operand number `kernel` holds the parameters."""
    if op.name == "conv_general_dilated":
        return (op.params["dimension_numbers"].out_spec[1],)
    contracting, batch = op.params["dimension_numbers"]
    num_batch = len(batch[0])
    free = [_rank(op, side) - len(contracting[side]) - num_batch for side in (0, 1)]
    start = num_batch + (free[0] if kernel == 1 else 0)
    return (*range(num_batch), *range(start, start + free[kernel]))


def _rank(op: Op, side: int) -> int:
    """Rank of an operand of a convolution or product."""
    return len(op.equation.invars[side].aval.shape)
