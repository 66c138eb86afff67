import numpy as np
import pytest

from cnnprobe.data import cells
from cnnprobe.data.cells import CELL_CLASSES, blood_cells

SET = blood_cells(400, seed=3)


@pytest.mark.parametrize("size", [24, 80, 128])
@pytest.mark.parametrize(("raw", "dtype"), [(False, np.float32), (True, np.uint8)])
def test_images_have_the_asked_shape_and_type(size, raw, dtype):
    images = blood_cells(5, size=size, raw=raw).images
    assert (images.shape, images.dtype) == ((5, size, size, 1), dtype)


def test_types_are_balanced_and_mixed():
    assert np.bincount(SET.labels).tolist() == [100] * len(CELL_CLASSES)
    assert abs(np.mean(SET.labels[1:] == SET.labels[:-1]) - 0.25) < 0.09  # standard deviation 0.022


def test_raw_images_are_the_same_in_bytes():
    scaled, raw = blood_cells(3).images, blood_cells(3, raw=True).images
    np.testing.assert_array_equal(np.rint(scaled * 255), raw)


def test_cells_are_a_function_of_the_seed():
    first, again, other = (blood_cells(4, size=24, seed=seed).images for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_no_image_comes_twice():
    assert len({image.tobytes() for image in SET.images}) == len(SET.images)


def test_the_same_cells_are_drawn_at_every_size():
    large, small = blood_cells(20, size=80).images, blood_cells(20, size=40).images
    halved = large.reshape(20, 40, 2, 40, 2, 1).mean((2, 4))
    assert np.abs(halved - small).mean() < 0.02 < 0.08 < np.abs(halved - small[::-1]).mean()


def test_whole_images_meet_the_mean_and_spread_of_a_smear():
    np.testing.assert_allclose((SET.images.mean(), SET.images.std()), (0.64, 0.12), atol=0.01)


def scene_of(**fields):
    """One picture at exposure 1 of nothing but background, unless told."""
    nothing = np.array([[cells._ABSENT]], np.float32)
    zero = np.zeros(1, np.float32)
    light = np.array([[1, 0, 0]], np.float32)
    scene = cells._Scene(nothing[0], nothing, nothing, nothing, zero, zero, zero, np.zeros((1, 2), np.float32), light)
    return cells._render(scene._replace(**fields), 80, np.random.default_rng(0))[0]


def disc_of(radius):
    return np.array([[[40.0, 40.0, radius]]], np.float32)


def inside(picture, radius):
    places = np.hypot(*np.mgrid[-39.5:40, -39.5:40])
    return picture[places < radius].mean()


def test_the_background_is_as_light_as_in_a_smear():
    assert abs(scene_of().mean() - 0.60) < 0.005


def test_a_red_cell_is_as_dark_as_in_a_smear_and_pale_in_the_middle():
    picture = scene_of(red_cells=disc_of(10.0))
    assert abs(inside(picture, 9) - 0.49) < 0.015
    assert inside(picture, 2) > inside(picture, 9) + 0.03


def test_a_nucleus_is_as_dark_as_in_a_smear():
    fields = {"cells": disc_of(20.0)[0], "lobes": disc_of(15.0), "chromatin": np.float32([cells._NUCLEUS])}
    assert abs(inside(scene_of(**fields), 12) - 0.27) < 0.015


def nucleus_shape(image):
    """Number of dark pixels, and how long they are against how wide."""
    places = np.argwhere(image[..., 0] < 0.55 * np.median(image))
    short, long = np.linalg.eigvalsh(np.cov(places.T))
    return len(places), np.sqrt(long / short)


def test_nuclei_have_the_shapes_of_their_types():
    shapes = np.array([nucleus_shape(image) for image in SET.images])
    eosinophil, lymphocyte, monocyte, neutrophil = (np.median(shapes[SET.labels == kind], 0) for kind in range(4))
    assert lymphocyte[1] < 1.15 < monocyte[1] < eosinophil[1]  # round, bent, two lobes
    assert max(eosinophil[0], neutrophil[0]) < min(lymphocyte[0], monocyte[0])  # lobes leave more of the cell free


def test_sums_of_pixels_do_not_tell_the_type():
    means = [SET.images[SET.labels == kind].mean((1, 2, 3)) for kind in range(4)]
    assert np.ptp([mean.mean() for mean in means]) < 0.5 * np.std(means)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_images": 0}, "num_images must be a whole number of at least 1, got 0"),
        ({"num_images": 4, "size": 23}, "size must be a whole number of at least 24, got 23"),
        ({"num_images": 4, "size": 129}, "size must be at most 128, got 129"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        blood_cells(**arguments)
