"""Trees of arrays seen as one long vector: length, angle, and whether two of them match."""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from cnnprobe.checks import check_numbers
from cnnprobe.trees import leaf_name, tree_sum_of_squares
from cnnprobe.types import AnyArray

Vector: TypeAlias = PyTree[Float[AnyArray, "..."]]  # an array, or a tree of them


def check_tree(name: str, tree: Vector) -> None:
    """Raises `ValueError` unless every leaf is an array of real numbers."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: leaf is None)[0]:
        check_numbers(f"{name} at {leaf_name(path)!r}" if path else name, leaf)


def check_same_shapes(name: str, tree: PyTree, other_name: str, other: PyTree) -> None:
    """Raises `ValueError` unless both trees have the same structure, and leaves of the same shapes."""
    mine, theirs = (str(jax.tree.structure(each)) for each in (tree, other))
    if mine != theirs:
        raise ValueError(f"{name} and {other_name} must have the same structure, got {mine} and {theirs}.")
    check_tree(name, tree)
    check_tree(other_name, other)
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    for (path, leaf), partner in zip(leaves, jax.tree.leaves(other), strict=True):
        if np.shape(leaf) != np.shape(partner):
            place = f" at {leaf_name(path)!r}" if path else ""
            shapes = f"{np.shape(leaf)} and {np.shape(partner)}"
            raise ValueError(f"{name} and {other_name} must have the same shapes, got {shapes}{place}.")


def tree_dot(tree: Vector, other: Vector) -> Float[Array, ""]:
    """Inner product over all entries of both, in float32."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    # A sum of products and not `jnp.vdot`, which accelerators compute with fewer bits.
    return sum((jnp.sum(_float32(a) * _float32(b)) for a, b in pairs), start=jnp.float32(0))


def tree_norm(tree: Vector) -> Float[Array, ""]:
    """Euclidean length over all entries, in float32; NaN or infinite where an entry is."""
    scale = _scale(tree)
    return scale * jnp.sqrt(tree_sum_of_squares(_divide(tree, scale)))


def tree_cosine(tree: Vector, other: Vector) -> Float[Array, ""]:
    """Cosine of the angle between two vectors: 0 where one of them is all zeros, NaN where an entry is not finite."""
    a, b = _divide(tree, _scale(tree)), _divide(other, _scale(other))
    lengths = jnp.sqrt(tree_sum_of_squares(a) * tree_sum_of_squares(b))
    cosine = tree_dot(a, b) / jnp.where(lengths == 0, 1, lengths)
    return jnp.clip(cosine, -1, 1)  # rounding may pass the end of the range


def _float32(leaf: Float[AnyArray, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.asarray(leaf).astype(jnp.float32)


def _scale(tree: Vector) -> Float[Array, ""]:
    """The largest entry's size; squares of entries divided by it stay within float32."""
    peak = jnp.float32(0)
    for leaf in jax.tree.leaves(tree):
        peak = jnp.maximum(peak, jnp.max(jnp.abs(_float32(leaf)), initial=0))
    # Within these ends neither the scale nor its reciprocal is rounded to 0 or infinity.
    return jnp.clip(peak, 1e-37, 1e37)


def _divide(tree: Vector, scale: Float[Array, ""]) -> Vector:
    return jax.tree.map(lambda leaf: _float32(leaf) / scale, tree)
