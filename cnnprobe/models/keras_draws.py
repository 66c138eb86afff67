"""New starting weights for a Keras model, drawn by the initializers that its layers hold."""

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from cnnprobe.types import Key

if TYPE_CHECKING:
    import keras

Draw: TypeAlias = Callable[[Key], Array]


def find_draws(model: "keras.Model") -> list[Draw | None]:
    """What draws each trainable variable anew; None where no initializer of its layer gives its present value.

    An initializer gives the same values each time, so the one that made a variable can be told by what it gives, and a
    variable that was loaded or trained since is told from one that was not.
    """
    owners = {id(variable): layer for layer in model._flatten_layers() for variable in _own_variables(layer)}
    return [_find_draw(owners.get(id(variable), model), variable) for variable in model.trainable_variables]


def _own_variables(layer: "keras.Layer") -> list["keras.Variable"]:
    """The variables of a layer that are not those of a layer inside."""
    inside = {id(variable) for each in layer._flatten_layers(include_self=False) for variable in each.weights}
    return [variable for variable in layer.weights if id(variable) not in inside]


def _find_draw(layer: "keras.Layer", variable: "keras.Variable") -> Draw | None:
    """What draws one variable of `layer`."""
    for initializer in _initializers(layer, variable.name):
        if _gives(initializer, variable):
            return _draw_by(initializer, variable)
    return None


def _initializers(layer: "keras.Layer", name: str) -> Iterator[Any]:
    """The initializers that a layer holds and that give the same each time, the likeliest first."""
    import keras

    held = sorted(vars(layer).items(), key=lambda item: item[0].strip("_") != f"{name}_initializer")
    for _, value in held:
        if isinstance(value, keras.Initializer) and isinstance(getattr(value, "seed", 0), int):
            yield value


def _gives(initializer: Any, variable: "keras.Variable") -> bool:
    """Whether the initializer gives the variable's value."""
    try:
        values = initializer(variable.shape, dtype=variable.dtype)
    except (ValueError, TypeError):  # it is for another shape
        return False
    return np.array_equal(np.asarray(values), np.asarray(variable.value))


def _draw_by(initializer: Any, variable: "keras.Variable") -> Draw:
    """Draws with a seed from a key what `initializer` draws with its own."""
    import keras

    shape, dtype = variable.shape, variable.dtype
    generator = keras.random.SeedGenerator(0)
    seeded = copy.copy(initializer)
    seeded.seed = generator

    def draw(key: Key) -> Array:
        """The values for one key; those of a constant are the same for all."""
        seed = jax.random.bits(key, (2,), jnp.uint32)
        with keras.StatelessScope(state_mapping=[(generator.state, seed)]):
            return seeded(shape, dtype=dtype)

    return draw
