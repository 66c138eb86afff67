"""How much of what lies between the first layer and the last is not linear in the images, read from the trace."""

from collections.abc import Iterator

from cnnprobe.tracing.calls import Call
from cnnprobe.tracing.layers import Structure, find_structure, is_open
from cnnprobe.tracing.program import SAME_ENTRIES, Op, all_ops
from cnnprobe.tracing.provenance import Origins, origin_of

PRODUCTS = frozenset({"mul", "dot_general", "conv_general_dilated"})  # linear in each operand
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
