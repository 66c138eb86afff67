import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.probes.labels import batch_label_entropy, class_ids, label_stats, missing_classes

IDS = np.array([0, 2, 1, 2, 0, 2])
ONE_HOT = np.eye(3)[IDS]


@pytest.mark.parametrize(
    "labels",
    [
        IDS,
        IDS[:, None],
        IDS.astype(np.uint8),
        IDS.astype(np.float16),
        jnp.asarray(IDS),
        ONE_HOT,
        ONE_HOT.astype(np.int8),
        ONE_HOT * 0.8 + 0.05,
        ONE_HOT * 255,
        2 * ONE_HOT - 1,
    ],
)
def test_class_ids_reads_every_encoding(labels):
    np.testing.assert_array_equal(class_ids(labels), IDS)


@pytest.mark.parametrize(
    "labels",
    [IDS / 255, np.array([0.0, np.nan]), np.array(["cat", "dog"]), np.array(["1", "0"]), np.zeros((4, 5, 5))],
)
def test_class_ids_is_none_where_labels_name_no_class(labels):
    assert class_ids(labels) is None


def test_class_ids_leaves_classes_out_of_range_alone():
    np.testing.assert_array_equal(class_ids(np.array([-1, 3, 10]), 10), [-1, 3, 10])


def test_class_ids_refuses_rows_of_another_width():
    assert class_ids(ONE_HOT, 10) is None


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        (IDS, "integer"),
        (IDS[:, None].astype(float), "integer"),
        (np.array([True, False]), "integer"),
        (np.array([1.0, np.nan]), "integer"),
        (IDS / 255, "scaled"),
        (ONE_HOT, "one-hot"),
        (ONE_HOT / 255, "scaled"),
        (ONE_HOT * 0.9 + 0.1 / 3, "soft"),
        (2 * ONE_HOT - 1, "signed"),
        (np.array([[1, 1, 0], [0, 0, 1]]), "multi-hot"),
        (np.array([[0.3, 2.0], [1.0, -1.0]]), "other"),
        (np.zeros((2, 3, 3)), "map"),
        (np.array(["cat", "dog"]), "text"),
    ],
)
def test_label_stats_names_the_format(labels, name):
    assert label_stats(labels).format == name


def test_label_stats_counts_classes():
    stats = label_stats(IDS, 4)
    np.testing.assert_array_equal(stats.class_counts, [2, 1, 3, 0])
    assert (stats.min, stats.max, stats.num_distinct, stats.majority_share) == (0, 2, 3, 0.5)


def test_label_stats_entropy_matches_definition():
    shares = np.array([2, 1, 3]) / 6
    np.testing.assert_allclose(label_stats(IDS, 4).entropy, -np.sum(shares * np.log(shares)) / np.log(4))


def test_label_stats_finds_labels_that_start_at_one():
    stats = label_stats(IDS + 1, 3)
    assert (stats.out_of_range_share, stats.max) == (0.5, 3)


def test_label_stats_finds_scaled_labels():
    stats = label_stats(IDS / 255, 3)
    assert (stats.non_integer_share, stats.num_distinct) == (4 / 6, 3)
    assert np.isnan(stats.entropy)


def test_label_stats_measures_rows_that_are_no_distribution():
    assert label_stats(ONE_HOT * 3).row_sum_error == 2


def test_label_stats_counts_nonfinite_labels():
    stats = label_stats(np.array([0.0, np.nan, np.inf, 1.0]), 2)
    assert (stats.num_nonfinite, stats.out_of_range_share, stats.min, stats.max) == (2, 0.5, 0, 1)


def test_label_stats_of_only_nan():
    stats = label_stats(np.full(3, np.nan), 2)
    assert stats.num_nonfinite == 3
    assert np.isnan([stats.min, stats.max, stats.majority_share]).all()


def test_label_stats_of_one_class():
    stats = label_stats(np.zeros(5, np.int32))
    assert (stats.entropy, stats.majority_share, stats.num_distinct) == (0, 1, 1)


@pytest.mark.parametrize("labels", [np.zeros(0), np.float32(1)])
def test_label_stats_needs_labels(labels):
    with pytest.raises(ValueError, match="labels must hold at least one label"):
        label_stats(labels)


def counts_of(ids, batch_size):
    return np.stack([np.bincount(batch, minlength=10) for batch in ids.reshape(-1, batch_size)])


def test_batch_label_entropy_of_sorted_labels():
    reading = batch_label_entropy(counts_of(np.repeat(np.arange(10), 192), 64))
    assert reading.mean < 0.05
    assert reading.z < -30


@pytest.mark.parametrize(("batch_size", "expected"), [(64, 0.97), (2, 0.27)])
def test_batch_label_entropy_of_shuffled_labels(batch_size, expected):
    ids = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 192))
    reading = batch_label_entropy(counts_of(ids, batch_size))
    np.testing.assert_allclose([reading.mean, reading.expected], expected, atol=0.02)
    assert abs(reading.z) < 4


def test_batch_label_entropy_of_a_single_class():
    assert batch_label_entropy(np.array([[8, 0], [8, 0]])) == (0, 0, 0)


def test_batch_label_entropy_without_images():
    assert np.isnan(batch_label_entropy(np.zeros((3, 2), np.int64))).all()


def test_batch_label_entropy_checks_rank():
    with pytest.raises(ValueError, match=r"label_counts must have 2 axes, got shape \(3,\)"):
        batch_label_entropy(np.array([1, 2, 3]))


def test_missing_classes_are_those_of_the_second_set():
    assert missing_classes(np.array([0, 1, 1]), np.array([1, 2, 3])) == (2, 3)
