"""What stands between one layer and the next: normalisation, activation, pools, dropout, joins of branches."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from cnnprobe.tracing.activations import POINTS, Activation, elementwise_values, find_activation
from cnnprobe.tracing.dropouts import find_dropouts
from cnnprobe.tracing.fields import field_of
from cnnprobe.tracing.following import POOLS
from cnnprobe.tracing.layers import PRODUCTS, Structure
from cnnprobe.tracing.normalisations import normalisation_kind
from cnnprobe.tracing.program import SAME_ENTRIES, Op, Program, View, known_scalar, root
from cnnprobe.tracing.provenance import Origins
from cnnprobe.tracing.roles import Roles, is_local, own_axes
from cnnprobe.tracing.windows import padding_name, pool_window, shape_text, shapes_of

NOT_YET = -1  # owner of what comes before the first layer
LINEAR = PRODUCTS | POOLS | {"add", "sub", "reduce_sum", "reduce_max", "concatenate", "pad"}  # begin no activation
POOL_NAMES = {"reduce_window_max": "max pool", "reduce_window_min": "min pool", "reduce_window_sum": "average pool"}
JOINS = {"add": "add", "sub": "subtract", "mul": "multiply", "max": "maximum"}


class Step(NamedTuple):
    """One thing that happens to the output of a layer."""

    kind: str  # "normalisation", "activation", "scale", "pool", "dropout", "join" or "flatten"
    text: str  # "batch norm", "relu", "max pool 2x2", "dropout 0.5", "add"
    branches: tuple[int, ...] = ()  # numbers of the layers behind which the other branches of a join begin


class _Scene(NamedTuple):
    """What the walk knows and what it has found."""

    roles: Roles
    origins: Origins
    layers: dict[int, int]  # the value that a layer's operation makes -> number of the layer
    dropouts: dict[int, float]  # value -> rate
    owners: dict[int, int]  # value -> the last layer that it has come through
    explained: set[int]  # values inside an activation or a normalisation
    steps: dict[int, list[Step]]


def find_steps(structure: Structure, roles: Roles) -> dict[int, tuple[Step, ...]]:
    """The steps behind each layer, by its number; those in front of the first layer under `NOT_YET`.

    Where branches come together, what follows belongs to the branch whose last layer stands last in the program.
    """
    layers = {layer.op.outputs[0]: number for number, layer in enumerate(structure.layers)}
    dropouts = {drop.use.outputs[0]: drop.rate for drop in find_dropouts(structure.program)}
    scene = _Scene(roles, structure.origins, layers, dropouts, {}, set(), {})
    _walk(scene, structure.program, {})
    return {owner: tuple(steps) for owner, steps in scene.steps.items()}


def _walk(scene: _Scene, program: Program, owners: dict[int, int]) -> list[int]:
    """Notes the steps of a program whose inputs have `owners`; returns the owners of its outputs."""
    scene.owners.update(owners)
    view = View(program)
    for value in program.inputs:
        if field_of(scene.roles.fields, value):
            _note_activation(scene, view, value)
    for op in program.ops:
        before = [scene.owners.get(ref, NOT_YET) if isinstance(ref, int) else NOT_YET for ref in op.inputs]
        owner = max(before, default=NOT_YET)
        results = [scene.layers.get(op.outputs[0], owner)] * len(op.outputs) if op.outputs else []
        if op.bodies and not _is_explained(scene, op):
            results = _walk_bodies(scene, op, before) or results
        scene.owners.update(zip(op.outputs, results, strict=False))
        _note(scene, view, op)
    return [scene.owners.get(ref, NOT_YET) if isinstance(ref, int) else NOT_YET for ref in program.outputs]


def _walk_bodies(scene: _Scene, op: Op, before: list[int]) -> list[int]:
    """Walks what an operation holds; nothing if its operands are not those of its bodies."""
    results: list[list[int]] = []
    for body in op.bodies:
        inner = before[len(before) - len(body.inputs) :]  # a branch is chosen by its first operand
        if len(inner) == len(body.inputs):
            results.append(_walk(scene, body, dict(zip(body.inputs, inner, strict=True))))
    return [max(owners) for owners in zip(*results, strict=False)]


def _is_explained(scene: _Scene, op: Op) -> bool:
    return any(value in scene.explained for value in op.outputs)


def _note(scene: _Scene, view: View, op: Op) -> None:
    """Writes down what one operation is."""
    if not op.outputs or not field_of(scene.roles.fields, op.outputs[0]):
        return
    value = op.outputs[0]
    if op.name.startswith("reduce_") and op.name not in POOLS:
        scene.explained.update(statistics(view, op))
    if value not in scene.explained and (step := _step(scene, view, op)) is not None:
        _add(scene, value, step)
    if value not in scene.explained and not _is_undivided(view, op):
        _note_activation(scene, view, value)


def _is_undivided(view: View, op: Op) -> bool:
    """Whether `op` is the sum of an average, which still has to be divided by a number."""
    divisions = (reader for reader in view.readers(op.outputs[0]) if reader.name in ("div", "mul"))
    is_sum = op.name in ("reduce_sum", "reduce_window_sum")
    return is_sum and any(known_scalar(view, ref) is not None for reader in divisions for ref in reader.inputs)


def _add(scene: _Scene, value: int, step: Step) -> None:
    scene.steps.setdefault(scene.owners.get(value, NOT_YET), []).append(step)


def _step(scene: _Scene, view: View, op: Op) -> Step | None:
    """The step that an operation is, other than an activation."""
    if op.outputs[0] in scene.dropouts:
        return Step("dropout", f"dropout {scene.dropouts[op.outputs[0]]:.3g}")
    if op.name in POOLS:
        return Step("pool", _pool_text(op))
    if op.name.startswith("reduce_"):
        return _global_pool(scene, view, op)
    if op.name == "reshape":
        return _flatten(scene, view, op)
    if kind := normalisation_kind(scene.roles, scene.origins, view, op):
        return Step("normalisation", kind)
    return _join(scene, view, op)


def _pool_text(op: Op) -> str:
    """A pool with its window; one window over everything is a global pool."""
    shapes, after = shapes_of(op)
    window, name = pool_window(op), POOL_NAMES[op.name]
    axes = [axis for axis, size in enumerate(op.params["window_dimensions"]) if size > 1]
    places = tuple(shapes[0][axis] for axis in axes)
    if places == window.size and all(after[axis] == 1 for axis in axes):
        return f"global {name}"
    if len(places) != len(window.size):
        return f"{name} {window}"
    padding = padding_name(window, places)
    strided = "" if window.strides == window.size else f"/{shape_text(tuple(dict.fromkeys(window.strides)))}"
    return f"{name} {shape_text(window.size)}{strided}{'' if padding == 'valid' else f' {padding}'}"


def _global_pool(scene: _Scene, view: View, op: Op) -> Step | None:
    """A reduction over all places of each example; not one of a normalisation, nor of a loss."""
    roles = scene.roles
    before, after = (field_of(roles.fields, value) for value in (op.inputs[0], op.outputs[0]))
    kept = [roles.batch] if roles.batch is not None else []
    gone = not any(source in after and after[source].axis is not None for source in roles.places)
    if not roles.places or not gone or not is_local(before, roles.places) or not is_local(after, kept):
        return None
    if len(view.shape(op.outputs[0])) == len(kept):
        return None
    return Step("pool", f"global {'average' if op.name == 'reduce_sum' else op.name.removeprefix('reduce_')} pool")


def statistics(view: View, op: Op) -> set[int]:
    """What is computed of a reduction before it is put together with something as large as what was reduced.

    Nothing where that never happens: then `op` is a pool or a loss.
    """
    size, queue, seen, is_statistic = view.size(op.inputs[0]), [op.outputs[0]], set[int](), False
    while queue:
        value = queue.pop()
        seen.add(value)
        for result in (
            result for reader in view.readers(value) if reader.name not in PRODUCTS for result in reader.outputs
        ):
            if view.size(result) >= size:
                is_statistic = True
            elif result not in seen:
                queue.append(result)
    return seen if is_statistic else set()


def _flatten(scene: _Scene, view: View, op: Op) -> Step | None:
    """A reshape that makes features of places."""
    roles, shape = scene.roles, view.shape(op.inputs[0])
    before = field_of(roles.fields, op.inputs[0])
    num_places = math.prod(shape[axis] for axis in own_axes(before, roles.places))
    is_flat = len(view.shape(op.outputs[0])) == (1 if roles.batch is None else 2)
    return Step("flatten", "flatten") if is_flat and num_places > 1 else None


def _join(scene: _Scene, view: View, op: Op) -> Step | None:
    """Branches that come together."""
    roots = [root(view, ref) for ref in op.inputs]
    parts = [ref for ref in roots if isinstance(ref, int) and field_of(scene.roles.fields, ref)]
    owners = sorted({scene.owners.get(ref, NOT_YET) for ref in parts})
    if op.name == "concatenate":
        return Step("join", "concatenate", tuple(owners[:-1])) if len(parts) > 1 else None
    is_whole = all(view.size(ref) == view.size(op.outputs[0]) for ref in roots)
    if op.name not in JOINS or len(owners) != 2 or not (is_whole or op.name == "mul"):
        return None
    return Step("join", JOINS[op.name], tuple(owners[:-1]))


# --- activations -------------------------------------------------------------------------------------------------


def _note_activation(scene: _Scene, view: View, value: int) -> None:
    """Writes down the activation that `value` goes through, and which values it explains."""
    if all(reader.name in LINEAR | SAME_ENTRIES for reader in view.readers(value)):
        return
    if (found := find_activation(view, value)) is not None:
        inside = [inner for inner in elementwise_values(view, value) if inner != value]
        scene.explained.update(inner for inner in (*inside, found.result) if inner <= found.result)
        scene.owners.setdefault(found.result, scene.owners.get(value, NOT_YET))
        _add(scene, value, Step("activation", activation_text(view, found)))
    elif (step := _unnamed(view, value)) is not None:
        scene.explained.update(inner for inner in elementwise_values(view, value) if inner != value)
        _add(scene, value, step)


def activation_text(view: View, activation: Activation) -> str:
    """The name of an activation, with the slope of a leaky ReLU and the scale of an ELU."""
    if activation.name not in ("leaky_relu", "elu"):
        return activation.name
    values = elementwise_values(view, activation.source)[activation.result]
    scale = values[0] / (POINTS[0] if activation.name == "leaky_relu" else np.expm1(POINTS[0]))
    return activation.name if activation.name == "elu" and np.isclose(scale, 1) else f"{activation.name} {scale:.3g}"


def _unnamed(view: View, value: int) -> Step | None:
    """An elementwise function of `value` alone that is no known activation, if anything is computed from it."""
    outputs = {root(view, ref) for ref in view.program.outputs}
    found = None
    for result, values in elementwise_values(view, value).items():
        is_used = result in outputs or any(op.name in PRODUCTS | POOLS for op in _real_readers(view, result))
        if result != value and values.dtype != bool and is_used:
            found = values
    return None if found is None else _function_step(found)


def _function_step(values: Float[np.ndarray, " points"]) -> Step | None:
    """A function by its values on `POINTS`; None for one that changes nothing."""
    slope, level = np.polyfit(POINTS, values, 1) if np.isfinite(values).all() else (np.nan, np.nan)
    if np.allclose(values, slope * POINTS + level, rtol=1e-4, atol=1e-6):
        is_same = np.isclose(slope, 1) and abs(level) < 1e-6
        shift = f" plus {level:.3g}" if abs(level) > 1e-6 else ""
        return None if is_same else Step("scale", f"times {slope:.3g}{shift}")
    below, above = (values[np.searchsorted(POINTS, point)] for point in (-1.2, 1.2))
    return Step("activation", f"f(-1.2) = {below:.3g}, f(1.2) = {above:.3g}")


def _real_readers(view: View, value: int) -> Iterator[Op]:
    """The operations that read `value`, past those that only rearrange it."""
    for op in view.readers(value):
        if op.name in SAME_ENTRIES:
            yield from _real_readers(view, op.outputs[0])
        else:
            yield op
