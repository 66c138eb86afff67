"""How much of what lies between the first layer and the last is not linear in the images, read from the trace."""

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from cnnprobe.tracing.calls import Call
from cnnprobe.tracing.layers import Layer, Structure, find_structure, is_open
from cnnprobe.tracing.program import SAME_ENTRIES, Op, all_ops
from cnnprobe.tracing.provenance import Origins, origin_of

PRODUCTS = frozenset({"mul", "dot_general", "conv_general_dilated"})  # linear in each operand
STRAIGHT = SAME_ENTRIES | {"add", "add_any"}  # a bias, a change of shape or type
LINEAR = SAME_ENTRIES | {
    *("add", "add_any", "sub", "neg", "reduce_sum", "reduce_window_sum", "cumsum", "stop_gradient", "rev"),
    *("concatenate", "pad", "slice", "dynamic_slice", "gather", "split"),
}


def look_between_layers(call: Call) -> dict[str, float]:
    """How many operations between the first layer and the last are not linear in the images; needs two layers."""
    structure = find_structure(call.program, call.origins)
    if len(structure.layers) < 2 or structure.skipped:
        return {}
    bends = [op.name for op in _between(structure) if not _is_linear(op, structure.origins)]
    num_pools = sum(name.startswith("reduce_window_m") for name in bends)
    return {"hidden nonlinearities": float(len(bends) - num_pools), "max pools": float(num_pools)}


def _between(structure: Structure) -> Iterator[Op]:
    """The operations from the first layer's to the last layer's, in program order."""
    ops = list(all_ops(structure.program))
    places = {id(op): index for index, op in enumerate(ops)}
    first, last = (places[id(structure.layers[end].op)] for end in (0, -1))
    yield from ops[first:last]


def _is_linear(op: Op, origins: Origins) -> bool:
    """Whether what an operation makes is linear in the images; a loop or branch is what its own operations are."""
    from_images = [origin_of(origins, ref).data for ref in op.inputs]
    if is_open(op) or not any(from_images) or op.name in LINEAR:
        return True
    if op.name == "div":
        return not from_images[1]
    return op.name in PRODUCTS and sum(from_images) == 1


def idle_layers(call: Call) -> tuple[str, ...]:
    """Names of dense layers that feed another straight, without an activation, though they narrow nothing.

    The product of the two kernels can be any one kernel, so the first adds parameters and no function. A layer that is
    narrower than both its inputs and the outputs of the second is a bottleneck, and meant.
    """
    structure = find_structure(call.program, call.origins)
    dense = [layer for layer in structure.layers if layer.kind == "dense" and not layer.is_repeated]
    producers = {value: op for op in all_ops(structure.program) for value in op.outputs}
    return tuple(
        first.name
        for first, second in pairwise(dense)
        if first.num_features >= min(_num_inputs(structure, first), second.num_features)
        and _is_fed_straight(structure, producers, first, second)
    )


def _num_inputs(structure: Structure, layer: Layer) -> int:
    """Values that one unit of a dense layer is a sum over."""
    kernel = layer.op.inputs[layer.kernel]
    shape = structure.program.types[kernel].shape if isinstance(kernel, int) else np.shape(kernel.value)
    return math.prod(shape) // layer.num_features


def _is_fed_straight(structure: Structure, producers: dict[int, Op], first: Layer, second: Layer) -> bool:
    """Whether nothing but biases and changes of shape stand between two layers."""
    ref = second.op.inputs[1 - second.kernel]
    while isinstance(ref, int) and (op := producers.get(ref)) is not None:
        if op is first.op:
            return True
        from_images = [each for each in op.inputs if origin_of(structure.origins, each).data]
        if len(from_images) != 1 or op.name not in STRAIGHT:
            return False
        ref = from_images[0]
    return False
