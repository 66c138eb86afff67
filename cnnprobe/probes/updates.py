"""Updates: whether the optimizer moves the parameters, how far, and down the hill.

Pure functions of what the optimizer returned, whichever it is. Each takes an array or a whole tree, so
`per_layer(update_ratio, updates, params)` reads every layer and `update_ratio(updates, params)` the network.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from cnnprobe.checks import check_at_least
from cnnprobe.probes.vectors import Vector, check_same_shapes, check_tree, tree_cosine, tree_norm
from cnnprobe.trees import tree_size
from cnnprobe.types import AnyArray


def update_ratio(update: Vector, param: Vector) -> Float[Array, ""]:
    """Norm of the update over the norm of the parameters: the share of themselves by which they move.

    Infinite where parameters of 0 move, as biases do in their first step; 0 where nothing moves.

    Raises:
      ValueError: the two have other structures or shapes.
    """
    check_same_shapes("update", update, "param", param)
    update_norm, param_norm = tree_norm(update), tree_norm(param)
    # The quotient of two zeros is a layer that stays where it is.
    return jnp.where(update_norm == 0, 0, update_norm / param_norm)


def log10_update_ratio(update: Vector, param: Vector) -> Float[Array, ""]:
    """Decimal logarithm of `update_ratio`: about -3 in a healthy layer, -inf where nothing moves.

    >>> log10_update_ratio(jnp.array([0.3, 0.4]), jnp.array([30.0, 40.0])).round(3).item()
    -2.0
    """
    return jnp.log10(update_ratio(update, param))


def update_cosine(updates: Vector, grads: Vector) -> Float[Array, ""]:
    """Cosine of the angle between the update and the negative gradient, over all entries of both trees.

    1 for plain gradient descent, about .5 for the first steps of Adam, negative where the optimizer climbs; 0 where
    nothing moves, and NaN where an entry is not finite.

    Raises:
      ValueError: the trees have other structures or shapes.
    """
    check_same_shapes("updates", updates, "grads", grads)
    return -tree_cosine(updates, grads)


def moved_share(before: Vector, after: Vector) -> Float[Array, ""]:
    """Share of parameters that differ between two trees, in [0, 1]; one that is NaN has moved.

    Raises:
      ValueError: the trees have other structures or shapes.
    """
    check_same_shapes("before", before, "after", after)
    return _share(jax.tree.map(lambda old, new: jnp.asarray(old) != jnp.asarray(new), before, after))


def sign_update_share(update: Vector, learning_rate: float | Float[Array, ""]) -> Float[Array, ""]:
    """Share of entries whose size is the learning rate within 1 %, in [0, 1].

    Near 1 in the first step of Adam and of its kin, which follow the gradient's sign there. Near 1 after step 10, the
    optimizer's state is not carried from step to step. 0 at a learning rate of 0.

    Raises:
      ValueError: `learning_rate` is below 0 or not one number.
    """
    if isinstance(learning_rate, int | float | np.number):
        check_at_least("learning_rate", learning_rate, 0)
    if np.shape(learning_rate) != ():
        raise ValueError(f"learning_rate must be one number, got shape {np.shape(learning_rate)}.")
    check_tree("update", update)
    return _share(jax.tree.map(lambda leaf: jnp.abs(_relative(leaf, learning_rate) - 1) < 0.01, update))


def _relative(leaf: Float[AnyArray, "..."], learning_rate: float | Float[Array, ""]) -> Float[Array, "..."]:
    """Size of each entry in units of the learning rate."""
    return jnp.abs(jnp.asarray(leaf).astype(jnp.float32)) / learning_rate


def _share(marks: PyTree[Bool[Array, "..."]]) -> Float[Array, ""]:
    """Share of entries that are marked, over a tree; 0 of none."""
    counts = (jnp.sum(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(marks))
    return sum(counts, start=jnp.float32(0)) / max(tree_size(marks), 1)
