"""Recognising a normalisation by the statistics that it divides by."""

import math
from collections.abc import Iterator

from cnnprobe.tracing.fields import field_of
from cnnprobe.tracing.following import is_broadcast
from cnnprobe.tracing.layers import PRODUCTS
from cnnprobe.tracing.program import Op, Operand, View, root
from cnnprobe.tracing.provenance import Origins, origin_of
from cnnprobe.tracing.roles import Roles, is_local, own_axes

DEVIATIONS = frozenset({"sqrt", "rsqrt"})
MAX_OPS = 12  # looked at between a variance and the division by it, or between a variance and the map


def normalisation_kind(roles: Roles, origins: Origins, view: View, op: Op) -> str:
    """What `op` does if it divides a map by a deviation: "batch norm", "layer norm", "group norm" ...; else ""."""
    if op.name not in ("mul", "div") or len(op.inputs) != 2:
        return ""
    size = view.size(op.outputs[0])
    pairs = (op.inputs, op.inputs[::-1]) if op.name == "mul" else (op.inputs,)
    for data, scale in pairs:
        if field_of(roles.fields, data) and not is_broadcast(view, data, size) and is_broadcast(view, scale, size):
            for above in _above(view, scale, size):
                if above.name in DEVIATIONS and origin_of(origins, above.outputs[0]).data:
                    return _kind(roles, view, above, data)
    return ""


def _above(view: View, ref: Operand, size: int) -> Iterator[Op]:
    """The operations that `ref` is computed by, nearest first, as long as they repeat fewer than `size` entries."""
    queue, seen = [root(view, ref)], set[int]()
    while queue and len(seen) < MAX_OPS:
        op = view.producer(queue.pop(0))
        if op is None or op.name in PRODUCTS or op.outputs[0] in seen or not is_broadcast(view, op.outputs[0], size):
            continue
        seen.add(op.outputs[0])
        yield op
        queue += [root(view, operand) for operand in op.inputs]


def _kind(roles: Roles, view: View, deviation: Op, data: Operand) -> str:
    """Tells normalisations by the axes of the map `data` over which their statistics are the same."""
    field = field_of(roles.fields, deviation.outputs[0])
    if roles.batch is None or not is_local(field, [roles.batch]):
        return "batch norm"
    if not _is_centred(view, deviation, view.size(data)):
        return "rms norm"
    if not roles.places or is_local(field, roles.places):
        return "layer norm"
    num_statistics = min(_sizes(roles, view, deviation, view.size(data))) // roles.shape[roles.batch]
    if num_statistics == 1:
        return "layer norm"
    num_places = math.prod(view.shape(data)[axis] for axis in own_axes(field_of(roles.fields, data), roles.places))
    num_channels = view.size(data) // num_places // roles.shape[roles.batch]
    return "instance norm" if num_statistics == num_channels else "group norm"


def _sizes(roles: Roles, view: View, deviation: Op, size: int) -> Iterator[int]:
    """Sizes of a deviation and of what it was repeated from, for all examples."""
    for op in (deviation, *_above(view, deviation.inputs[0], size)):
        if is_local(field_of(roles.fields, op.outputs[0]), [roles.batch or 0]):
            yield view.size(op.outputs[0])


def _is_centred(view: View, deviation: Op, size: int) -> bool:
    """Whether a mean is taken off in the variance: from the map, or as a square from the mean square."""
    reduced = [op for op in _above(view, deviation.inputs[0], size) if op.name in ("sub", "reduce_sum")]
    squares = (view.producer(root(view, op.inputs[0])) for op in reduced if op.name == "reduce_sum")
    inner = (view.producer(root(view, ref)) for square in squares if square for ref in square.inputs)
    return any(op.name == "sub" for op in reduced) or any(op is not None and op.name == "sub" for op in inner)
