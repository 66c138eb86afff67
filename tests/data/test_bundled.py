from pathlib import Path

import numpy as np
import pytest

from cnnprobe.data import bundled
from cnnprobe.data.bundled import FASHION_CLASSES, TEXTURE_CLASSES, fashion_mnist, textures


def test_fashion_mnist_has_the_stated_shape():
    train, valid, class_names = fashion_mnist()
    assert (train.images.shape, valid.images.shape) == ((3000, 28, 28, 1), (1000, 28, 28, 1))
    assert class_names == FASHION_CLASSES


def test_fashion_mnist_is_balanced():
    train, valid, _ = fashion_mnist()
    assert np.bincount(train.labels).tolist() == [300] * 10
    assert np.bincount(valid.labels).tolist() == [100] * 10


def test_fashion_mnist_is_scaled_unless_raw():
    scaled, raw = fashion_mnist(num_train=50).train.images, fashion_mnist(num_train=50, raw=True).train.images
    assert (scaled.dtype, raw.dtype) == (np.float32, np.uint8)
    np.testing.assert_array_equal(np.rint(scaled * 255), raw)


def test_fashion_mnist_repeats_no_image():
    train, valid, _ = fashion_mnist(raw=True)
    assert len({image.tobytes() for image in np.concatenate([train.images, valid.images])}) == 4000


def test_fashion_mnist_is_in_random_order():
    labels = fashion_mnist().train.labels
    assert abs(np.mean(labels[1:] == labels[:-1]) - 0.1) < 0.03  # standard deviation 0.0055


def test_fashion_mnist_labels_fit_the_images():
    (images, labels), _, _ = fashion_mnist()
    trousers, bags = images[labels == 1].mean(0)[..., 0], images[labels == 8].mean(0)[..., 0]
    assert trousers[:, :6].mean() < 0.05 < 0.2 < bags[12:, :6].mean()  # trousers are narrow, bags are wide


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_train": 3001}, "num_train must be at most 3000, got 3001"),
        ({"num_valid": 0}, "num_valid must be a whole number of at least 1, got 0"),
    ],
)
def test_fashion_mnist_refuses_numbers_that_it_lacks(arguments, message):
    with pytest.raises(ValueError, match=message):
        fashion_mnist(**arguments)


@pytest.mark.parametrize("size", [8, 64, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_textures_have_the_asked_shape(size, channels):
    train, valid, _ = textures(size=size, num_train=7, num_valid=3, channels=channels)
    assert train.images.shape == (7, size, size, channels)
    assert valid.images.shape == (3, size, size, channels)


def test_textures_are_balanced():
    train, _, class_names = textures(num_train=31)
    assert np.bincount(train.labels).tolist() == [11, 10, 10]
    assert class_names == TEXTURE_CLASSES


def test_textures_are_scaled_unless_raw():
    scaled, raw = textures(size=32).train.images, textures(size=32, raw=True).train.images
    assert (scaled.dtype, raw.dtype) == (np.float32, np.uint8)
    np.testing.assert_array_equal(np.rint(scaled * 255), raw)


def columns_of(crop, photograph):
    """First column at which the crop's first 8x8 pixels stand in the photograph."""
    windows = np.lib.stride_tricks.sliding_window_view(photograph, (8, 8))
    return np.argwhere((windows == crop[:8, :8, 0]).all((2, 3)))[:, 1]


def test_texture_parts_share_no_column():
    with np.load(Path(bundled.__file__).parent / "bundled" / "textures.npz") as arrays:
        photographs = [arrays[name] for name in TEXTURE_CLASSES]
    train, valid, _ = textures(size=64, num_train=6, num_valid=6, raw=True)
    last_train = max(columns_of(image, photographs[label]).max() + 63 for image, label in zip(*train, strict=True))
    first_valid = min(columns_of(image, photographs[label]).min() for image, label in zip(*valid, strict=True))
    assert last_train < 320 <= first_valid


def test_textures_are_a_function_of_their_seed():
    first, again, other = (textures(seed=seed, num_train=9).train.images for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 257}, "size must be at most 256, got 257"),
        ({"size": 7}, "size must be a whole number of at least 8, got 7"),
        ({"channels": 2}, "channels must be 1 or 3, got 2"),
        ({"num_train": 0}, "num_train must be a whole number of at least 1, got 0"),
        ({"num_valid": -1}, "num_valid must be"),
    ],
)
def test_textures_refuse_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        textures(**arguments)
