import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnprobe.probes.updates import log10_update_ratio, moved_share, sign_update_share, update_cosine, update_ratio
from cnnprobe.trees import per_layer

VALUES = arrays(np.float32, 6, elements=st.floats(-100, 100, width=32, allow_subnormal=False))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tree(seed, scale=1.0):
    return {"conv": {"kernel": scale * noise(3, 3, 4, seed=seed)}, "bias": scale * noise(4, seed=seed + 50)}


def flat(vector):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(vector)]).astype(np.float64)


def updates_of(optimizer, grads, num_steps, *, carry=True):
    state = optimizer.init(grads)
    for _ in range(num_steps):
        updates, new_state = optimizer.update(grads, state, grads)
        state = new_state if carry else state
        grads = jax.tree.map(lambda g: 0.9 * g + 0.05, grads)
    return updates


def test_ratio_matches_definition(variant):
    update, param = tree(0, 0.01), tree(1)
    expected = math.sqrt(sum(v * v for v in flat(update)) / sum(v * v for v in flat(param)))
    np.testing.assert_allclose(variant(update_ratio)(update, param), expected, rtol=1e-5)
    np.testing.assert_allclose(variant(log10_update_ratio)(update, param), math.log10(expected), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-28, 1e28])
def test_ratio_at_any_scale(variant, scale):
    np.testing.assert_allclose(variant(update_ratio)(tree(0, scale), tree(0, 10 * scale)), 0.1, rtol=1e-4)


@pytest.mark.parametrize(
    ("update", "param", "ratio", "log10"),
    [
        ([0.0, 0.0], [1.0, 1.0], 0, -np.inf),
        ([0.0, 0.0], [0.0, 0.0], 0, -np.inf),
        ([0.1, 0.0], [0.0, 0.0], np.inf, np.inf),
        ([np.nan, 0.0], [1.0, 1.0], np.nan, np.nan),
    ],
)
def test_ratio_at_its_edges(variant, update, param, ratio, log10):
    arguments = jnp.array(update), jnp.array(param)
    np.testing.assert_equal(float(variant(update_ratio)(*arguments)), ratio)
    np.testing.assert_equal(float(variant(log10_update_ratio)(*arguments)), log10)


def test_ratio_lifts_over_layers():
    ratios = per_layer(update_ratio, tree(0, 0.5), tree(0))
    np.testing.assert_allclose(list(ratios.values()), 0.5)
    assert set(ratios) == {"conv/kernel", "bias"}


@given(VALUES, st.floats(-4, 4, width=32))
@settings(max_examples=30, deadline=None)
def test_ratio_is_the_factor_between_the_two(param, factor):
    ratio = float(update_ratio(np.float32(factor) * param, param))
    np.testing.assert_allclose(ratio, abs(factor) if np.any(param) else 0, rtol=1e-4, atol=1e-30)


def test_cosine_matches_definition(variant):
    updates, grads = tree(0), tree(1)
    u, g = flat(updates), -flat(grads)
    expected = (u @ g) / math.sqrt((u @ u) * (g @ g))
    np.testing.assert_allclose(variant(update_cosine)(updates, grads), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("optimizer", "cosine"), [(optax.sgd(0.1), 1), (optax.sgd(-0.1), -1), (optax.set_to_zero(), 0)]
)
def test_cosine_tells_where_the_optimizer_goes(variant, optimizer, cosine):
    grads = tree(0)
    np.testing.assert_allclose(variant(update_cosine)(updates_of(optimizer, grads, 1), grads), cosine, atol=1e-6)


def test_moved_share_matches_definition(variant):
    before, after = tree(0), tree(0)
    after["conv"]["kernel"][0, 0] += 1
    after["bias"][2] = np.nan
    assert variant(moved_share)(before, after) == pytest.approx(5 / 40)


@pytest.mark.parametrize("empty", [{}, jnp.zeros((0, 2))])
def test_nothing_does_not_move(empty):
    assert moved_share(empty, empty) == 0


@pytest.mark.parametrize(("size", "share"), [(1.009, 1), (0.991, 1), (1.02, 0), (0.98, 0), (0.0, 0), (np.nan, 0)])
@pytest.mark.parametrize("learning_rate", [1e-6, 1e-3, 10.0])
def test_sign_updates_are_as_large_as_the_learning_rate(variant, size, share, learning_rate):
    update = learning_rate * size * np.array([1.0, -1.0], np.float32)
    assert variant(sign_update_share)({"kernel": update}, learning_rate) == share


def test_sign_updates_betray_a_lost_state(variant):
    read = functools.partial(variant(sign_update_share), learning_rate=1e-3)
    shares = [read(updates_of(optax.adam(1e-3), tree(0), 12, carry=carry)) for carry in (True, False)]
    assert shares[0] < 0.1
    assert shares[1] == 1


def test_no_learning_rate_has_no_sign_updates(variant):
    assert variant(sign_update_share)(jnp.zeros(3), 0.0) == 0


@pytest.mark.parametrize("probe", [update_ratio, log10_update_ratio, update_cosine, moved_share])
def test_shapes_must_agree(probe):
    with pytest.raises(ValueError, match=r"must have the same shapes, got \(4,\) and \(3,\) at 'bias'"):
        probe({"bias": noise(4)}, {"bias": noise(3)})


@pytest.mark.parametrize(
    ("learning_rate", "message"),
    [(-0.1, "number of at least 0, got -0.1"), (np.ones(2), r"one number, got shape \(2,\)")],
)
def test_learning_rate_is_checked(learning_rate, message):
    with pytest.raises(ValueError, match=f"learning_rate must be (a )?{message}"):
        sign_update_share(noise(3), learning_rate)
