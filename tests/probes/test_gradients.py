import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnprobe.probes.gradients import (
    finish_noise,
    gradient_cosine,
    gradient_noise_scale,
    gradient_stats,
    merge_noise,
    noise_sums,
)
from cnnprobe.trees import per_layer

VALUES = arrays(np.float32, 8, elements=st.floats(-100, 100, width=32, allow_subnormal=False))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (7,), ()])
def test_stats_match_definition(variant, shape):
    grad = np.asarray(np.maximum(noise(*shape), 0))
    values = [float(v) for v in grad.ravel()]
    norm = math.sqrt(sum(v * v for v in values))
    zero_share = sum(v == 0 for v in values) / len(values)
    expected = [norm, norm / math.sqrt(len(values)), max(map(abs, values)), zero_share, 0]
    np.testing.assert_allclose(variant(gradient_stats)(grad), expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_gradients_have_a_norm(variant, scale):
    stats = variant(gradient_stats)(np.float32(scale) * np.array([3, -4], np.float32))
    np.testing.assert_allclose([stats.norm / scale, stats.max / scale], [5, 4], rtol=1e-5)


def test_nonfinite_entries_are_counted(variant):
    stats = variant(gradient_stats)(np.array([0.0, 1.0, np.nan, np.inf], np.float32))
    assert (stats.zero_share, stats.num_nonfinite) == (0.25, 2)
    assert np.isnan([stats.norm, stats.rms, stats.max]).all()


@pytest.mark.parametrize(("grad", "zero_share"), [(np.zeros(4), 1), (np.zeros((0, 3)), 0)])
def test_stats_of_nothing_are_zero(variant, grad, zero_share):
    np.testing.assert_array_equal(variant(gradient_stats)(grad), [0, 0, 0, zero_share, 0])


def test_half_precision_is_summed_in_float32(variant):
    stats = variant(gradient_stats)(jnp.full(4096, 0.5, jnp.bfloat16))
    assert (stats.norm, stats.rms) == (32, 0.5)


def test_stats_lift_over_a_tree():
    stats = per_layer(gradient_stats, {"conv": {"kernel": jnp.array([3.0, 4.0])}})
    assert stats["conv/kernel"].norm == 5


@given(VALUES)
@settings(max_examples=30, deadline=None)
def test_rms_norm_and_max_are_in_order(grad):
    stats = gradient_stats(grad)
    assert stats.rms <= stats.max * (1 + 1e-5)
    assert stats.max <= stats.norm * (1 + 1e-5)


def test_cosine_matches_definition(variant):
    a, b = ({"w": noise(3, 2, seed=seed), "b": noise(2, seed=seed + 9)} for seed in (0, 1))
    flat_a, flat_b = (np.concatenate([g["b"], g["w"].ravel()]).astype(np.float64) for g in (a, b))
    expected = flat_a @ flat_b / math.sqrt((flat_a @ flat_a) * (flat_b @ flat_b))
    np.testing.assert_allclose(variant(gradient_cosine)(a, b), expected, rtol=1e-5)


def test_cosine_needs_equal_shapes():
    with pytest.raises(ValueError, match=r"grads and other_grads must have the same shapes, got \(2,\) and \(3,\)"):
        gradient_cosine(noise(2), noise(3))


def test_noise_scale_matches_definition(variant):
    small, big = [5.0, 7.0, 6.5], [2.0, 2.5, 1.5]
    mean_small, mean_big = sum(small) / 3, sum(big) / 3
    signal, variance = (64 * mean_big - 8 * mean_small) / 56, (mean_small - mean_big) / (1 / 8 - 1 / 64)
    reading = variant(lambda s, b: gradient_noise_scale(s, b, 8, 64))(np.array(small), np.array(big))
    np.testing.assert_allclose(reading, [variance / signal, variance, signal], rtol=1e-5)


def test_noise_scale_finds_known_noise():
    """Gradients of one example are `mean + std * normal`, so signal and noise are known."""
    mean, std, num_steps, num_parts, part = np.full(50, 0.3), 2.0, 200, 8, 4
    grads = mean + std * np.random.default_rng(0).normal(size=(num_steps, num_parts, part, 50))
    of_parts = grads.mean(axis=2)
    small, big = np.sum(of_parts**2, axis=-1).mean(axis=1), np.sum(of_parts.mean(axis=1) ** 2, axis=-1)
    reading = gradient_noise_scale(small, big, part, part * num_parts)
    np.testing.assert_allclose(reading, [200 / 4.5, 200, 4.5], rtol=0.05)


@given(VALUES, VALUES, st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_measurements_merge_into_the_whole(a, b, cut):
    small, big = np.maximum(a**2, b**2), np.minimum(a**2, b**2)
    parts = merge_noise(noise_sums(small[:cut], big[:cut]), noise_sums(small[cut:], big[cut:]))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), parts, noise_sums(small, big))


def test_noise_without_signal_is_infinite(variant):
    reading = variant(lambda s, b: gradient_noise_scale(s, b, 1, 10))(10.0, 1.0)
    assert (reading.signal, reading.noise, reading.noise_scale) == (0, 10, np.inf)


@pytest.mark.parametrize("norms", [np.zeros(0), np.array([np.nan])])
def test_noise_of_no_measurement_is_nan(variant, norms):
    sums = variant(noise_sums)(norms, norms)
    assert np.isnan(finish_noise(sums, 1, 2)).all()


@pytest.mark.parametrize(("sizes", "name", "lowest"), [((0, 8), "small_batch", 1), ((8, 8), "big_batch", 9)])
def test_batch_sizes_are_checked(sizes, name, lowest):
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least {lowest}, got {min(sizes)}"):
        gradient_noise_scale(1.0, 0.5, *sizes)


def test_norms_come_in_pairs():
    with pytest.raises(ValueError, match="small_norm_sq and big_norm_sq must have the same shapes"):
        gradient_noise_scale(np.ones(3), np.ones(2), 1, 2)
