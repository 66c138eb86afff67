import jax
import jax.numpy as jnp
import numpy as np

from cnnprobe.models.dealing import own_for_key_zero, own_or_dealt

OWN = {"kernel": jnp.arange(12.0).reshape(3, 4), "bias": jnp.zeros(4)}


def test_key_zero_keeps_the_own_values():
    np.testing.assert_array_equal(own_or_dealt(jax.random.key(0), OWN)["kernel"], OWN["kernel"])


def test_any_other_key_deals_each_array():
    dealt = jax.jit(own_or_dealt)(jax.random.key(1), OWN)["kernel"]
    assert not np.array_equal(dealt, OWN["kernel"])
    np.testing.assert_array_equal(np.sort(dealt, axis=None), np.arange(12.0))


def test_others_stand_for_other_keys():
    others = jax.tree.map(lambda leaf: leaf + 1, OWN)
    assert float(own_for_key_zero(jax.random.key(0), OWN, others)["bias"][0]) == 0
    assert float(own_for_key_zero(jax.random.key(9), OWN, others)["bias"][0]) == 1
