import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnprobe.probes.moments import Moments, finish_moments, merge_moments, moments

VALUES = arrays(np.float32, (6, 2), elements=st.floats(-100, 100, width=32, allow_subnormal=False))


def noise(*shape):
    return (2 + 3 * np.random.default_rng(0).normal(size=shape)).astype(np.float32)


def read(x):
    return finish_moments(moments(x))


@pytest.mark.parametrize("shape", [(16, 5, 4, 3), (16, 3), (3,)])
def test_moments_match_definition(variant, shape):
    x = noise(*shape)
    columns = [[float(row[c]) for row in x.reshape(-1, 3)] for c in range(3)]
    means = [sum(column) / len(column) for column in columns]
    variances = [sum((v - m) ** 2 for v in column) / len(column) for column, m in zip(columns, means, strict=True)]
    np.testing.assert_allclose(variant(read)(x), [means, variances], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.uint8, bool])
def test_sums_of_any_type_are_taken_in_float32(variant, dtype):
    sums = variant(moments)(jnp.ones((5000, 2), dtype))
    np.testing.assert_array_equal(sums.mean, 1)
    assert sums.mean.dtype == jnp.float32


@given(VALUES, st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_parts_merge_into_the_whole(x, cut):
    parts = finish_moments(merge_moments(moments(x[:cut]), moments(x[cut:])))
    np.testing.assert_allclose(parts.mean, x.mean(axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(parts.variance, x.astype(np.float64).var(axis=0), rtol=1e-4, atol=1e-5)


def test_moments_accumulate_in_a_scan():
    x = noise(5, 8, 3)
    zero = Moments(jnp.float32(0), jnp.zeros(3), jnp.zeros(3))
    sums, _ = jax.lax.scan(lambda carry, part: (merge_moments(carry, moments(part)), None), zero, x)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), sums, moments(x))


@pytest.mark.parametrize("mean", [0, 255 / 7, 1e4])
def test_small_spread_about_a_large_mean_is_kept(variant, mean):
    x = (mean + 0.1 * np.random.default_rng(0).normal(size=(1000, 4))).astype(np.float32)
    np.testing.assert_allclose(variant(read)(x).variance, x.astype(np.float64).var(axis=0), rtol=1e-3)


def test_parts_of_equal_entries_have_no_variance(variant):
    x = np.full((6, 3), 74.21875, np.float32)
    merged = variant(lambda x: finish_moments(merge_moments(moments(x[:2]), moments(x[2:]))))(x)
    np.testing.assert_array_equal(merged.variance, 0)


def test_nonfinite_entries_stay_in_their_channel(variant):
    x = noise(10, 3)
    x[4, 1] = np.nan
    np.testing.assert_array_equal(np.isnan(variant(read)(x).mean), [False, True, False])


def test_nothing_counted_is_nan():
    assert np.isnan(read(np.zeros((0, 3)))).all()


def test_channels_must_agree():
    with pytest.raises(ValueError, match=r"moments must have as many channels to be merged, got shapes \(2,\) and"):
        merge_moments(moments(noise(4, 2)), moments(noise(4, 3)))


def test_x_needs_channels():
    with pytest.raises(ValueError, match=r"x must have an axis of channels, got shape \(\)"):
        moments(1.0)
