import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.data.augment import (
    compose,
    gaussian_noise,
    mixup,
    mixup_batches,
    random_crop,
    random_cutout,
    random_flip,
    random_rotation,
    random_shift,
    random_zoom,
)

KEY = jax.random.key(0)
AUGMENTS = {
    "flip": random_flip(vertical=True),
    "shift": random_shift(0.3),
    "rotation": random_rotation(30.0),
    "zoom": random_zoom(0.3),
    "crop": random_crop(0.4),
    "cutout": random_cutout(0.5),
    "noise": gaussian_noise(0.2),
    "all": compose(random_flip(), random_shift(0.2), random_rotation(10.0), gaussian_noise(0.1)),
}


def images_of(dtype=jnp.float32, shape=(4, 9, 12, 3)):
    values = jax.random.uniform(jax.random.key(1), shape, minval=3, maxval=200)
    return values.astype(dtype)


@pytest.fixture(params=AUGMENTS.values(), ids=AUGMENTS.keys())
def augment(request):
    return request.param


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32, jnp.bfloat16])
def test_shape_type_and_range_are_kept(augment, dtype):
    images = images_of(dtype)
    changed = augment(KEY, images)
    assert (changed.shape, changed.dtype) == (images.shape, images.dtype)
    assert images.min() <= changed.min() <= changed.max() <= images.max()


def test_a_key_decides(augment):
    first, again, other = (augment(key, images_of()) for key in (KEY, KEY, jax.random.key(7)))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_compiled_is_the_same(augment):
    np.testing.assert_allclose(jax.jit(augment)(KEY, images_of()), augment(KEY, images_of()), rtol=1e-4)


def test_images_are_changed_apart(augment):
    same = jnp.broadcast_to(images_of()[:1], (16, 9, 12, 3))
    changed = np.asarray(augment(KEY, same))
    assert len({image.tobytes() for image in changed}) > 2


def test_one_rank_only(augment):
    with pytest.raises(ValueError, match=r"images must have 4 axes, got shape \(9, 12\)"):
        augment(KEY, jnp.zeros((9, 12)))


def test_flip_is_one_of_the_two_mirrors():
    images = images_of(shape=(64, 4, 5, 1))
    changed = np.asarray(random_flip()(KEY, images))
    mirrored = [np.array_equal(new, old[:, ::-1]) for new, old in zip(changed, np.asarray(images), strict=True)]
    kept = [np.array_equal(new, old) for new, old in zip(changed, np.asarray(images), strict=True)]
    assert 16 <= sum(mirrored) == 64 - sum(kept) <= 48


def test_shift_moves_by_whole_pixels_and_repeats_the_rim():
    image = np.arange(25.0).reshape(1, 5, 5, 1)
    padded = np.pad(image[0, ..., 0], 1, mode="edge")
    allowed = [padded[row : row + 5, column : column + 5] for row in range(3) for column in range(3)]
    changed = random_shift(0.2)(KEY, jnp.asarray(np.repeat(image, 40, 0)))[..., 0]
    assert {next(i for i, a in enumerate(allowed) if np.array_equal(a, new)) for new in changed} == set(range(9))


def linear_ramp():
    """A picture that bilinear interpolation reads without error: value = 2 row + 3 column, from the centre."""
    rows, columns = np.mgrid[-10:11, -10:11]
    return jnp.asarray((2.0 * rows + 3.0 * columns)[None, ..., None])


def slopes_of(picture):
    return float(picture[0, 11, 10, 0] - picture[0, 10, 10, 0]), float(picture[0, 10, 11, 0] - picture[0, 10, 10, 0])


def test_rotation_turns_slopes_and_keeps_their_length():
    changed = slopes_of(random_rotation(30.0)(KEY, linear_ramp()))
    np.testing.assert_allclose(np.hypot(*changed), np.hypot(2, 3), rtol=1e-4)
    assert 0.01 < abs(np.arctan2(*changed) - np.arctan2(2, 3)) <= np.pi / 6 + 1e-3


def test_zoom_scales_both_slopes_alike():
    down, across = slopes_of(random_zoom(0.3)(KEY, linear_ramp()))
    np.testing.assert_allclose(down / across, 2 / 3, rtol=1e-4)
    assert 1 / 1.3 <= down / 2 <= 1 / 0.7


def test_a_crop_is_a_window_inside_of_the_image():
    many = jnp.broadcast_to(linear_ramp(), (50, 21, 21, 1))
    changed = np.asarray(random_crop(0.4)(KEY, many))
    down, across = (
        (changed[:, 11, 10, 0] - changed[:, 10, 10, 0]) / 2,
        (changed[:, 10, 11, 0] - changed[:, 10, 10, 0]) / 3,
    )
    np.testing.assert_allclose(down, across, rtol=1e-4)
    assert 0.4 <= down.min() < 0.5 < 0.9 < down.max() <= 1
    corners = changed[:, [0, 0, -1, -1], [0, -1, 0, -1], 0]
    np.testing.assert_allclose(np.ptp(corners, axis=1), 20 * 5 * down, rtol=1e-4)  # nothing is repeated at the rim


ONE_HOT = jnp.eye(4)[jnp.arange(64) % 4]
CONSTANT = jnp.broadcast_to(jnp.arange(64.0)[:, None, None, None], (64, 3, 3, 1))  # the value tells the image


@pytest.mark.parametrize("variant", [lambda f: f, jax.jit])
def test_mixup_mixes_images_and_labels_in_one_proportion(variant):
    images, labels = variant(mixup)(KEY, CONSTANT, ONE_HOT)
    partners = jax.random.permutation(jax.random.split(KEY)[0], 64)
    shares = np.asarray(images[:, 0, 0, 0] - partners) / np.where(
        partners == np.arange(64), 1, np.arange(64) - partners
    )
    moved = partners != jnp.arange(64)
    expected = shares[:, None] * ONE_HOT + (1 - shares[:, None]) * ONE_HOT[partners]
    np.testing.assert_allclose(labels[moved], expected[moved], atol=1e-4)
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-5)


def test_mixup_keeps_the_type_of_the_images():
    assert mixup(KEY, images_of(jnp.uint8), jnp.eye(4))[0].dtype == jnp.uint8


def test_a_mixed_loader_is_a_function_of_the_epoch():
    batches = mixup_batches(lambda epoch: [(CONSTANT, ONE_HOT)] * 2)
    first, again, other = ([images for images, _ in batches(epoch)] for epoch in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len({np.asarray(images).tobytes() for images in (*first, *other)}) == 4


@pytest.mark.parametrize(
    ("labels", "alpha", "message"),
    [
        (jnp.zeros(64, int), 0.2, r"labels must be one-hot or soft to be mixed, \[batch, classes\], got shape \(64,\)"),
        (ONE_HOT, 0.0, r"alpha must be above 0, got 0\.0"),
    ],
)
def test_what_cannot_be_mixed_is_refused(labels, alpha, message):
    with pytest.raises(ValueError, match=message):
        mixup(KEY, CONSTANT, labels, alpha=alpha)


@pytest.mark.parametrize(
    "none", [random_shift(0.0), random_rotation(0.0), random_zoom(0.0), random_cutout(0.0), random_crop(1.0), compose()]
)
def test_strength_zero_changes_nothing(none):
    np.testing.assert_allclose(none(KEY, images_of()), images_of(), rtol=1e-5)


def test_cutout_paints_one_square_in_the_mean():
    images = images_of(shape=(200, 16, 16, 1))
    changed = random_cutout(0.5)(KEY, images) != images
    assert int(changed.sum((1, 2, 3)).max()) == 64  # 8 x 8, when all of it is inside
    assert bool((changed.any(2).sum(1) * changed.any(1).sum(1) == changed.sum((1, 2))).all())


def test_noise_has_the_asked_strength():
    images = jnp.full((8, 32, 32, 1), 0.5).at[0, 0, :2, 0].set(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(float(jnp.std(gaussian_noise(0.05)(KEY, images) - images)), 0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: random_shift(1.0), "max_share must be at least 0 and below 1, got 1.0"),
        (lambda: random_zoom(-0.1), "max_share must be at least 0 and below 1, got -0.1"),
        (lambda: random_cutout(float("nan")), "share must be at least 0 and below 1, got nan"),
        (lambda: gaussian_noise(2), "share must be at least 0 and below 1, got 2"),
        (lambda: random_crop(0.0), "min_share must be above 0 and at most 1, got 0.0"),
        (lambda: random_rotation(181), "max_degrees must be in 0..180, got 181"),
    ],
)
def test_bad_strengths_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
