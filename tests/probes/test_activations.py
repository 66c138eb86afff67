import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnprobe.probes.activations import (
    activation_stats,
    activation_sums,
    duplicate_units,
    effective_rank,
    finish_activations,
    merge_activations,
)

VALUES = arrays(np.float32, (6, 3), elements=st.floats(-100, 100, width=32, allow_subnormal=False))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def naive_stats(x, bound):
    values = [float(v) for v in x.ravel()]
    mean = sum(values) / len(values)
    std = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
    dead = [all(float(row[c]) <= 0 for row in x.reshape(-1, x.shape[-1])) for c in range(x.shape[-1])]
    shares = [sum(v == 0 for v in values), sum(abs(v) >= bound for v in values)]
    zero_share, saturated_share = (count / len(values) for count in shares)
    return [mean, std, min(values), max(values), zero_share, sum(dead) / len(dead), saturated_share, 0]


@pytest.mark.parametrize("shape", [(4, 5, 3, 6), (8, 6)])
def test_stats_match_definition(variant, shape):
    x = np.maximum(noise(*shape) + np.array([-9, -9, 0, 0, 1, 2], np.float32), 0)
    stats = variant(functools.partial(activation_stats, bound=0.7))(x)
    np.testing.assert_allclose(stats, naive_stats(x, 0.7), rtol=1e-5, atol=1e-6)


def test_bound_may_be_a_pair(variant):
    x = np.array([[0.005, 0.5], [0.995, 1.0]])
    assert variant(lambda x: activation_stats(x, bound=(0.01, 0.99)))(x).saturated_share == 0.75


def test_saturation_without_a_bound_is_unknown(variant):
    assert np.isnan(variant(activation_stats)(noise(4, 2)).saturated_share)


def test_nonfinite_entries_are_counted_and_hide_nothing(variant):
    x = -np.ones((5, 4), np.float32)
    x[0, 0], x[1, 0], x[2, 1] = np.nan, np.inf, -np.inf
    stats = variant(activation_stats)(x)
    assert (stats.num_nonfinite, stats.dead_share) == (3, 0.75)
    assert np.isnan([stats.mean, stats.std, stats.max]).all()


def test_half_precision_is_summed_in_float32(variant):
    stats = variant(activation_stats)(jnp.full((4096, 2), 1.5, jnp.bfloat16))
    assert (stats.mean, stats.std, stats.zero_share) == (1.5, 0, 0)


@given(VALUES, st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_parts_merge_into_the_whole(x, cut):
    parts = merge_activations(activation_sums(x[:cut], bound=9.0), activation_sums(x[cut:], bound=9.0))
    np.testing.assert_allclose(finish_activations(parts), activation_stats(x, bound=9.0), rtol=1e-4, atol=1e-3)


@given(VALUES)
@settings(max_examples=30, deadline=None)
def test_units_that_are_dead_hold_no_positive_mean(x):
    stats = activation_stats(x)
    assert stats.min - 1e-4 <= stats.mean <= stats.max + 1e-4
    assert (stats.dead_share == 1) == (stats.max <= 0)


def test_sums_accumulate_in_a_scan():
    x = noise(5, 8, 3)
    first = activation_sums(x[0], bound=1.0)
    step = lambda sums, part: (merge_activations(sums, activation_sums(part, bound=1.0)), None)  # noqa: E731
    sums, _ = jax.lax.scan(step, first, x[1:])
    np.testing.assert_allclose(finish_activations(sums), naive_stats(x, 1.0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
def test_stats_need_activations(shape):
    with pytest.raises(ValueError, match=r"x must hold at least one activation, got shape \("):
        activation_stats(np.zeros(shape))


@pytest.mark.parametrize("bound", [0, -1.0, (1.0, 0.0), (0.0, 1.0, 2.0)])
def test_bound_is_checked(bound):
    with pytest.raises(ValueError, match="bound must be a number above 0, or a lower and an upper end, got"):
        activation_stats(noise(4, 2), bound=bound)


def test_units_must_agree_to_merge():
    with pytest.raises(ValueError, match="activations must have as many channels to be merged"):
        merge_activations(activation_sums(noise(4, 2)), activation_sums(noise(4, 3)))


@pytest.mark.parametrize("options", [{}, {"centred": True}, {"squared": True}, {"centred": True, "squared": True}])
def test_effective_rank_matches_definition(variant, options):
    features = noise(20, 6) * np.array([9, 5, 2, 1, 0.3, 0.1], np.float32) + 3
    matrix = features - features.mean(axis=0) if "centred" in options else features
    sizes = np.sqrt(np.linalg.eigvalsh(matrix.T.astype(np.float64) @ matrix))
    shares = sizes**2 / sum(sizes**2) if "squared" in options else sizes / sum(sizes)
    expected = np.exp(-sum(p * np.log(p) for p in shares))
    np.testing.assert_allclose(variant(functools.partial(effective_rank, **options))(features), expected, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize(
    ("features", "rank"),
    [(np.eye(5), 5), (np.ones((8, 3)), 1), (np.outer(range(9), range(4)), 1), (np.eye(7)[:, :2], 2)],
)
def test_effective_rank_of_known_matrices(variant, features, rank, scale):
    np.testing.assert_allclose(variant(effective_rank)(scale * features), rank, rtol=1e-5)


def test_effective_rank_leaves_nonfinite_rows_out(variant):
    features = noise(12, 4)
    broken = np.concatenate([features, np.full((2, 4), np.nan), [[np.inf, 0, 0, 0]]])
    for options in ({}, {"centred": True}):
        read = variant(functools.partial(effective_rank, **options))
        np.testing.assert_allclose(read(broken), read(features), rtol=1e-5)


@pytest.mark.parametrize("features", [np.zeros((4, 3)), np.full((4, 3), np.nan), np.zeros((0, 3))])
def test_effective_rank_of_nothing_is_zero(variant, features):
    assert variant(effective_rank)(features) == 0


def test_equal_rows_have_no_centred_rank(variant):
    features = np.tile(noise(1, 64), (300, 1))
    assert variant(functools.partial(effective_rank, centred=True))(features) == 0


@given(VALUES)
@settings(max_examples=30, deadline=None)
def test_effective_rank_is_at_most_the_rank(features):
    reading = float(effective_rank(features))
    assert reading == 0 or 1 - 1e-5 <= reading <= 3 + 1e-5


def test_effective_rank_needs_a_matrix():
    with pytest.raises(ValueError, match=r"features must have 2 axes, got shape \(4,\)"):
        effective_rank(np.ones(4))


@pytest.mark.parametrize("shape", [(3, 3, 2, 8), (20, 5)])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_duplicate_units_match_definition(variant, shape, scale):
    kernel = noise(*shape)
    rows = kernel.reshape(-1, shape[-1]).T.astype(np.float64)
    cosines = [abs(a @ b) / np.sqrt((a @ a) * (b @ b)) for i, a in enumerate(rows) for b in rows[:i]]
    np.testing.assert_allclose(variant(duplicate_units)(scale * kernel), max(cosines), rtol=1e-4)


@pytest.mark.parametrize("factor", [1.0, -2.0, 1e-20])
def test_proportional_units_are_duplicates(variant, factor):
    kernel = noise(3, 3, 4, 8)
    kernel[..., 5] = factor * kernel[..., 2]
    np.testing.assert_allclose(variant(duplicate_units)(kernel), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("kernel", "reading"),
    [
        (np.ones((4, 6)), 1),
        (np.zeros((4, 6)), 0),
        (np.eye(5), 0),
        (noise(4, 1), 0),
        (np.full((4, 6), np.nan), np.nan),
        (np.array([[1.0, np.inf], [1.0, 0.0]]), np.nan),
    ],
)
def test_duplicate_units_at_their_edges(variant, kernel, reading):
    np.testing.assert_allclose(variant(duplicate_units)(kernel), reading, rtol=1e-6)


def test_duplicate_units_need_inputs_and_units():
    with pytest.raises(ValueError, match=r"kernel must have at least 2 axes, got shape \(4,\)"):
        duplicate_units(np.ones(4))
