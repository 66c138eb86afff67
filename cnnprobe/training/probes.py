"""The readings that `fit` takes of every step, packed so that they cost one fetch."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnnprobe.training.step import Observation, Probe
from cnnprobe.trees import leaf_name, tree_sum_of_squares
from cnnprobe.types import Params

MAX_GROUPED = 2**16  # entries of an array that is copied beside others of its shape
LAYER_READINGS = ("gradient_norm", "gradient_zero_share", "log10_update_ratio")  # rows of `layer_readings`


def gradient_norm(seen: Observation) -> Float[Array, ""]:
    """Euclidean norm of the gradient of all parameters together."""
    return jnp.sqrt(jnp.sum(_by_leaf(tree_sum_of_squares, jax.tree.leaves(seen.grads))))


def layer_readings(seen: Observation) -> Float[Array, "readings leaves"]:
    """One column for each parameter array, in the order of `layer_names`.

    - gradient norm: Euclidean.
    - gradient zero share: fraction of entries that are exactly 0, in [0, 1].
    - log10 update ratio: of the norm of the update over that of the parameters; -inf where nothing moves, inf where
      parameters of zero do.
    """
    trees = [jax.tree.leaves(tree) for tree in (seen.grads, seen.updates, seen.params)]
    grad_norm, update_norm, param_norm = (jnp.sqrt(_by_leaf(tree_sum_of_squares, leaves)) for leaves in trees)
    zero_share = _by_leaf(lambda grad: jnp.mean(grad == 0, dtype=jnp.float32), trees[0])
    # 0 / 0, a parameter of zeros that does not move, is a ratio of zero.
    ratio = jnp.where(update_norm == 0, 0.0, update_norm / param_norm)
    return jnp.stack([grad_norm, zero_share, jnp.log10(ratio)])


def layer_names(params: Params) -> tuple[str, ...]:
    """The path of each parameter array: `conv1/kernel`."""
    return tuple(leaf_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0])


DEFAULT_PROBES: Mapping[str, Probe] = MappingProxyType({"gradient_norm": gradient_norm, "layers": layer_readings})


def _by_leaf(fn: Callable[[Array], Float[Array, ""]], leaves: Sequence[Array]) -> Float[Array, " leaves"]:
    """`fn` of each leaf; small leaves of one shape go through one kernel, since each kernel has to be compiled."""
    groups: dict[Any, list[int]] = {}
    for index, leaf in enumerate(leaves):
        groups.setdefault((leaf.shape, leaf.dtype) if leaf.size <= MAX_GROUPED else index, []).append(index)
    values = [jax.vmap(fn)(jnp.stack([leaves[index] for index in group])) for group in groups.values()]
    places = np.argsort([index for group in groups.values() for index in group])
    return jnp.concatenate(values)[places] if values else jnp.zeros(0)
