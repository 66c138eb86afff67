"""Pools over the wrong axes of a map: over its features and one of its sides."""

from collections.abc import Iterator
from typing import NamedTuple

from cnnprobe.tracing.program import SAME_ENTRIES, Op, Program, View

REDUCTIONS = frozenset({"reduce_sum", "reduce_max", "reduce_min"})  # a mean is a sum, divided
CONVOLUTION, PRODUCT = "conv_general_dilated", "dot_general"


class MapAxes(NamedTuple):
    """What the axes of a map stand for."""

    features: int
    places: tuple[int, ...]


class Pooled(NamedTuple):
    """A map that is reduced over its features and over some of its sides, but not over all."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]  # those that are reduced


def misplaced_pools(program: Program) -> tuple[Pooled, ...]:
    """Reductions of a convolution's map over features and one side, where a dense layer reads what they leave.

    What goes back onto the map, as the statistics of a normalisation do, is no pool.
    """
    view = View(program)
    maps = _maps(view)
    return tuple(
        Pooled(view.shape(op.inputs[0]), tuple(op.params["axes"]))
        for op in program.ops
        if op.name in REDUCTIONS and _is_misplaced(op, maps) and _is_read_by_product(view, op.outputs[0])
    )


def _maps(view: View) -> dict[int, MapAxes]:
    """The axes of every map: of what convolutions make, and of what is made of it without a change of rank."""
    maps: dict[int, MapAxes] = {}
    for op in view.program.ops:
        axes = _axes_after(view, op, maps)
        if axes is not None:
            maps[op.outputs[0]] = axes
    return maps


def _axes_after(view: View, op: Op, maps: dict[int, MapAxes]) -> MapAxes | None:
    """The axes of the map that an operation makes; None where it makes none."""
    if op.name == CONVOLUTION:
        _, features, *places = op.params["dimension_numbers"].out_spec
        return MapAxes(features, tuple(places))
    given = next((ref for ref in op.inputs if isinstance(ref, int) and ref in maps), None)
    if given is None or len(op.outputs) != 1:
        return None
    if op.name == "transpose":
        moved = op.params["permutation"].index
        return MapAxes(moved(maps[given].features), tuple(map(moved, maps[given].places)))
    is_kept = op.name.startswith("reduce_window") or view.shape(op.outputs[0]) == view.shape(given)
    return maps[given] if is_kept else None


def _is_misplaced(op: Op, maps: dict[int, MapAxes]) -> bool:
    """Whether a map's features are reduced, and of several sides some but not all."""
    axes, reduced = maps.get(op.inputs[0]) if isinstance(op.inputs[0], int) else None, set(op.params["axes"])
    if axes is None:
        return False
    sides = reduced.intersection(axes.places)
    return axes.features in reduced and 0 < len(sides) < len(axes.places) and reduced == {axes.features, *sides}


def _is_read_by_product(view: View, value: int) -> bool:
    """Whether a product reads the entries of a value, rearranged or divided by their number."""
    return any(op.name == PRODUCT for op in _readers(view, value))


def _readers(view: View, value: int) -> Iterator[Op]:
    """The operations that read a value, those behind a change of layout or scale included."""
    for op in view.readers(value):
        yield op
        if (op.name in SAME_ENTRIES or op.name in ("mul", "div")) and view.size(op.outputs[0]) == view.size(value):
            yield from _readers(view, op.outputs[0])
