"""From the operation of a layer to its true output: past bias, layout, normalisation and pooling to the activation."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from cnnprobe.tracing.activations import Activation, find_activation
from cnnprobe.tracing.axes import Axes, axes_after
from cnnprobe.tracing.program import SAME_ENTRIES, Op, Operand, View, known_scalar, root
from cnnprobe.tracing.provenance import Origins, is_parameter, origin_of, owner_name

POOLS = frozenset({"reduce_window_max", "reduce_window_min", "reduce_window_sum"})
ARITHMETIC = frozenset({"add", "sub", "mul", "div"})
MAX_VALUES = 60  # values looked at behind one layer

# Of these the input is what a reader wants to see: the logits.
READ_BEFORE = ("softmax", "log_softmax", "log_sigmoid")


class Place(NamedTuple):
    """A value on the way from a layer's operation to its output."""

    value: int
    axes: Axes  # its feature axes
    params: frozenset[str]  # parameters met on the way: bias, shift of a normalisation
    normalisation: frozenset[str]  # those of them that were met behind statistics
    is_normalised: bool  # statistics, of the batch or kept, were taken off or divided by
    is_own: bool  # nothing but arithmetic with parameters and layout so far
    has_joined: bool  # another branch was added: only an activation may follow


class Output(NamedTuple):
    """Where a layer ends."""

    value: int  # what is measured
    axes: Axes
    params: frozenset[str]  # its parameters beside the kernel, and those of its normalisation
    normalisation_params: frozenset[str]  # those of them that belong to its normalisation
    normalisation: str  # name of the normalisation that it goes through, or ""
    activation: Activation | None  # what it goes through


def follow(view: View, origins: Origins, value: int, axes: Axes) -> Output:
    """Finds the output of the layer whose operation makes `value`.

    The nearest activation wins. Without one the layer ends behind the last arithmetic with parameters (its bias, the
    shift of its normalisation).
    """
    end = Place(value, axes, frozenset(), frozenset(), is_normalised=False, is_own=True, has_joined=False)
    queue, seen = deque([end]), {value}
    while queue and len(seen) < MAX_VALUES:
        place = queue.popleft()
        if activation := find_activation(view, place.value):
            return _activated(place, activation)
        if place.is_own and len(place.params) > len(end.params):
            end = place
        for following in _next_places(view, origins, place):
            if following.value not in seen:
                seen.add(following.value)
                queue.append(following)
    return Output(end.value, end.axes, end.params, end.normalisation, _normalisation_name(end), None)


def _activated(place: Place, activation: Activation) -> Output:
    """The output of a layer that goes through `activation`."""
    before = activation.name.startswith(READ_BEFORE)
    value = activation.source if before else activation.result
    return Output(value, place.axes, place.params, place.normalisation, _normalisation_name(place), activation)


def _next_places(view: View, origins: Origins, place: Place) -> Iterator[Place]:
    """The places one operation further on."""
    for op in view.readers(place.value):
        if op.name in SAME_ENTRIES and (axes := axes_after(view, op, place.axes)) is not None:
            yield place._replace(value=op.outputs[0], axes=axes)
        elif place.has_joined:
            continue
        elif op.name in ARITHMETIC and view.shape(op.outputs[0]) == view.shape(place.value):
            yield from _past_arithmetic(view, origins, place, op)
        elif op.name in POOLS or _is_mask(view, op, place.value):
            yield place._replace(value=op.outputs[0], is_own=False)


def _past_arithmetic(view: View, origins: Origins, place: Place, op: Op) -> Iterator[Place]:
    """Past a bias, a scale or the sum with another branch."""
    others = [ref for ref in op.inputs if ref != place.value]
    if len(others) != 1 or (op.name in ("sub", "div") and op.inputs[0] != place.value):
        return
    origin = origin_of(origins, root(view, others[0]))
    if is_parameter(origin):
        group = place.normalisation | (origin.params if place.is_normalised else frozenset())
        yield place._replace(value=op.outputs[0], params=place.params | origin.params, normalisation=group)
    elif not origin.data:
        yield place._replace(value=op.outputs[0])
    elif is_broadcast(view, others[0], view.size(place.value)):
        yield place._replace(value=op.outputs[0], is_normalised=True)
    elif op.name in ("add", "sub"):
        yield place._replace(value=op.outputs[0], is_own=False, has_joined=True)


def is_broadcast(view: View, ref: Operand, size: int) -> bool:
    """Whether `ref` repeats statistics or parameters over some axes, or is a product of what does, as in layer norm."""
    source = root(view, ref)
    op = view.producer(source)
    if view.size(source) < size or op is None or op.name not in ARITHMETIC:
        return view.size(source) < size
    return all(is_broadcast(view, part, size) for part in op.inputs)


def _is_mask(view: View, op: Op, value: int) -> bool:
    """Whether `op` sets some entries of `value` to a constant, as dropout does."""
    others = [ref for ref in op.inputs[1:] if ref != value]
    return op.name == "select_n" and len(op.inputs) == 3 and len(others) == 1 and _is_known(view, others[0])


def _is_known(view: View, ref: Operand) -> bool:
    return known_scalar(view, ref) is not None


def _normalisation_name(place: Place) -> str:
    """Name of the normalisation that a place lies behind: the group of its parameters."""
    owners = sorted({owner_name(path) for path in place.normalisation})
    return "+".join(owners) if owners else "unnamed" if place.is_normalised else ""
