import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnprobe.probes.nulls import entropy, redeal, z_score

TABLES = arrays(np.int64, (5, 3), elements=st.integers(0, 9))


@given(TABLES, st.integers(0, 1000))
def test_redeal_keeps_batch_sizes_and_class_totals(counts, seed):
    dealt = redeal(counts, np.random.default_rng(seed))
    np.testing.assert_array_equal(dealt.sum(axis=0), counts.sum(axis=0))
    np.testing.assert_array_equal(dealt.sum(axis=1), counts.sum(axis=1))


def test_redeal_spreads_sorted_batches():
    dealt = redeal(np.diag([60, 60, 60]), np.random.default_rng(0))
    assert dealt.min() > 5


def test_entropy_matches_definition():
    counts = np.array([[1, 3], [0, 4], [0, 0]])
    expected = [-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)), 0.0, 0.0]
    np.testing.assert_allclose(entropy(counts), expected)


def test_z_score_matches_definition():
    null = np.array([0.1, 0.2, 0.4])
    np.testing.assert_allclose(z_score(1.0, null), (1.0 - null.mean()) / null.std(ddof=1))


def test_z_score_without_spread():
    null = np.full(4, 0.5)
    assert [z_score(0.5, null), z_score(0.6, null), z_score(0.4, null)] == [0.0, math.inf, -math.inf]
