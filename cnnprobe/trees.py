"""Trees of arrays: lifting a function over leaves, and the name of each leaf."""

import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Shaped

T = TypeVar("T")
SMALL = 2**16  # entries: up to here sums that are made one entry after the other are exact enough


def leaf_name(path: tuple) -> str:
    """The path of a leaf as people write it: `conv1/kernel`, `layers/2/bias`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def is_floating(leaf: Any) -> bool:
    """Whether a leaf holds floating-point numbers; whole numbers and random keys are none.

    >>> is_floating(jnp.zeros(2, jnp.bfloat16)), is_floating(jnp.arange(2)), is_floating(jax.random.key(0))
    (True, False, False)
    """
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))


def per_layer(fn: Callable[..., T], tree: PyTree, *rest: PyTree) -> dict[str, T]:
    """Applies `fn` to every leaf, keyed by the leaf's path.

    `rest` holds trees of the same structure, whose leaves become further arguments: `per_layer(update_ratio, updates,
    params)`.

    Raises:
      ValueError: a tree of `rest` has another structure.

    >>> per_layer(lambda x: x.shape, {"conv": {"kernel": jnp.zeros((3, 3))}})
    {'conv/kernel': (3, 3)}
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    structure: Any = jax.tree.structure(tree)
    others = [structure.flatten_up_to(other) for other in rest]
    return {leaf_name(path): fn(leaf, *extra) for (path, leaf), *extra in zip(leaves, *others, strict=True)}


def tree_sum_of_squares(tree: PyTree) -> Float[Array, ""]:
    """Sum of the squares of all entries, in float32."""
    squares = (jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree))
    return sum(squares, start=jnp.float32(0))


def joint_sums(terms: Sequence[Shaped[Array, "..."]]) -> Float[Array, " terms"]:
    """The sum of each of several arrays of one shape, in float32.

    XLA compiles a kernel for every reduction, which for the many small arrays of a network costs more than their sums
    are worth: they are summed together in one pass, exact to 1e-4. Of large arrays each has a fast pass of its own.
    """
    wide = tuple(term.astype(jnp.float32).ravel() for term in terms)
    if wide[0].size > SMALL:
        return jnp.stack([jnp.sum(term) for term in wide])
    zeros = (jnp.float32(0),) * len(wide)
    return jnp.stack(jax.lax.reduce(wide, zeros, lambda a, b: tuple(map(operator.add, a, b)), (0,)))


def leaf_sums(terms: Callable[..., Sequence[Array]], tree: PyTree, *rest: PyTree) -> Float[Array, "terms leaves"]:
    """The sums of what `terms` makes of each leaf, in float32, and of the leaves beside it in the other trees."""
    pairs = zip(*map(jax.tree.leaves, (tree, *rest)), strict=True)
    columns = [joint_sums(terms(*(leaf.astype(jnp.float32) for leaf in leaves))) for leaves in pairs]
    return jnp.stack(columns, axis=1)


def tree_size(tree: PyTree) -> int:
    """Number of entries of all leaves."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
