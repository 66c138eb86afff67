import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.probes.inputs import (
    image_stats,
    knn_consistency,
    random_features,
    ridge_accuracy,
    ridge_readings,
    split_overlap,
)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def blobs(num=300, size=12, seed=0):
    """One bright square per image; its quadrant is the class."""
    rng = np.random.default_rng(seed)
    images, ids = 0.1 * rng.normal(size=(num, size, size, 1)), rng.integers(0, 4, num)
    for image, label in zip(images, ids, strict=True):
        image[label // 2 * 6 : label // 2 * 6 + 4, label % 2 * 6 : label % 2 * 6 + 4] += 1
    return images, ids


def gratings(num=200, size=32, seed=0):
    """Waves of random phase; the class is their direction, so no two pixels correspond."""
    rng = np.random.default_rng(seed)
    ids, phase = rng.integers(0, 2, num), rng.uniform(0, 2 * np.pi, num)
    wave = np.sin(np.arange(size) * 2.1 + phase[:, None])
    lying, standing = np.broadcast_arrays(wave[:, :, None], wave[:, None, :])
    images = np.where(ids[:, None, None] == 0, lying, standing) + rng.normal(size=(num, size, size))
    return images, ids


def test_image_stats_match_definition():
    images = 3 + 2 * noise(20, 4, 5, 3)
    stats, values = image_stats(images), images.astype(np.float64)
    expected = [values.mean(), values.std(), values.min(), values.max(), values.mean() / values.std()]
    np.testing.assert_allclose([stats.mean, stats.std, stats.min, stats.max, stats.offset_ratio], expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float16, jnp.bfloat16, bool])
def test_image_stats_read_any_type(dtype):
    images = jnp.asarray(np.arange(24).reshape(2, 3, 4), dtype)
    np.testing.assert_allclose(image_stats(images).mean, np.mean(np.asarray(images, np.float64)))


def test_image_stats_leave_nonfinite_entries_out():
    images = noise(6, 4, 4)
    images[1, 0, 0], images[2, :] = np.inf, np.nan
    stats, finite = image_stats(images), images[np.isfinite(images)]
    assert stats.num_nonfinite_images == 2
    np.testing.assert_allclose([stats.mean, stats.max], [finite.mean(), finite.max()], rtol=1e-5)


def test_image_stats_of_only_nan():
    stats = image_stats(np.full((3, 4), np.nan))
    assert stats.num_nonfinite_images == 3
    assert np.isnan([stats.mean, stats.std, stats.max_abs, stats.offset_ratio]).all()


def test_image_stats_count_blank_and_equal_images():
    images = noise(8, 5, 5)
    images[:2], images[2] = 0.0, images[3]
    stats = image_stats(images)
    assert (stats.blank_share, stats.distinct_share) == (2 / 8, 6 / 8)


def test_image_stats_count_constant_pixels():
    images = noise(8, 10)
    images[:, :3] = 7
    assert image_stats(images).constant_pixel_share == 0.3


@pytest.mark.parametrize(("value", "ratio"), [(0.0, 0.0), (5.0, np.inf)])
def test_image_stats_of_constant_images(value, ratio):
    assert image_stats(np.full((3, 4), value)).offset_ratio == ratio


@pytest.mark.parametrize("images", [np.zeros((0, 4, 4)), np.zeros(5)])
def test_image_stats_need_images(images):
    with pytest.raises(ValueError, match="images must hold at least one image"):
        image_stats(images)


def test_split_overlap_counts_the_second_set():
    images = noise(10, 4, 4, 1)
    other = np.concatenate([images[:3], noise(9, 4, 4, 1, seed=1)])
    assert split_overlap(images, other) == 3 / 12


def test_split_overlap_sees_through_types():
    images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    assert split_overlap(images, images.astype(np.float64)) == 1


def test_knn_matches_a_slow_loop():
    rows, ids = noise(40, 6), np.random.default_rng(1).integers(0, 3, 40)
    centred, hits = rows - rows.mean(axis=0), 0
    for i, row in enumerate(centred):
        cosine = [-2 if j == i else row @ o / np.linalg.norm(row) / np.linalg.norm(o) for j, o in enumerate(centred)]
        hits += ids[np.argmax(cosine)] == ids[i]
    assert knn_consistency(rows, ids, k=1).accuracy == hits / 40


def test_knn_reads_shapes():
    reading = knn_consistency(*blobs())
    assert reading.accuracy > 0.95
    assert reading.z > 20


@pytest.mark.parametrize("data", [blobs, gratings])
def test_permuted_labels_read_as_chance(data):
    images, ids = data()
    ids = np.random.default_rng(1).permutation(ids)
    readings = [knn_consistency(images, ids), ridge_accuracy(random_features(images), ids)]
    assert max(abs(reading.z) for reading in readings) < 4


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_knn_of_equal_images_is_chance(order):
    ids = np.repeat(np.arange(4), 25)
    ids = np.random.default_rng(0).permutation(ids) if order == "shuffled" else ids
    reading = knn_consistency(np.ones((100, 8)), ids)
    assert reading.accuracy <= 0.35
    assert abs(reading.z) < 3.5


def test_knn_of_one_class():
    assert knn_consistency(noise(10, 3), np.zeros(10, np.int64))[:2] == (1, 1)
    assert knn_consistency(noise(10, 3), np.zeros(10, np.int64)).z == 0


def test_knn_survives_nan():
    images, ids = blobs()
    images[::10] = np.nan
    assert knn_consistency(images, ids).accuracy > 0.8


def test_knn_survives_fewer_rows_than_neighbours():
    assert 0 <= knn_consistency(noise(3, 4), np.array([0, 1, 1])).accuracy <= 1


def test_knn_checks_lengths():
    with pytest.raises(ValueError, match=r"features and ids must have as many rows, got shapes \(4, 2\) and \(3,\)"):
        knn_consistency(noise(4, 2), np.array([0, 1, 2]))


def test_knn_checks_neighbours():
    with pytest.raises(ValueError, match="k must be a whole number of at least 1, got 0"):
        knn_consistency(noise(4, 2), np.arange(4), k=0)


@pytest.mark.parametrize("data", [blobs, gratings])
def test_ridge_on_random_features_reads_shapes_and_textures(data):
    images, ids = data()
    reading = ridge_accuracy(random_features(images), ids)
    assert reading.accuracy > 0.95
    assert reading.z > 10


def test_ridge_matches_least_squares_where_data_abound():
    rows, ids = noise(400, 3), np.random.default_rng(1).integers(0, 2, 400)
    rows[ids == 1] += 1.0
    halves, hits = np.split(np.random.default_rng(0).permutation(400), 2), []
    for fit, test in (halves, halves[::-1]):
        weights = np.linalg.lstsq(np.column_stack([np.ones(200), rows[fit]]), ids[fit] - 0.5, rcond=None)[0]
        hits.append((np.column_stack([np.ones(200), rows[test]]) @ weights > 0) == ids[test])
    np.testing.assert_allclose(ridge_accuracy(rows, ids).accuracy, np.mean(hits), atol=0.006)


@pytest.mark.parametrize("features", [np.ones((50, 4)), np.full((50, 4), np.nan), np.zeros((50, 1))])
def test_ridge_of_features_that_say_nothing(features):
    reading = ridge_accuracy(features, np.arange(50) % 5)
    assert reading.accuracy <= 0.3
    assert abs(reading.z) < 4


def test_ridge_is_the_one_of_least_leave_one_out_error():
    images, ids = blobs()
    features, wrong = random_features(images), np.random.default_rng(1).random(len(ids)) < 0.3
    noisy = np.where(wrong, (ids + 1) % 4, ids)
    _, scores = ridge_readings(features, noisy, num_permutations=2)
    assert np.mean(np.argmax(scores, axis=1) == ids) > 0.9  # the smallest ridge fits the noise and reaches about .6


def test_ridge_scores_stand_in_the_order_of_the_images():
    images, ids = blobs()
    reading, scores = ridge_readings(random_features(images), ids)
    assert np.mean(np.argmax(scores, axis=1) == ids) == reading.accuracy
    assert reading == ridge_accuracy(random_features(images), ids)
