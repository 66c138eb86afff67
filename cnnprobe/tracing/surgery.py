"""Changing a model without its source: every function here takes a function and returns one of the same arguments.

The function is traced and run again with single values replaced, so parameters keep their tree, and the result works
under `jax.jit`, `jax.grad` and `jax.vmap` like the function it was made from.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnnprobe.checks import check_callable
from cnnprobe.tracing import compat
from cnnprobe.tracing.activations import derives
from cnnprobe.tracing.calls import Call, trace_call
from cnnprobe.tracing.dropouts import Dropout, find_dropouts
from cnnprobe.tracing.endings import output_activation
from cnnprobe.tracing.interpret import Edit, Edits, Reader, evaluate
from cnnprobe.tracing.layers import Layer, Structure, find_structure
from cnnprobe.tracing.pools import has_slow_pools, pool_edits
from cnnprobe.tracing.program import Op, Operand, Program, View, all_ops


def set_dropout_rate(fn: Callable, rate: float | Callable[[float], float]) -> Callable:
    """`fn` with another dropout rate, or with `rate(old rate)` for each of its dropouts.

    Finds dropout however it is written: uniform random numbers compared with a probability, the rest divided by it. A
    `fn` that drops nothing (in evaluation mode, say) is left as it is.

    Raises:
      ValueError: a rate is not in [0, 1).
    """
    check_callable("fn", fn)
    if not callable(rate):
        _check_rate(rate)
    return _edited(fn, lambda program: _dropout_edits(program, rate))


def quick_pools(fn: Callable) -> Callable:
    """`fn` with the same values and gradients, the latter of max pools computed faster on a CPU."""
    return _edited(fn, pool_edits) if has_slow_pools() else fn


def drop_output_activation(fn: Callable) -> Callable:
    """`fn` with its first output read before the activation that it ends in: the logits of a softmax.

    Raises:
      ValueError: on the call, if `fn` does not end in an activation.
    """

    def edits(program: Program) -> Edits:
        """What to change in one program."""
        activation = output_activation(program)
        if activation is None:
            raise ValueError(f"fn must end in an activation to drop, got a function that ends in {_ending(program)}.")
        return {activation.result: _replace_by(activation.source)}

    return _edited(fn, edits)


def log_output_softmax(fn: Callable) -> Callable:
    """`fn` with log-probabilities in place of the probabilities that it ends in: of a softmax, or of a sigmoid.

    They are computed from the logits, so that a probability that rounds to 0 or 1 keeps its gradient.

    Raises:
      ValueError: on the call, if `fn` does not end in a softmax or a sigmoid.
    """

    def edits(program: Program) -> Edits:
        """What to change in one program."""
        activation = output_activation(program)
        if activation is None or not activation.name.startswith(("softmax", "sigmoid")):
            ending = activation.name if activation else _ending(program)
            raise ValueError(f"fn must end in a softmax or a sigmoid, got a function that ends in {ending}.")
        axes = tuple(int(axis) for axis in re.findall(r"\d+", activation.name)) or (-1,)
        log = jax.nn.log_sigmoid if activation.name == "sigmoid" else functools.partial(jax.nn.log_softmax, axis=axes)
        return {activation.result: _replace_by(activation.source, log)}

    return _edited(fn, edits)


def _ending(program: Program) -> str:
    """The last operation of a program."""
    return program.ops[-1].name if program.ops else "nothing"


def keep_gradients(fn: Callable) -> Callable:
    """`fn` without its `jax.lax.stop_gradient`.

    Two kinds stay: that on the maximum inside a softmax, where it changes nothing, and that of a straight-through
    estimator, `x + stop_gradient(f(x) - x)`, which without it would have no gradient of its own.
    """

    def edits(program: Program) -> Edits:
        """What to change in one program."""
        return {
            op.outputs[0]: _replace_by(op.inputs[0])
            for part in _parts(program)
            for op in part.ops
            if op.name == "stop_gradient" and _blocks(View(part), op)
        }

    return _edited(fn, edits)


def _blocks(view: View, op: Op) -> bool:
    """Whether a `stop_gradient` takes a gradient away that nothing else brings."""
    if _is_maximum(view, op.inputs[0]):
        return False
    sums = [reader for reader in view.readers(op.outputs[0]) if reader.name in ("add", "sub")]
    others = [ref for reader in sums for ref in reader.inputs if isinstance(ref, int) and ref != op.outputs[0]]
    return not any(derives(view, op.inputs[0], other) for other in others)


def replace_activation(
    fn: Callable, name: str | None, new: Callable[[Array], Array], *, params_argnum: int = 0
) -> Callable:
    """`fn` with `new` in place of the activation `name` ("relu", "tanh", ...) behind each of its layers; None: of any.

    Raises:
      ValueError: on the call, if no layer goes through such an activation.
    """
    check_callable("new", new)

    def edits(structure: Structure) -> Edits:
        """What to change in one program."""
        found = {
            activation.result: _replace_by(activation.source, new)
            for layer in structure.layers
            if (activation := layer.output.activation) is not None and name in (None, activation.name)
        }
        if not found:
            names = sorted({layer.activation for layer in structure.layers})
            raise ValueError(f"name must be an activation behind a layer, got {name!r}; found: {names}.")
        return found

    return edit_layers(fn, edits, params_argnum)


def insert_activation(
    fn: Callable, new: Callable[[Array], Array], names: Sequence[str] | None = None, *, params_argnum: int = 0
) -> Callable:
    """`fn` with the activation `new` behind the layers `names`, behind their bias or shift.

    Without `names`, behind every layer but the last.

    Raises:
      ValueError: on the call, if there is no such layer.
    """
    check_callable("new", new)

    def edits(structure: Structure) -> Edits:
        """What to change in one program."""
        chosen = structure.layers[:-1] if names is None else _named(structure, names)
        return {layer.output.value: _replace_by(layer.output.value, new) for layer in chosen}

    return edit_layers(fn, edits, params_argnum)


def _named(structure: Structure, names: Sequence[str]) -> list[Layer]:
    """The layers of these names; raises `ValueError` for a name of none."""
    layers = {layer.name: layer for layer in structure.layers}
    if unknown := [name for name in names if name not in layers]:
        raise ValueError(f"names must be layers of fn, got {unknown}; layers: {list(layers)}.")
    return [layers[name] for name in names]


def last_layer_inputs(fn: Callable, *, params_argnum: int = 0) -> Callable[..., tuple[Any, Float[Array, "batch ..."]]]:
    """Makes a function that returns `(fn(...), features)`: the input of the last layer with parameters.

    Raises:
      ValueError: on the call, if `fn` has no layer, or if the last one is inside a loop or a branch.
    """
    check_callable("fn", fn)

    @functools.wraps(fn)
    def extended(*args: Any, **kwargs: Any) -> tuple[Any, Array]:
        """The function with the features as one more result."""
        call = trace_call(fn, args, kwargs, [params_argnum], option="params_argnum")
        layers = find_structure(call.program, call.origins).layers
        value, edit = _read_input(_reachable(layers[-1:], "end in"))
        outputs, readings = evaluate(call.program, call.inputs, {value: edit}, {})
        return call.rebuild(outputs), readings[value]

    return extended


def first_layer_inputs(fn: Callable, *, params_argnum: int = 0) -> Callable[..., Float[Array, "..."]]:
    """Makes a function that returns what the first layer of `fn` is applied to: the images as the model prepares them.

    Raises:
      ValueError: on the call, if `fn` has no layer, or if the first one is inside a loop or a branch.
    """
    check_callable("fn", fn)

    @functools.wraps(fn)
    def first_inputs(*args: Any, **kwargs: Any) -> Array:
        """The input of the first layer; under `jax.jit` nothing behind it is computed."""
        call = trace_call(fn, args, kwargs, [params_argnum], option="params_argnum")
        layers = find_structure(call.program, call.origins).layers
        value, edit = _read_input(_reachable(layers[:1], "start with"))
        return evaluate(call.program, call.inputs, {value: edit}, {}).readings[value]

    return first_inputs


def feed_first_layer(fn: Callable, fed: Float[Array, "..."], *, params_argnum: int = 0) -> Callable:
    """`fn` with `fed` in place of what its first layer is applied to, and with it all layers that read the same.

    Raises:
      ValueError: on the call, if `fn` has no layer, if the first one is inside a loop or a branch, or if `fed` has
        another shape than what it is applied to.
    """

    def edits(structure: Structure) -> Edits:
        """What to change in one program."""
        source = _source(_reachable(structure.layers[:1], "start with"))
        readers = [layer for layer in structure.layers if _source(layer) == source and not layer.is_repeated]
        return {layer.op.outputs[0]: _run_on(layer, fed) for layer in readers}

    return edit_layers(fn, edits, params_argnum)


def change_last_inputs(fn: Callable, new: Callable[[Array], Array], *, params_argnum: int = 0) -> Callable:
    """`fn` whose last layer with parameters is applied to `new` of its features, which keep their shape.

    What else reads these features reads the new ones.

    Raises:
      ValueError: on the call, if `fn` has no layer, if the last one is inside a loop or a branch, or if it is applied
        to an argument of `fn`.
    """
    check_callable("new", new)

    def edits(structure: Structure) -> Edits:
        """What to change in one program."""
        layer = _reachable(structure.layers[-1:], "end in")
        features = _source(layer)
        if not isinstance(features, int) or View(structure.program).producer(features) is None:
            raise ValueError(f"fn must compute what its last layer is applied to, got {layer.name} on an argument.")
        return {features: _replace_by(features, new)}

    return edit_layers(fn, edits, params_argnum)


def _source(layer: Layer) -> Operand:
    """What a layer's operation is applied to."""
    return layer.op.inputs[1 - layer.kernel]


def _run_on(layer: Layer, fed: Array) -> Edit:
    """Runs a layer's operation again on something else of the same shape."""

    def apply(value: Array, read: Reader, _slot: None) -> tuple[Array, None]:
        """The value to go on with."""
        operands = [read(ref) for ref in layer.op.inputs]
        own = operands[1 - layer.kernel]
        if own.shape != fed.shape:
            raise ValueError(
                f"fed must have the shape of what the first layer is applied to, {own.shape}, got {fed.shape}."
            )
        operands[1 - layer.kernel] = fed.astype(own.dtype)
        return compat.bind(layer.op, operands)[0].astype(value.dtype), None

    return Edit(apply)


def _reachable(layers: Sequence[Layer], where: str) -> Layer:
    """The one layer that was asked for; raises `ValueError` where there is none outside loops and branches."""
    if not layers or layers[0].is_repeated:
        problem = f"{layers[0].name}, which is in a loop or branch" if layers else "no layer"
        raise ValueError(f"fn must {where} a layer outside loops and branches, got {problem}.")
    return layers[0]


def _edited(fn: Callable, find_edits: Callable[[Program], Edits]) -> Callable:
    """`fn` with the edits that `find_edits` wants for its program."""
    return _run_edited(fn, lambda call: find_edits(call.program), [])


def edit_layers(fn: Callable, find_edits: Callable[[Structure], Edits], params_argnum: int) -> Callable:
    """`fn` with the edits that `find_edits` wants for its layers."""
    return _run_edited(fn, lambda call: find_edits(find_structure(call.program, call.origins)), [params_argnum])


def _run_edited(fn: Callable, find_edits: Callable[[Call], Edits], params_argnums: Sequence[int]) -> Callable:
    """`fn`, traced at each call and run with edits."""
    check_callable("fn", fn)

    @functools.wraps(fn)
    def changed(*args: Any, **kwargs: Any) -> Any:
        """The function, traced, edited and run."""
        call = trace_call(fn, args, kwargs, params_argnums, option="params_argnum")
        return call.rebuild(evaluate(call.program, call.inputs, find_edits(call), {}).outputs)

    return changed


def _replace_by(source: Operand, fn: Callable[[Array], Array] = lambda x: x) -> Edit:
    """Replaces a value by `fn` of another one, in its own precision."""

    def apply(value: Array, read: Reader, _slot: None) -> tuple[Array, None]:
        """The value to go on with."""
        return fn(read(source)).astype(value.dtype), None

    return Edit(apply)


def _read_input(layer: Layer) -> tuple[int, Edit]:
    """Reads what a layer's operation is applied to."""
    return layer.op.outputs[0], Edit(lambda value, read, _slot: (value, read(_source(layer))))


def _parts(program: Program) -> list[Program]:
    """A program and all its bodies."""
    return [program, *(body for op in all_ops(program) for body in op.bodies)]


def _is_maximum(view: View, ref: Operand, depth: int = 5) -> bool:
    """Whether `ref` is a maximum over an axis, at most `depth` steps before."""
    op = view.producer(ref)
    if op is None or depth == 0:
        return False
    return op.name == "reduce_max" or any(_is_maximum(view, operand, depth - 1) for operand in op.inputs)


# --- dropout -----------------------------------------------------------------------------------------------------


def _check_rate(rate: float) -> float:
    """Raises `ValueError` unless `rate` leaves something."""
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be in [0, 1), got {rate!r}.")
    return rate


def _dropout_edits(program: Program, rate: float | Callable[[float], float]) -> Edits:
    """Draws each mask, and scales what it keeps, with another rate."""
    edits: dict[int, Edit] = {}
    for dropout in find_dropouts(program):
        new = _check_rate(rate(dropout.rate) if callable(rate) else rate)
        edits[dropout.compare.outputs[0]] = _set_operand(dropout.compare, dropout.threshold, _threshold(dropout, new))
        if dropout.scale is not None:
            edits[dropout.scale.outputs[0]] = _set_operand(dropout.scale, dropout.factor, _factor(dropout, new))
    return edits


def _threshold(dropout: Dropout, rate: float) -> float:
    """What the uniform numbers are compared with."""
    return rate if dropout.is_rate else 1 - rate


def _factor(dropout: Dropout, rate: float) -> float:
    """What scales the entries that are kept."""
    is_division = dropout.scale is not None and dropout.scale.name == "div" and dropout.factor == 1
    return 1 - rate if is_division else 1 / (1 - rate)


OPERATIONS: dict[str, Callable[[Any, Any], Array]] = {
    "div": jnp.divide,
    "mul": jnp.multiply,
    "lt": jnp.less,
    "le": jnp.less_equal,
    "gt": jnp.greater,
    "ge": jnp.greater_equal,
}


def _set_operand(op: Op, index: int, number: float) -> Edit:
    """Computes `op` again with a number in place of one operand."""

    def apply(value: Array, read: Reader, _slot: None) -> tuple[Array, None]:
        """The value to go on with."""
        operands = [read(ref) for ref in op.inputs]
        operands[index] = jnp.asarray(number, jnp.result_type(operands[index]))
        return OPERATIONS[op.name](*operands).astype(value.dtype), None

    return Edit(apply)
