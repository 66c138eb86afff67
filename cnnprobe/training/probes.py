"""The readings that `fit` takes of every step, packed so that they cost one fetch."""

from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnnprobe.training.step import Observation, Probe
from cnnprobe.trees import leaf_name, leaf_sums
from cnnprobe.types import Params

LAYER_READINGS = ("gradient_norm", "gradient_zero_share", "log10_update_ratio")  # rows of `layer_readings`


def gradient_norm(seen: Observation) -> Float[Array, ""]:
    """Euclidean norm of the gradient of all parameters together."""
    return jnp.sqrt(jnp.sum(_leaf_sums(seen)[0]))


def layer_readings(seen: Observation) -> Float[Array, "readings leaves"]:
    """One column for each parameter array, in the order of `layer_names`.

    - gradient norm: Euclidean.
    - gradient zero share: fraction of entries that are exactly 0, in [0, 1].
    - log10 update ratio: of the norm of the update over that of the parameters; -inf where nothing moves, inf where
      parameters of zero do.
    """
    grad, update, param, zeros = _leaf_sums(seen)
    sizes = jnp.array([leaf.size for leaf in jax.tree.leaves(seen.params)], jnp.float32)
    # 0 / 0, a parameter of zeros that does not move, is a ratio of zero.
    ratio = jnp.where(update == 0, 0.0, jnp.sqrt(update) / jnp.sqrt(param))
    return jnp.stack([jnp.sqrt(grad), zeros / sizes, jnp.log10(ratio)])


def layer_names(params: Params) -> tuple[str, ...]:
    """The path of each parameter array: `conv1/kernel`."""
    return tuple(leaf_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0])


DEFAULT_PROBES: Mapping[str, Probe] = MappingProxyType({"gradient_norm": gradient_norm, "layers": layer_readings})


def _leaf_sums(seen: Observation) -> Float[Array, "4 leaves"]:
    """Of each parameter array: |grad|^2, |update|^2, |param|^2, exact zeros in grad.

    All probes ask for the same sums, so that they are computed once.
    """

    def terms(grad: Array, update: Array, param: Array) -> list[Array]:
        """Of one array."""
        return [grad * grad, update * update, param * param, grad == 0]

    return leaf_sums(terms, seen.grads, seen.updates, seen.params)
