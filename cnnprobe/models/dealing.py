"""Parameters for other seeds of a network that does not tell how it was initialised."""

import jax
import jax.numpy as jnp

from cnnprobe.types import Key, Params


def own_or_dealt(key: Key, own: Params) -> Params:
    """The network's own parameters for key 0; for any other key the entries of each array, dealt anew."""
    return own_for_key_zero(key, own, _deal(key, own))


def own_for_key_zero(key: Key, own: Params, others: Params) -> Params:
    """`own` where `key` is `jax.random.key(0)`, else `others`."""
    is_zero = jnp.array_equal(jax.random.key_data(key), jax.random.key_data(jax.random.key(0)))
    return jax.tree.map(lambda first, second: jnp.where(is_zero, first, second), own, others)


def _deal(key: Key, params: Params) -> Params:
    """Permutes the entries within each array."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, max(len(leaves), 1))
    dealt = [jax.random.permutation(k, leaf.ravel()).reshape(leaf.shape) for k, leaf in zip(keys, leaves, strict=False)]
    return jax.tree.unflatten(structure, dealt)
