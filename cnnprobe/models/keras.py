"""Keras 3 models on the JAX backend as models."""

import inspect
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from cnnprobe.models.dealing import own_for_key_zero
from cnnprobe.models.keras_draws import Draw, find_draws
from cnnprobe.models.nesting import distinct_names, flatten_names, nest
from cnnprobe.types import Images, Key, Model, Outputs, Params, State

if TYPE_CHECKING:
    import keras

SEED_NAME = "seed_generator_state"  # of the variable that a layer's random numbers start from


class WithPenalty(NamedTuple):
    """What a model with losses of its own returns."""

    outputs: Outputs
    penalty: Float[Array, ""]  # sum of regularisers and `add_loss`


class KerasParts(NamedTuple):
    """A built model as it was when it was handed over."""

    model: "keras.Model"
    params: dict[str, Array]  # by name, in the order of `model.trainable_variables`
    draws: list[Draw | None]  # what draws each of them anew; None: nothing does
    state: dict[str, Array]  # by name, in the order of `model.non_trainable_variables`; seeds are left out
    is_seed: list[bool]  # of each of `model.non_trainable_variables`


def from_keras(model: "keras.Model | Callable[[], keras.Model]") -> Model:
    """A Keras 3 model on the JAX backend, or a function `() -> model` of one, as a model.

    - Trainable variables are the parameters, under their paths (`conv2d/kernel`). The others are the state, frozen
      weights among them. The model is built where it is not yet, and otherwise never changed.
    - `training=` tells the mode, as `fit` and `evaluate` tell it. The seeds of dropout and augmentation layers are
      drawn from the step's key.
    - Key 0 gives the weights that the model has when it is handed over. Any other key draws each trained variable anew
      by the initializer that its layer holds, if that is what made its value. A variable that was loaded or trained
      since keeps its value for every key, as does one whose layer does not keep the initializer.
    - A model with regularisers or `add_loss` returns `WithPenalty(outputs, penalty)`, with their sum.

    Raises:
      ValueError: `model` is neither, the function does not return a model, or Keras runs on another backend.
      ImportError: keras is not installed.
    """
    built = made_by_keras(model)
    parts: list[KerasParts] = [take_apart(built)] if is_built(built) else []

    def find_parts(images: Images) -> KerasParts:
        """The parts, for which some models have to see images first."""
        if not parts:
            with jax.ensure_compile_time_eval():
                built(np.zeros((1, *jnp.shape(images)[1:]), jnp.result_type(images)))
                parts.append(take_apart(built))
        return parts[0]

    return model_of(find_parts)


def model_of(find_parts: Callable[[Images], KerasParts]) -> Model:
    """The model of parts that are found when images are there."""

    def init(key: Key, images: Images) -> tuple[Params, State]:
        """The model's weights, or new draws of them."""
        return _init(find_parts(images), key)

    def apply(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Outputs, State]:
        """The model's outputs and what it wrote."""
        return _apply(find_parts(images), params, state, images, key=key, train=train)

    return Model(init, apply)


def import_keras() -> Any:
    """The library, on the JAX backend."""
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        import keras
    except ImportError as error:
        raise ImportError('Keras models need keras: pip install "cnnprobe[keras]"') from error
    backend = keras.backend.backend()
    if backend != "jax":
        raise ValueError(
            f"keras must run on the backend 'jax', got {backend!r}: "
            "set the environment variable KERAS_BACKEND=jax before keras is imported."
        )
    return keras


def made_by_keras(model: Any) -> "keras.Model":
    """The model, or what the function makes; raises `ValueError` for anything else."""
    keras = import_keras()
    if isinstance(model, keras.Model):
        return model
    if isinstance(model, keras.Layer):
        raise ValueError(f"model must be a keras.Model, got the layer {model!r}.")
    if not callable(model):
        raise ValueError(f"model must be a keras.Model or a function that makes one, got {model!r}.")
    made = model()
    if not isinstance(made, keras.Model):
        raise ValueError(f"model must be a keras.Model or a function that makes one, got one of {type(made).__name__}.")
    return made


def is_built(model: "keras.Model") -> bool:
    """Whether all variables exist."""
    return all(layer.built for layer in model._flatten_layers())


def take_apart(model: "keras.Model") -> KerasParts:
    """The variables of a built model, copied, since `fit` gives their memory away."""
    trained = model.trainable_variables
    is_seed = [variable.name == SEED_NAME for variable in model.non_trainable_variables]
    carried = [v for v, seed in zip(model.non_trainable_variables, is_seed, strict=True) if not seed]
    names = distinct_names(_paths(model.name, [*trained, *carried]))
    values = {name: jnp.array(v.value, copy=True) for name, v in zip(names, [*trained, *carried], strict=True)}
    params = {name: values[name] for name in names[: len(trained)]}
    state = {name: values[name] for name in names[len(trained) :]}
    return KerasParts(model, params, find_draws(model), state, is_seed)


def _paths(model_name: str, variables: list["keras.Variable"]) -> list[str]:
    """Paths of variables, without the name of the model itself."""
    return [variable.path.removeprefix(f"{model_name}/") for variable in variables]


def _init(parts: KerasParts, key: Key) -> tuple[Params, State]:
    """The model's own weights for key 0, drawn anew for any other key where that can be done."""
    keys = jax.random.split(key, max(len(parts.draws), 1))
    drawn = {
        name: own if draw is None else draw(each)
        for (name, own), draw, each in zip(parts.params.items(), parts.draws, keys, strict=False)
    }
    return own_for_key_zero(key, nest(parts.params), nest(drawn)), nest(parts.state)


def _apply(
    parts: KerasParts, params: Params, state: State, images: Images, *, key: Key, train: bool
) -> tuple[Outputs, State]:
    """Runs the model on other values of its variables, as Keras' own training does."""
    model = parts.model
    outputs, written, losses = model.stateless_call(
        in_order(parts.params, params),
        _with_seeds(parts, state, key),
        jnp.asarray(images),
        return_losses=True,
        **({"training": train} if "training" in inspect.signature(model.call).parameters else {}),
    )
    if losses:
        outputs = WithPenalty(outputs, jnp.sum(jnp.stack([jnp.sum(jnp.asarray(loss, jnp.float32)) for loss in losses])))
    values = [value for value, seed in zip(written, parts.is_seed, strict=True) if not seed]
    return outputs, nest(dict(zip(parts.state, values, strict=True))) if train else state


def in_order(names: Iterable[str], tree: PyTree[Array]) -> list[Array]:
    """The leaves of a tree in the order of `names`."""
    flat = flatten_names(tree)
    return [flat[name] for name in names]


def _with_seeds(parts: KerasParts, state: State, key: Key) -> list[Array]:
    """The values of all variables that are not trained, each seed drawn from `key`."""
    values, keys = iter(in_order(parts.state, state)), iter(jax.random.split(key, len(parts.is_seed) + 1))
    return [jax.random.bits(next(keys), (2,), jnp.uint32) if seed else next(values) for seed in parts.is_seed]
