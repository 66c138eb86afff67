import numpy as np
import pytest

from cnnprobe.probes.features import pixel_features, random_features


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_pixel_features_average_blocks():
    images = noise(3, 64, 64, 1)
    expected = [
        [image[i : i + 2, j : j + 2].mean() for i in range(0, 64, 2) for j in range(0, 64, 2)] for image in images
    ]
    np.testing.assert_allclose(pixel_features(images), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 256, 256, 3), (2, 300, 40), (2, 5000), (2, 3, 3), (2, 1, 5000, 1)])
def test_pixel_features_are_few(shape):
    assert pixel_features(np.ones(shape)).shape[1] <= 1300


@pytest.mark.parametrize("shape", [(3, 8, 8), (70, 16, 16, 1), (2, 256, 200, 3), (3, 2, 3, 4)])
def test_random_features_of_any_size(shape):
    features = random_features(noise(*shape))
    assert features.shape[0] == shape[0]
    assert np.isfinite(features).all()


def test_random_features_of_an_image_depend_on_it_alone():
    images = noise(70, 9, 9, 1)
    np.testing.assert_allclose(random_features(images[60:]), random_features(images)[60:], rtol=1e-4, atol=1e-5)


def test_random_features_survive_nan():
    assert np.isfinite(random_features(np.full((3, 8, 8), np.nan))).all()


def test_random_features_check_rank():
    with pytest.raises(ValueError, match=r"images must have 3 or 4 axes, got shape \(3, 4\)"):
        random_features(np.ones((3, 4)))
