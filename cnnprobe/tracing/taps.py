"""Readings of every layer, forward and backward, of an unedited function.

`tap` and `value_and_grad` trace the function, find its layers by the parameters that they use, and run the same program
with readings inserted behind each layer. The readings of an activation's gradient come out as the gradient by a slot of
zeros: a `sink` is the identity whose backward pass hands the statistic to the slot.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from cnnprobe.checks import check_callable, check_integer, check_optional
from cnnprobe.tracing.axes import Axes
from cnnprobe.tracing.calls import Call, is_array, is_number, trace_call
from cnnprobe.tracing.interpret import Edit, Reader, evaluate
from cnnprobe.tracing.layers import Layer, Structure, find_structure
from cnnprobe.tracing.pools import pool_edits
from cnnprobe.tracing.readings import LayerLayout, Layout, Readings, pack, row_size
from cnnprobe.trees import leaf_name


def tap(
    fn: Callable, *, params_argnum: int = 0, when: Bool[ArrayLike, ""] | None = None, num_examples: int | None = None
) -> Callable[..., tuple[Any, Readings]]:
    """Makes a function that returns `(fn(...), readings)`: the forward readings of every layer.

    The argument at `params_argnum` holds the parameters, from which layers get their names; numbers, strings and
    functions among the arguments stay what they are. Use it inside `jax.jit`, as one uses `jax.grad`.

    `when` says whether anything is read, and may be traced: `step % 16 == 0`. Where it is False nothing is computed,
    and the readings are those of an empty batch. None: always.

    `num_examples` reads so many entries along the first axis of each layer's output that is no axis of its units: the
    first examples of the batch, or all where there are fewer. None: all.

    Raises:
      ValueError: `when` is no single truth value, or `num_examples` is below one; on the call, if `fn` has no layer
        with parameters from that argument, or returns no array.
      RuntimeError: on the call, if this version of jax is unknown.

    >>> out, readings = tap(lambda w, x: jax.nn.relu(x @ w))(jnp.eye(3), jnp.ones((2, 3)))
    >>> [layer.activation for layer in readings.layout.layers]
    ['relu']
    """
    check_callable("fn", fn)
    _check_when(when)
    check_optional(check_integer, "num_examples", num_examples, 1)

    @functools.wraps(fn)
    def tapped(*args: Any, **kwargs: Any) -> tuple[Any, Readings]:
        """The function with readings as one more result."""
        call = trace_call(fn, args, kwargs, [params_argnum], option="params_argnum")
        _check_returns("fn must return at least one array", call)
        structure = _structure(call)
        outputs, rows = evaluate(call.program, call.inputs, _edits(structure.layers, when, num_examples), {})
        return call.rebuild(outputs), _readings(structure, rows, {})

    return tapped


def value_and_grad(
    loss_fn: Callable,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    *,
    backward: bool = True,
    when: Bool[ArrayLike, ""] | None = None,
    num_examples: int | None = None,
) -> Callable[..., tuple[Any, Any, Readings]]:
    """Like `jax.value_and_grad`, with the readings of every layer as one more value.

    Returns `(value, grads, readings)`, or `((value, aux), grads, readings)` with `has_aux`. Value and gradients are
    those of `loss_fn`. With `backward=False` the gradients of activations are not read. `when` and `num_examples` are
    those of `tap`.

    Raises:
      ValueError: `argnums` names no arguments, `when` is no single truth value, or `num_examples` is below one; on the
        call, if the loss is no scalar, if a parameter is not a floating-point array, or if `loss_fn` has no layer with
        parameters from the arguments at `argnums`.
      RuntimeError: on the call, if this version of jax is unknown.

    >>> loss, grads, readings = value_and_grad(lambda w, x: jnp.sum(x @ w))(jnp.eye(3), jnp.ones((2, 3)))
    >>> float(loss), grads.shape
    (6.0, (3, 3))
    """
    check_callable("loss_fn", loss_fn)
    positions = _positions(argnums)
    _check_when(when)
    check_optional(check_integer, "num_examples", num_examples, 1)

    @functools.wraps(loss_fn)
    def tapped(*args: Any, **kwargs: Any) -> tuple[Any, Any, Readings]:
        """The function with readings as one more result."""
        call = trace_call(loss_fn, args, kwargs, positions)
        _check_returns("loss_fn must return a floating-point scalar", call)
        structure = _structure(call)
        owned = _parameter_inputs(call, args, positions)
        edits = {**pool_edits(call.program), **_edits(structure.layers, when, num_examples)}
        slots = _slots(structure.layers) if backward else {}

        def run(trained: list[Any], slots: dict[int, Array]) -> tuple[Any, tuple]:
            """The program with other parameters and slots."""
            inputs = list(call.inputs)
            for index, leaf in zip(owned, trained, strict=True):
                inputs[index] = leaf
            outputs, rows = evaluate(call.program, inputs, edits, slots)
            value, aux = _split_loss(call.rebuild(outputs), has_aux)
            return value, (aux, rows)

        trained = [jnp.asarray(call.inputs[index]) for index in owned]
        (value, (aux, rows)), (leaves, gradients) = jax.value_and_grad(run, (0, 1), has_aux=True)(trained, slots)
        grads = _rebuild_grads(call, args, positions, dict(zip(owned, leaves, strict=True)), isinstance(argnums, int))
        return (value, aux) if has_aux else value, grads, _readings(structure, rows, gradients)

    return tapped


def _positions(argnums: Any) -> list[int]:
    """`argnums` as a list."""
    positions = [argnums] if isinstance(argnums, int) else argnums
    if not isinstance(positions, Sequence) or not positions or not all(isinstance(number, int) for number in positions):
        raise ValueError(f"argnums must be a whole number or a sequence of them, got {argnums!r}.")
    return list(positions)


def _check_when(when: Any) -> None:
    """Raises `ValueError` unless `when` is None or one truth value."""
    is_array_like = isinstance(when, bool | np.bool_ | np.ndarray | jax.Array)
    if when is not None and not (is_array_like and jnp.shape(when) == () and jnp.result_type(when) == jnp.bool_):
        got = f"{when.dtype} of shape {when.shape}" if isinstance(when, np.ndarray | jax.Array) else repr(when)
        raise ValueError(f"when must be None or a boolean scalar, got {got}.")


def _check_returns(rule: str, call: Call) -> None:
    """Raises `ValueError` if the function returned no array."""
    if not call.program.outputs:
        raise ValueError(f"{rule}, got {call.rebuild([])!r}.")


def _structure(call: Call) -> Structure:
    """The layers of a call."""
    structure = find_structure(call.program, call.origins)
    if not structure.layers:
        paths = sorted(path for origin in call.origins for path in origin.params)
        raise ValueError(
            "fn must have a convolution or matrix product of data with parameters that are an argument, got none; "
            f"parameters: {paths[:8]}, skipped: {list(structure.skipped)}."
        )
    return structure


def _parameter_inputs(call: Call, args: tuple, positions: Sequence[int]) -> list[int]:
    """Numbers of the inputs that are differentiated; each leaf of their arguments must be one."""
    argnums = {position % len(args) for position in positions}
    for position in sorted(argnums):
        for path, leaf in jax.tree_util.tree_flatten_with_path(args[position])[0]:
            if not _is_floating(leaf):
                got = leaf.dtype if is_array(leaf) else repr(leaf)
                name = leaf_name(path) or f"argument {position}"
                raise ValueError(
                    f"parameters must be floating-point arrays, got {got} for {name}; "
                    "what is not trained belongs in another argument."
                )
    return [index for index, owner in enumerate(call.owners) if owner in argnums]


def _is_floating(leaf: Any) -> bool:
    """Whether one can differentiate by a leaf."""
    return (is_array(leaf) or is_number(leaf)) and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def _split_loss(result: Any, has_aux: bool) -> tuple[Any, Any]:
    """Checks what a loss function returned."""
    if has_aux and not (isinstance(result, tuple) and len(result) == 2):
        raise ValueError(f"loss_fn must return (loss, aux) with has_aux=True, got {type(result).__name__}.")
    value, aux = result if has_aux else (result, None)
    if not isinstance(value, jax.Array) or value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        got = f"shape {np.shape(value)}, {value.dtype}" if isinstance(value, jax.Array) else f"a {type(value).__name__}"
        raise ValueError(f"loss_fn must return a floating-point scalar, got {got}.")
    return value, aux


def _rebuild_grads(call: Call, args: tuple, positions: Sequence[int], grads: dict[int, Any], is_single: bool) -> Any:
    """Gradients in the trees of the arguments."""
    trees = []
    for position in (position % len(args) for position in positions):
        leaves = [grad for index, grad in grads.items() if call.owners[index] == position]
        trees.append(jax.tree.unflatten(jax.tree.structure(args[position]), leaves))
    return trees[0] if is_single else tuple(trees)


# --- one reading -------------------------------------------------------------------------------------------------


def _edits(layers: Sequence[Layer], when: Bool[ArrayLike, ""] | None, num_examples: int | None) -> dict[int, Edit]:
    """One reading for each measured value; layers that end in the same value share it."""
    return {
        layer.output.value: Edit(
            functools.partial(_read_value, layer.output.axes, num_examples, when),
            frozenset(loop for loop, _ in layer.scans),
            functools.partial(_fold_rows, layer.num_features),
            functools.partial(_empty_row, layer.num_features),
        )
        for layer in layers
    }


def _slots(layers: Sequence[Layer]) -> dict[int, Array]:
    """Zeros by which the loss is differentiated: their gradients are the backward readings."""
    return {
        layer.output.value: jnp.zeros((*(length for _, length in layer.scans), layer.num_features)) for layer in layers
    }


def _read_value(
    axes: Axes, num_examples: int | None, when: Bool[ArrayLike, ""] | None, x: Array, _read: Reader, slot: Array | None
) -> tuple[Array, Array]:
    """Reads one value on its way."""
    num_features = math.prod(x.shape[axis] for axis in axes)
    empty = functools.partial(_empty_row, num_features, (row_size(num_features),))
    forward = functools.partial(forward_row, axes=axes, num_examples=num_examples)
    row = _read_if(when, forward, empty, jax.lax.stop_gradient(x))
    return x if slot is None else sink(axes, num_examples, x, slot, when), row


def _read_if(
    when: Bool[ArrayLike, ""] | None, read: Callable[[Array], Array], empty: Callable[[], Array], x: Array
) -> Array:
    """What `read` makes of `x`, or `empty()` where `when` is false.

    The branch stands where the value is: one at the end of the step would keep every activation alive until then.
    """
    return read(x) if when is None else jax.lax.cond(when, read, lambda _: empty(), x)


def forward_row(x: Float[Array, "..."], axes: Axes, num_examples: int | None = None) -> Float[Array, " entries"]:
    """Count, then sum, sum of squares, sum of signs and maximum of each unit, in float32.

    These and no others, because XLA has fast kernels for plain sums and maxima over leading axes; a comparison with a
    cast would be a slow pass of its own. bfloat16 sums would be wrong, so the reduction is in float32.
    """
    others = _other_axes(x, axes)
    x = _first_examples(x, others, num_examples).astype(jnp.float32)
    count = math.prod(x.shape[axis] for axis in others)
    maximum = jnp.max(x, others, initial=-jnp.inf)
    fields = (jnp.sum(x, others), jnp.sum(x * x, others), jnp.sum(jnp.sign(x), others), maximum)
    return jnp.concatenate([jnp.full(1, count, jnp.float32), *(field.ravel() for field in fields)])


def _other_axes(x: Array, axes: Axes) -> Axes:
    """The axes that are reduced: examples and places."""
    return tuple(axis for axis in range(x.ndim) if axis not in axes)


def _first_examples(x: Array, others: Axes, num_examples: int | None) -> Array:
    """So many entries along the first of the reduced axes, or all."""
    if num_examples is None or not others:
        return x
    return jax.lax.slice_in_dim(x, 0, min(num_examples, x.shape[others[0]]), axis=others[0])


def _fold_rows(num_features: int, rows: Float[Array, "turns ..."]) -> Float[Array, "..."]:
    """Merges the rows of several turns of a loop."""
    return jnp.concatenate([rows[..., :-num_features].sum(0), rows[..., -num_features:].max(0)], axis=-1)


def _empty_row(num_features: int, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """The row of no activations."""
    return jnp.zeros(shape).at[..., shape[-1] - num_features :].set(-jnp.inf)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def sink(
    _axes: Axes,
    _num_examples: int | None,
    x: Array,
    _slot: Float[Array, " features"],
    _when: Bool[ArrayLike, ""] | None = None,
) -> Array:
    """Returns `x`; its derivative by `slot` is the sum of squares of the gradient by `x`, per unit; 0 unless `when`."""
    return x


def _sink_forward(
    _axes: Axes, _num_examples: int | None, x: Array, _slot: Array, when: Bool[ArrayLike, ""] | None
) -> tuple[Array, Any]:
    return x, when


def _sink_backward(
    axes: Axes, num_examples: int | None, when: Bool[ArrayLike, ""] | None, gradient: Array
) -> tuple[Array, Array, None]:
    num_features = math.prod(gradient.shape[axis] for axis in axes)
    squares = functools.partial(_sum_of_squares, axes=axes, num_examples=num_examples)
    return gradient, _read_if(when, squares, lambda: jnp.zeros(num_features), gradient), None


def _sum_of_squares(gradient: Array, axes: Axes, num_examples: int | None) -> Float[Array, " features"]:
    """Of each unit, in float32."""
    others = _other_axes(gradient, axes)
    read = _first_examples(gradient, others, num_examples).astype(jnp.float32)
    return jnp.sum(jnp.square(read), others).ravel()


sink.defvjp(_sink_forward, _sink_backward)


# --- all readings ------------------------------------------------------------------------------------------------


def _readings(structure: Structure, rows: dict[int, Array], gradients: dict[int, Array]) -> Readings:
    """Packs rows and activation gradients, and says where each layer's are."""
    starts, gradient_starts, size = {}, {}, 0
    for value, row in rows.items():
        starts[value], size = size, size + row.size
    for value, gradient in gradients.items():
        gradient_starts[value], size = size, size + gradient.size
    layers = tuple(
        LayerLayout(
            layer.name,
            layer.kind,
            layer.activation,
            layer.num_features,
            tuple(length for _, length in layer.scans),
            starts[layer.output.value],
            gradient_starts.get(layer.output.value),
        )
        for layer in structure.layers
    )
    packed = pack([*rows.values(), *gradients.values()])
    return Readings(packed, Layout(layers, structure.skipped, size))
