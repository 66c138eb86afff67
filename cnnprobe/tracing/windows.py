"""The geometry of convolutions and pools: windows, and the multiply-adds that they cost."""

import itertools
import math
from typing import NamedTuple

import jax
import numpy as np

from cnnprobe.tracing.fields import Shape, conv_slides
from cnnprobe.tracing.program import Op
from cnnprobe.tracing.reach import tap_sources

Paddings = tuple[tuple[int, int], ...]


class Window(NamedTuple):
    """How the window of a convolution or pool slides, one entry for each spatial axis."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Paddings
    dilations: tuple[int, ...]  # steps between the taps of the window
    base_dilations: tuple[int, ...]  # steps between the entries it slides over; above 1 in a transposed convolution
    num_groups: int

    def __str__(self) -> str:
        """What differs from a plain window: `3x3/2`, `5x5 dilated 2`."""
        strided = f"/{_common(self.strides)}" if set(self.strides) - {1} else ""
        up = f" up {_common(self.base_dilations)}" if set(self.base_dilations) - {1} else ""
        dilated = f" dilated {_common(self.dilations)}" if set(self.dilations) - {1} else ""
        return shape_text(self.size) + strided + up + dilated


def _common(numbers: tuple[int, ...]) -> str:
    """One number where all are equal."""
    return str(numbers[0]) if len(set(numbers)) == 1 else shape_text(numbers)


def shape_text(shape: Shape) -> str:
    """A shape as people write it.

    >>> shape_text((8, 8, 3)), shape_text(())
    ('8x8x3', 'scalar')
    """
    return "x".join(map(str, shape)) or "scalar"


def shapes_of(op: Op) -> tuple[list[Shape], Shape]:
    """Shapes of the operands and of the first result."""
    return [atom.aval.shape for atom in op.equation.invars], op.equation.outvars[0].aval.shape


def conv_window(op: Op) -> Window | None:
    """The window of a convolution; None for another operation."""
    if op.name != "conv_general_dilated":
        return None
    kernel = op.equation.invars[1].aval.shape
    return Window(
        size=tuple(kernel[axis] for axis in op.params["dimension_numbers"].rhs_spec[2:]),
        strides=tuple(op.params["window_strides"]),
        padding=tuple(tuple(pair) for pair in op.params["padding"]),
        dilations=tuple(op.params["rhs_dilation"]),
        base_dilations=tuple(op.params["lhs_dilation"]),
        num_groups=op.params["feature_group_count"],
    )


def pool_window(op: Op) -> Window:
    """The window of a pool, over the axes on which it does anything."""
    params = op.params
    sizes, strides = params["window_dimensions"], params["window_strides"]
    axes = [axis for axis, (size, stride) in enumerate(zip(sizes, strides, strict=True)) if size * stride > 1]
    size, moved, dilations, bases = (
        tuple(params[name][axis] for axis in axes)
        for name in ("window_dimensions", "window_strides", "window_dilation", "base_dilation")
    )
    return Window(size, moved, tuple(tuple(params["padding"][axis]) for axis in axes), dilations, bases, 1)


def padding_name(window: Window, places: Shape) -> str:
    """The word "valid", "same" (for inputs of `places`), or the pairs of paddings."""
    if not any(itertools.chain(*window.padding)):
        return "valid"
    reaches = tuple((size - 1) * step + 1 for size, step in zip(window.size, window.dilations, strict=True))
    same = tuple(map(tuple, jax.lax.padtype_to_pads(places, reaches, window.strides, "SAME")))
    return "same" if window.padding == same else " ".join(f"{low},{high}" for low, high in window.padding)


def multiply_adds(op: Op) -> int:
    """Products that a convolution or matrix product sums up, over the whole batch.

    Products with padding count, as is the custom. Products with the zeros between the entries that a transposed
    convolution spreads do not, nor those with the zeros around them.
    """
    shapes, after = shapes_of(op)
    if op.name == "dot_general":
        return math.prod(after) * math.prod(shapes[0][axis] for axis in op.params["dimension_numbers"][0][0])
    numbers = op.params["dimension_numbers"]
    inputs = [shapes[0][axis] for axis in numbers.lhs_spec[2:]]
    pairs = [
        sliding.num_outputs * sliding.size
        if sliding.base_dilation == 1
        else int(np.sum(tap_sources(sliding, length) >= 0))
        for sliding, length in zip(conv_slides(op, shapes, after), inputs, strict=True)
    ]
    batch, features = (after[axis] for axis in numbers.out_spec[:2])
    return batch * features * shapes[1][numbers.rhs_spec[1]] * math.prod(pairs)
