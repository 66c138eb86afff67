import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnprobe.probes.collapse import batch_collapse, collapse_split

RNG = np.random.default_rng(0)
STEPS, CLASSES, SIZE = 120, 10, 32


def counts_of(ids):
    """Counts per class of predictions [steps, batch]."""
    return np.stack([np.bincount(batch, minlength=CLASSES) for batch in ids])


RANDOM = counts_of(RNG.integers(0, CLASSES, (STEPS, SIZE)))
CONSTANT = counts_of(np.full((STEPS, SIZE), 3))
MODES = RNG.integers(0, CLASSES, STEPS)
COLLAPSED = counts_of(np.repeat(MODES[:, None], SIZE, axis=1))
SORTED = counts_of(np.sort(RNG.integers(0, CLASSES, STEPS * SIZE)).reshape(STEPS, SIZE))


def skewed(share):
    """Each batch names its own class for `share` of its images and random ones for the rest."""
    random = RNG.integers(0, CLASSES, (STEPS, SIZE))
    return counts_of(np.where(RNG.uniform(size=random.shape) < share, MODES[:, None], random))


def test_one_class_per_batch_reads_one():
    reading = batch_collapse(COLLAPSED)
    np.testing.assert_allclose([reading.index, reading.top_share, reading.num_modes], [1, 1, 10], rtol=1e-6)
    assert reading.z > 50


def test_constant_predictor_reads_zero():
    reading = batch_collapse(CONSTANT)
    assert (reading.index, reading.z, reading.top_share, reading.num_modes) == (0, 0, 1, 1)


def test_predictions_that_ignore_the_batch_read_zero():
    reading = batch_collapse(RANDOM)
    assert abs(reading.index) < 0.03
    assert abs(reading.z) < 4


def test_index_grows_with_the_dependence():
    indices = [batch_collapse(skewed(share)).index for share in (0.0, 0.3, 0.6, 0.9)]
    assert indices == sorted(indices)
    assert 0.1 < indices[2] < 0.7


def test_index_matches_definition():
    counts = np.array([[4, 0], [1, 3], [0, 4]])
    joint = counts / counts.sum()
    outer = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    information = sum(p * np.log(p / q) for p, q in zip(joint.flat, outer.flat, strict=True) if p > 0)
    marginal = -np.sum(joint.sum(axis=0) * np.log(joint.sum(axis=0)))
    null = (information - batch_collapse(counts).index * marginal) / (1 - batch_collapse(counts).index)
    pooled = np.repeat([0, 1], counts.sum(axis=0))
    deals = [counts_of(RNG.permutation(pooled).reshape(3, 4)) for _ in range(4000)]
    expected = marginal - np.mean([-np.sum(d / 4 * np.log(np.where(d, d / 4, 1)), axis=1).mean() for d in deals])
    np.testing.assert_allclose(null, expected, atol=0.05)


@given(arrays(np.int64, (6, 4), elements=st.integers(0, 8)))
def test_index_never_exceeds_one(counts):
    reading = batch_collapse(counts, num_permutations=5)
    assert np.isnan(reading.index) or reading.index <= 1 + 1e-9


def test_batches_without_predictions_are_left_out():
    counts = np.concatenate([COLLAPSED, np.zeros((5, CLASSES), np.int64)])
    assert batch_collapse(counts) == batch_collapse(COLLAPSED) or np.isnan(batch_collapse(counts).lag_agreement)
    assert batch_collapse(counts).index == batch_collapse(COLLAPSED).index


def test_no_predictions_read_nan():
    assert np.isnan(batch_collapse(np.zeros((3, 4), np.int64)).index)


def test_lag_agreement_finds_the_batch_before():
    labels = skewed(0.5)
    reading = batch_collapse(np.roll(labels, 1, axis=0), labels)
    assert reading.lag_agreement > 0.95
    np.testing.assert_allclose(reading.lag_chance, 0.1, atol=0.03)


def test_own_agreement_counts_batches():
    predictions = np.array([[3, 1], [0, 4], [4, 0], [1, 3]])
    labels = np.array([[4, 0], [1, 3], [0, 4], [3, 1]])
    reading = batch_collapse(predictions, labels)
    assert (reading.own_agreement, reading.lag_agreement) == (0.5, 1 / 3)


@pytest.mark.parametrize(("labels", "low", "high"), [(SORTED, 0.9, 1.0), (RANDOM, -0.05, 0.05)])
def test_label_index_tells_sorted_data(labels, low, high):
    assert low < batch_collapse(RANDOM, labels).label_index < high


def test_label_readings_are_nan_without_labels():
    reading = batch_collapse(RANDOM)
    assert np.isnan([reading.lag_agreement, reading.own_agreement, reading.label_index]).all()


@pytest.mark.parametrize(
    ("counts", "labels", "mechanism"),
    [
        ([RANDOM, RANDOM, RANDOM, RANDOM], RANDOM, "none"),
        ([COLLAPSED, CONSTANT, CONSTANT, CONSTANT], RANDOM, "updates"),
        ([COLLAPSED, CONSTANT, CONSTANT, CONSTANT], SORTED, "order"),
        ([SORTED, SORTED, RANDOM, RANDOM], SORTED, "order"),
        ([skewed(0.8), skewed(0.8), skewed(0.8), RANDOM], RANDOM, "batch-coupled"),
        ([skewed(0.8)] * 4, RANDOM, "batch-coupled"),
        ([CONSTANT] * 4, RANDOM, "constant"),
        ([skewed(0.2), RANDOM, RANDOM, RANDOM], RANDOM, "none"),
    ],
)
def test_split_names_the_mechanism(counts, labels, mechanism):
    readings = [batch_collapse(table, labels, num_permutations=10) for table in counts]
    assert collapse_split(*readings).mechanism == mechanism


def test_split_carries_the_readings():
    readings = [batch_collapse(table, RANDOM, num_permutations=10) for table in (COLLAPSED, CONSTANT, RANDOM, RANDOM)]
    split = collapse_split(*readings)
    assert split[1:5] == tuple(reading.index for reading in readings)
    assert split.lag_ratio == readings[0].lag_agreement / readings[0].lag_chance


def test_counts_must_have_two_axes():
    with pytest.raises(ValueError, match=r"prediction_counts must have 2 axes, got shape \(3,\)"):
        batch_collapse(np.array([1, 2, 3]))


def test_counts_must_agree_in_shape():
    with pytest.raises(ValueError, match="must have one shape, got"):
        batch_collapse(RANDOM, RANDOM[:3])
