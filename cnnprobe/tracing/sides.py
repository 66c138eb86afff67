"""Windows that are wide along one side of the image plane alone, and layers that see the other side too.

Flax takes `kernel_size=3` for a window along the width, and counts the height of the images among the batch axes.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnnprobe.tracing.calls import trace_call
from cnnprobe.tracing.interpret import Edit, Edits, Reader
from cnnprobe.tracing.layers import Layer, Structure, find_structure
from cnnprobe.tracing.program import Op, View, all_ops
from cnnprobe.tracing.surgery import edit_layers
from cnnprobe.tracing.windows import Window, conv_window

SIDES = ("height", "width")
CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")


class OneSided(NamedTuple):
    """A convolution that combines the places of one side."""

    layer: Layer
    side: int  # of `SIDES`
    window: Window

    @property
    def square(self) -> tuple[int, int, int, int]:
        """Shape of a kernel that is as wide along the other side: height, width, features in and out."""
        kernel, spec = self.layer.op.equation.invars[1].aval.shape, self.layer.op.params["dimension_numbers"].rhs_spec
        width = max(self.window.size)
        return width, width, kernel[spec[1]], kernel[spec[0]]


def is_spatial(layer: Layer) -> bool:
    """Whether a layer is a convolution that combines neighbouring places."""
    window = conv_window(layer.op)
    return window is not None and layer.kind != "transposed-conv" and math.prod(window.size) > 1


def one_sided(structure: Structure) -> tuple[OneSided, ...]:
    """The convolutions of a network none of which combines the places of one of the sides; empty for other networks.

    Maps that are turned round between them may show each side in its turn: such a network is not judged.
    """
    view, spatial = View(structure.program), [layer for layer in structure.layers if is_spatial(layer)]
    found = [_one_sided(view, layer) for layer in spatial]
    narrow = tuple(each for each in found if each is not None)
    is_whole = len(narrow) == len(spatial) and len({each.side for each in narrow}) == 1
    return narrow if is_whole and not _turns_maps(view) else ()


def _turns_maps(view: View) -> bool:
    """Whether anything as large as a map is transposed."""
    return any(op.name == "transpose" and len(op.params["permutation"]) > 2 for op in all_ops(view.program))


def _one_sided(view: View, layer: Layer) -> OneSided | None:
    """A convolution whose window is wide along one side of a plane; None for any other."""
    window = conv_window(layer.op)
    if window is None or layer.is_repeated:
        return None
    places = [view.shape(layer.op.inputs[0])[axis] for axis in layer.op.params["dimension_numbers"].lhs_spec[2:]]
    wide = [side for side, size in enumerate(window.size) if size > 1]
    if len(window.size) == 1 and _has_height_in_batch(view, layer.op):
        return OneSided(layer, 1, window)
    is_narrow = len(window.size) == 2 and len(wide) == 1 and min(places) > 1
    return OneSided(layer, wide[0], window) if is_narrow else None


def _has_height_in_batch(view: View, op: Op) -> bool:
    """Whether what a convolution along one side is given was a map whose height has become part of the batch."""
    made = view.producer(op.inputs[0])
    if made is None or made.name != "reshape":
        return False
    before, after = view.shape(made.inputs[0]), view.shape(made.outputs[0])
    return len(before) == 4 and before[1] > 1 and after == (before[0] * before[1], *before[2:])


def square_kernels(fn: Callable, *args: object) -> dict[str, tuple[int, int, int, int]]:
    """Shapes of the kernels with which the `one_sided` layers of `fn` would see the other side, by layer name.

    The first of `args` holds the parameters, and another one the images.
    """
    call = trace_call(fn, args, {}, [0])
    return {each.layer.name: each.square for each in one_sided(find_structure(call.program, call.origins))}


def see_other_side(
    fn: Callable, kernels: Mapping[str, Float[Array, "k k inputs features"]], num_images: int
) -> Callable:
    """`fn` whose `one_sided` layers add what square `kernels` make of the same maps; with zeros it is `fn`.

    Its first argument holds the parameters, and another one the images.
    """

    def edits(structure: Structure) -> Edits:
        """What to change in one program."""
        return {
            each.layer.op.outputs[0]: _plus(each, kernels[each.layer.name], num_images) for each in one_sided(structure)
        }

    return edit_layers(fn, edits, 0)


def _plus(narrow: OneSided, kernel: Array, num_images: int) -> Edit:
    """Adds to a layer's result what `kernel` makes of its input."""

    def apply(value: Array, read: Reader, _slot: None) -> tuple[Array, None]:
        """The value to go on with."""
        added = _convolved(narrow, read(narrow.layer.op.inputs[0]), kernel, num_images)
        return value + added.astype(value.dtype), None

    return Edit(apply)


def _convolved(narrow: OneSided, x: Array, kernel: Array, num_images: int) -> Array:
    """A square convolution of a layer's input, as large as the layer's result and laid out like it."""
    window, (lhs, _, out) = narrow.window, narrow.layer.op.params["dimension_numbers"]
    last = jnp.transpose(x, (lhs[0], *lhs[2:], lhs[1]))
    made = lax.conv_general_dilated(
        last.reshape(num_images, -1, *last.shape[-2:]),
        kernel.astype(x.dtype),
        (1, *window.strides)[-2:],
        [_padding(window, side, narrow.side) for side in range(2)],
        rhs_dilation=[max(window.dilations) if side == narrow.side else 1 for side in range(2)],
        dimension_numbers=CHANNELS_LAST,
        feature_group_count=window.num_groups,
    )
    flat = made.reshape(-1, *made.shape[-1 - len(window.size) :])
    order = (out[0], *out[2:], out[1])
    return jnp.transpose(flat, [order.index(axis) for axis in range(len(order))])


def _padding(window: Window, side: int, own: int) -> tuple[int, int]:
    """Zeros before and after a side: the layer's own, or as many as leave the other side as long as the layer does."""
    if side == own:
        return window.padding[-1 if len(window.padding) == 1 else side]
    around, (low, high) = max(window.size) - 1, window.padding[side] if len(window.padding) == 2 else (0, 0)
    return low + around // 2, high + around - around // 2
