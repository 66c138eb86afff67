import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnprobe.probes.modes import (
    cross_example_jacobian,
    mask_sharing,
    mask_variance_ratio,
    mode_gap,
    statistics_drift,
)

RNG = np.random.default_rng(0)
OUTPUTS = RNG.normal(size=(6, 5, 3)).astype(np.float32)  # masks, images, classes
IMAGES = RNG.normal(size=(8, 4, 4, 2)).astype(np.float32)
WEIGHTS = RNG.normal(size=(32, 3)).astype(np.float32)


def own(images):
    """Each example by itself."""
    return jnp.tanh(images.reshape(len(images), -1) @ WEIGHTS)


def transposed(images):
    """A wrong reshape: the rows of the matrix hold pieces of several images."""
    return jnp.moveaxis(images, 0, -1).reshape(len(images), -1) @ WEIGHTS


def test_mode_gap_matches_definition(variant):
    train, evaluated = OUTPUTS[0].astype(np.float64), OUTPUTS[1].astype(np.float64)
    expected = np.sqrt(np.sum((train - evaluated) ** 2)) / np.sqrt(np.sum(evaluated**2))
    np.testing.assert_allclose(variant(mode_gap)(OUTPUTS[0], OUTPUTS[1]), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("train", "evaluated", "gap"), [(1, 0, np.inf), (0, 0, 0), (1e30, 5e29, 1), (np.nan, 0, np.nan)]
)
def test_mode_gap_of_edge_cases(variant, train, evaluated, gap):
    value = variant(mode_gap)(jnp.full((3, 2), train, jnp.float32), jnp.full((3, 2), evaluated, jnp.float32))
    np.testing.assert_allclose(value, gap, rtol=1e-6)


@given(arrays(np.float32, (4, 3), elements=st.floats(-10, 10, width=32)))
def test_mode_gap_of_one_mode_is_zero(outputs):
    assert mode_gap(outputs, outputs) == 0


def test_mode_gap_needs_one_shape():
    with pytest.raises(ValueError, match=r"must have one shape, got \(3, 2\) and \(3, 1\)"):
        mode_gap(np.ones((3, 2)), np.ones((3, 1)))


def test_statistics_drift_matches_definition(variant):
    mean, var = RNG.normal(size=(2, 7)), RNG.uniform(0.5, 2, size=(2, 7))
    drift = variant(statistics_drift)(mean[0], var[0], mean[1], var[1])
    expected = [
        np.median(np.abs(mean[0] - mean[1]) / np.sqrt(var[1])),
        np.median(np.abs(np.log(var[0] / var[1]))),
    ]
    np.testing.assert_allclose(drift, expected, rtol=1e-5)


def test_statistics_drift_leaves_out_constant_channels(variant):
    ones = np.ones(3)
    drift = variant(statistics_drift)(ones, ones, np.array([1.0, 9, np.nan]), np.array([1.0, 0, 1]))
    np.testing.assert_allclose(drift, [0, 0], atol=1e-6)


def test_statistics_drift_of_constant_channels_is_nan():
    assert np.isnan(statistics_drift(np.ones(3), np.ones(3), np.ones(3), np.zeros(3))).all()


def test_statistics_drift_needs_one_shape():
    with pytest.raises(ValueError, match="running and batch statistics must have one shape"):
        statistics_drift(np.ones(3), np.ones(3), np.ones(2), np.ones(3))


def test_mask_variance_ratio_matches_definition(variant):
    values = OUTPUTS.astype(np.float64)
    over_masks = np.mean([np.var(values[:, i, k]) for i in range(5) for k in range(3)])
    over_images = np.mean([np.var(values.mean(axis=0)[:, k]) for k in range(3)])
    np.testing.assert_allclose(variant(mask_variance_ratio)(OUTPUTS), over_masks / over_images, rtol=1e-5)


@pytest.mark.parametrize("outputs", [np.broadcast_to(OUTPUTS[:1], OUTPUTS.shape), np.ones((3, 2, 2), np.float32)])
def test_mask_variance_ratio_without_masks_is_zero(outputs):
    np.testing.assert_allclose(mask_variance_ratio(outputs), 0, atol=1e-10)


def test_mask_variance_ratio_of_equal_images_is_huge():
    assert mask_variance_ratio(np.broadcast_to(OUTPUTS[:, :1], OUTPUTS.shape)) > 1e10


def slow_sharing(outputs):
    """Correlation of the first copy's deviations with the second's."""
    first, second = np.moveaxis(outputs.astype(np.float64) - outputs.astype(np.float64).mean(axis=0), 2, 0)
    return np.mean(first * second) / np.mean((first**2 + second**2) / 2)


def test_mask_sharing_of_pairs_matches_definition(variant):
    outputs = RNG.normal(size=(6, 7, 2, 3)).astype(np.float32) + RNG.normal(size=(6, 7, 1, 3)).astype(np.float32)
    np.testing.assert_allclose(variant(mask_sharing)(outputs), slow_sharing(outputs), rtol=1e-4)


@pytest.mark.parametrize("copies", [2, 5])
def test_mask_sharing_tells_shared_masks_from_own(copies):
    features, weights = RNG.normal(size=(100, 1, 30)), RNG.normal(size=(30, 5))
    shared = np.stack([np.tile(features * (RNG.uniform(size=30) < 0.5), (1, copies, 1)) for _ in range(20)]) @ weights
    separate = np.stack([features * (RNG.uniform(size=(100, copies, 30)) < 0.5) for _ in range(20)]) @ weights
    np.testing.assert_allclose(mask_sharing(shared), 1, rtol=1e-5)
    assert abs(mask_sharing(separate)) < 4 / np.sqrt(20 * 100)


def test_mask_sharing_without_dropout_is_zero():
    np.testing.assert_allclose(mask_sharing(np.ones((4, 3, 2, 2), np.float32)), 0)


def test_mask_sharing_needs_copies():
    with pytest.raises(ValueError, match="copies must be a whole number of at least 2, got 1"):
        mask_sharing(np.ones((4, 3, 1, 2)))


@pytest.mark.parametrize(("probe", "num_axes"), [(mask_variance_ratio, 3), (mask_sharing, 4)])
def test_masks_need_their_axes(probe, num_axes):
    with pytest.raises(ValueError, match=rf"outputs must have {num_axes} axes, got shape \(2, 2\)"):
        probe(np.ones((2, 2)))


def test_cross_example_matches_the_whole_jacobian():
    projection = jax.random.normal(jax.random.key(3), (8, 8, 3))
    jacobian = np.asarray(jax.jacobian(transposed)(IMAGES), np.float64).reshape(8, 3, 8, -1)
    norms = [[np.linalg.norm(projection[i, i] @ jacobian[i, :, j]) for j in range(8)] for i in range(8)]
    expected = 1 - np.trace(norms) / np.sum(norms)
    value = cross_example_jacobian(transposed, IMAGES, key=jax.random.key(3), num_probes=8)
    np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_cross_example_is_zero_for_separate_examples(variant):
    assert variant(lambda x: cross_example_jacobian(own, x))(IMAGES) == 0


@pytest.mark.parametrize(
    ("fn", "low"),
    [(transposed, 0.7), (lambda x: own(x[::-1]), 0.99), (lambda x: jax.nn.softmax(own(x), axis=0), 0.2)],
)
def test_cross_example_finds_leaks(variant, fn, low):
    assert variant(lambda x: cross_example_jacobian(fn, x))(IMAGES) > low


def test_cross_example_of_a_dead_network_is_nan():
    assert np.isnan(cross_example_jacobian(lambda x: jnp.zeros((len(x), 3)), IMAGES))


@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
def test_cross_example_reads_any_image_type(dtype):
    assert cross_example_jacobian(own, np.abs(IMAGES).astype(dtype)) == 0


def test_cross_example_survives_batches_smaller_than_its_probes():
    assert cross_example_jacobian(own, IMAGES[:2]) == 0


def test_cross_example_needs_rows():
    with pytest.raises(ValueError, match=r"fn must return one row for each of 8 images, got shape \(2, 3\)"):
        cross_example_jacobian(lambda x: own(x)[:2], IMAGES)
