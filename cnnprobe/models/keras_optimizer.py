"""Keras optimizers as optax optimizers."""

import functools
from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from cnnprobe.models.keras import in_order
from cnnprobe.models.nesting import flatten_names
from cnnprobe.types import Params

if TYPE_CHECKING:
    import keras

Shapes: TypeAlias = tuple[tuple[str, tuple[int, ...], str], ...]  # name, shape and type of each parameter


def to_optax(optimizer: "keras.Optimizer", names: list[str]) -> optax.GradientTransformation:
    """A built Keras optimizer as an optax optimizer whose update is what `optimizer.stateless_apply` changes.

    `names` are those of the parameters, in the order of the variables that the optimizer was built for. Its state
    starts from the values that its variables have now. Parameters of other names, of a changed model, are trained by
    a copy of it that is built for them.
    """
    start = _values(optimizer)

    @functools.cache
    def copy_for(shapes: Shapes) -> "keras.Optimizer":
        """A fresh optimizer of the same settings."""
        with jax.ensure_compile_time_eval():
            return _built_copy(optimizer, shapes)

    def bound(params: Params) -> tuple["keras.Optimizer", list[str]]:
        """The optimizer of these parameters, and their names in its order."""
        flat = flatten_names(params)
        if flat.keys() == set(names):
            return optimizer, names
        return copy_for(tuple((name, jnp.shape(leaf), str(leaf.dtype)) for name, leaf in flat.items())), list(flat)

    def init(params: Params) -> list[Array]:
        """The values of the optimizer's variables."""
        own, _ = bound(params)
        return list(start) if own is optimizer else _values(own)

    def update(updates: PyTree[Array], state: list[Array], params: Params | None = None) -> tuple[Params, list[Array]]:
        """What one step adds to the parameters."""
        if params is None:
            raise ValueError("params must be given: a Keras optimizer changes them itself, got None.")
        own, order = bound(params)
        before, grads = in_order(order, params), in_order(order, updates)
        scale = _loss_scale(own, state)
        after, new_state = own.stateless_apply(state, [grad * scale.astype(grad.dtype) for grad in grads], before)
        moves = {name: new - old for name, new, old in zip(order, after, before, strict=True)}
        return jax.tree.unflatten(jax.tree.structure(params), in_order(flatten_names(params), moves)), new_state

    return optax.GradientTransformation(init, update)


def _values(optimizer: "keras.Optimizer") -> list[Array]:
    """Copies of the optimizer's variables, since `fit` gives their memory away."""
    return [jnp.array(variable.value, copy=True) for variable in optimizer.variables]


def _built_copy(optimizer: "keras.Optimizer", shapes: Shapes) -> "keras.Optimizer":
    """A new optimizer of the same settings, for variables of these shapes."""
    import keras

    copied = type(optimizer).from_config(optimizer.get_config())
    zeros = [(jnp.zeros(shape, dtype), name.replace("/", "_")) for name, shape, dtype in shapes]
    copied.build([keras.Variable(values, name=name) for values, name in zeros])
    return copied


def _loss_scale(optimizer: "keras.Optimizer", state: list[Array]) -> Float[Array, ""]:
    """What the optimizer wants the loss to be multiplied by, and takes out of the gradients again."""
    import keras

    with keras.StatelessScope(state_mapping=list(zip(optimizer.variables, state, strict=True))):
        return jnp.asarray(optimizer.scale_loss(jnp.float32(1.0)), jnp.float32)
