"""Readings merge like the batches they were taken from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnprobe.tracing.readings import layer_stats, merge_readings, merge_stacked, unit_stats
from cnnprobe.tracing.taps import tap, value_and_grad

from .networks import IMAGES, LABELS, assert_trees_equal, plain_loss, plain_params

W = jax.random.normal(jax.random.key(0), (3, 4))


def relu_readings(x):
    return tap(lambda w, x: jax.nn.relu(x @ w))(W, x)[1]


@pytest.mark.parametrize("merge", [merge_readings, jax.jit(merge_readings)])
def test_parts_merge_to_the_whole(merge):
    params = plain_params()
    parts = [tap(plain_loss)(params, IMAGES[rows], LABELS[rows])[1] for rows in (slice(2), slice(2, None))]
    whole = layer_stats(tap(plain_loss)(params)[1])
    merged = layer_stats(merge(*parts))
    np.testing.assert_allclose(
        [list(row[2:]) for row in merged.values()], [list(row[2:]) for row in whole.values()], rtol=1e-4
    )


def test_readings_of_a_scan_over_micro_batches_merge():
    params = plain_params()
    batches = (IMAGES.reshape(3, 2, 8, 8, 3), LABELS.reshape(3, 2))
    stacked = jax.lax.scan(lambda _, batch: (None, tap(plain_loss)(params, *batch)[1]), None, batches)[1]
    whole = tap(plain_loss)(params)[1]
    np.testing.assert_allclose(merge_stacked(stacked).packed, whole.packed, rtol=1e-4, atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-100, 100, width=32), min_size=9, max_size=9))
def test_shares_and_order_hold_for_any_values(values):
    stats = layer_stats(relu_readings(jnp.array(values).reshape(3, 3)))["params"]
    assert 0 <= stats.zero_share <= 1
    assert 0 <= stats.dead_share <= stats.zero_share + 1e-6
    assert stats.mean <= stats.max + 1e-6
    assert stats.std >= 0


def test_merging_is_commutative():
    a, b = relu_readings(jnp.ones((2, 3))), relu_readings(-jnp.ones((5, 3)))
    assert_trees_equal(merge_readings(a, b), merge_readings(b, a))


def test_nonfinite_activations_are_counted():
    stats = layer_stats(relu_readings(jnp.ones((2, 3)).at[0, 0].set(jnp.nan)))["params"]
    assert stats.nonfinite_share == 1


@pytest.mark.parametrize("activation", [jax.nn.gelu, jax.nn.silu, lambda x: jax.nn.gelu(x, approximate=False)])
def test_units_of_a_smooth_rectifier_are_dead_far_below_zero(activation):
    offsets = jnp.array([0.0, -3.0, -20.0])  # alive; in the dip, which still has a slope; off
    x = jnp.linspace(-1.0, 1.0, 30).reshape(10, 3)
    readings = tap(lambda w, x: activation(x @ w + offsets))(jnp.eye(3), x)[1]
    np.testing.assert_allclose(layer_stats(readings)["params"].dead_share, 1 / 3)


def test_tanh_is_never_dead():
    readings = tap(lambda w, x: jnp.tanh(x @ w))(jnp.eye(3), -9 * jnp.ones((2, 3)))[1]
    assert np.isnan(layer_stats(readings)["params"].dead_share)


def test_empty_batch_is_not_a_number():
    stats = layer_stats(relu_readings(jnp.zeros((0, 3))))["params"]
    assert stats.num_activations == 0
    assert np.isnan(stats.mean)
    assert np.isnan(stats.nonfinite_share)


def test_without_a_backward_tap_there_are_no_gradients():
    stats = layer_stats(value_and_grad(plain_loss, backward=False)(plain_params())[2])["head"]
    assert np.isnan(stats.gradient_rms)
    assert np.isnan(stats.no_gradient_share)


def test_slot_of_vmap_is_taken_with_an_index():
    stacked = jax.vmap(relu_readings)(jnp.arange(12.0).reshape(2, 2, 3))
    first = jax.tree.map(lambda leaf: leaf[0], stacked)
    assert_trees_equal(first, relu_readings(jnp.arange(6.0).reshape(2, 3)))


def test_stacked_readings_are_refused():
    stacked = jax.vmap(relu_readings)(jnp.ones((2, 2, 3)))
    with pytest.raises(ValueError, match=r"must not be stacked, got shape \(2, 17\)"):
        unit_stats(stacked)


def test_merging_nothing_is_refused():
    with pytest.raises(ValueError, match=r"leading axis to merge, got shape \(17,\)"):
        merge_stacked(relu_readings(jnp.ones((2, 3))))


def test_readings_of_other_functions_are_refused():
    with pytest.raises(ValueError, match=r"same function.*\['params'\] and \['conv1', 'conv2', 'head'\]"):
        merge_readings(relu_readings(jnp.ones((2, 3))), tap(plain_loss)(plain_params())[1])
