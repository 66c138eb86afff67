"""The readings that `fit` takes of every step, packed so that they cost one fetch."""

from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnnprobe.training.step import Observation, Probe
from cnnprobe.trees import leaf_name, tree_sum_of_squares
from cnnprobe.types import Params

LAYER_READINGS = ("gradient_norm", "gradient_zero_share", "log10_update_ratio")  # rows of `layer_readings`


def gradient_norm(seen: Observation) -> Float[Array, ""]:
    """Euclidean norm of the gradient of all parameters together."""
    return jnp.sqrt(tree_sum_of_squares(seen.grads))


def layer_readings(seen: Observation) -> Float[Array, "readings leaves"]:
    """One column for each parameter array, in the order of `layer_names`.

    - gradient norm: Euclidean.
    - gradient zero share: fraction of entries that are exactly 0, in [0, 1].
    - log10 update ratio: of the norm of the update over that of the parameters; -inf where nothing moves, inf where
      parameters of zero do.
    """
    trees = (jax.tree.leaves(tree) for tree in (seen.grads, seen.updates, seen.params))
    return jnp.stack([_readings_of(*leaves) for leaves in zip(*trees, strict=True)], axis=1)


def layer_names(params: Params) -> tuple[str, ...]:
    """The path of each parameter array: `conv1/kernel`."""
    return tuple(leaf_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0])


DEFAULT_PROBES: Mapping[str, Probe] = MappingProxyType({"gradient_norm": gradient_norm, "layers": layer_readings})


def _readings_of(grad: Array, update: Array, param: Array) -> Float[Array, " readings"]:
    """The column of one parameter array."""
    update_norm, param_norm = (jnp.sqrt(tree_sum_of_squares(x)) for x in (update, param))
    # 0 / 0, a parameter of zeros that does not move, is a ratio of zero.
    ratio = jnp.where(update_norm == 0, 0.0, update_norm / param_norm)
    return jnp.stack([jnp.sqrt(tree_sum_of_squares(grad)), jnp.mean(grad == 0, dtype=jnp.float32), jnp.log10(ratio)])
