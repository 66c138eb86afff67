"""Random changes to training images: each function makes an `augment(key, images) -> images` for a problem.

Every change is pure, can be compiled, draws anew for each image, and keeps shape, type and range of the values. `mixup`
alone changes labels too: `mixup_batches` brings it into a loader.

There are libraries for some of these, but none for all: dm-pix flips, turns and crops one image at a time, crops to
another size, and has neither cutout nor mixup.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Shaped

from cnnprobe.checks import check_rank
from cnnprobe.types import Images, Key, Labels

ImageBatch: TypeAlias = Shaped[Array, "batch height width channels"]
Augment: TypeAlias = Callable[[Key, ImageBatch], ImageBatch]


def compose(*augments: Augment) -> Augment:
    """One change after the other, each with a key of its own."""
    return partial(_in_turn, augments)


def random_flip(*, horizontal: bool = True, vertical: bool = False) -> Augment:
    """Mirrors each image with probability one half: left to right, top to bottom, or each by a coin of its own."""
    return partial(_flip, horizontal, vertical)


def random_shift(max_share: float = 0.1) -> Augment:
    """Moves each image by whole pixels, at most `max_share` of its side either way; the rim is repeated."""
    _check_share("max_share", max_share)
    return partial(_shift, max_share)


def random_rotation(max_degrees: float = 15.0) -> Augment:
    """Turns each image about its centre by up to `max_degrees` either way, interpolated; the rim is repeated."""
    if not 0 <= max_degrees <= 180:
        raise ValueError(f"max_degrees must be in 0..180, got {max_degrees!r}.")
    return partial(_rotate, max_degrees)


def random_zoom(max_share: float = 0.1) -> Augment:
    """Enlarges or shrinks each image about its centre by up to `max_share`, interpolated; the rim is repeated."""
    _check_share("max_share", max_share)
    return partial(_zoom, max_share)


def random_crop(min_share: float = 0.6) -> Augment:
    """Cuts a window out of each image at random and enlarges it to the size of the image, interpolated.

    Its sides are `min_share` of the image's at least, both in the same proportion, and it lies inside of the image.

    References:
      Szegedy et al., Going deeper with convolutions, CVPR 2015.
    """
    if not 0 < min_share <= 1:
        raise ValueError(f"min_share must be above 0 and at most 1, got {min_share!r}.")
    return partial(_crop, min_share)


def random_cutout(share: float = 0.25) -> Augment:
    """Paints one square of each image, `share` of its shorter side long, in the image's mean.

    The square's centre is anywhere in the image, so that part of it may lie outside.

    References:
      DeVries & Taylor, Improved regularization of convolutional neural networks with cutout, 2017.
    """
    _check_share("share", share)
    return partial(_cutout, share)


def gaussian_noise(share: float = 0.05) -> Augment:
    """Adds noise to every value: its standard deviation is `share` of the batch's range, which is not left."""
    _check_share("share", share)
    return partial(_noise, share)


def mixup(
    key: Key, images: ImageBatch, labels: Float[Array, "batch classes"], *, alpha: float = 0.2
) -> tuple[ImageBatch, Float[Array, "batch classes"]]:
    """Each image mixed with another one of the batch, and its label with that one's, in the same proportion.

    The proportion is drawn from Beta(`alpha`, `alpha`), anew for each image. `labels` are one-hot or soft.

    Raises:
      ValueError: `labels` are not such rows, or `alpha` is not above 0.

    References:
      Zhang, Cisse, Dauphin & Lopez-Paz, mixup: beyond empirical risk minimization, ICLR 2018.
    """
    check_rank("images", images, 4)
    if jnp.ndim(labels) != 2:
        raise ValueError(
            f"labels must be one-hot or soft to be mixed, [batch, classes], got shape {jnp.shape(labels)}."
        )
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, got {alpha!r}.")
    partner_key, share_key = jax.random.split(key)
    partners = jax.random.permutation(partner_key, len(images))
    shares = jax.random.beta(share_key, alpha, alpha, (len(images), 1))
    values, shares_of_images = images.astype(jnp.float32), shares[:, :, None, None]
    mixed = shares_of_images * values + (1 - shares_of_images) * values[partners]
    return _as_type(mixed, images), shares * labels + (1 - shares) * labels[partners]


def mixup_batches(
    batches: Callable[[int], Iterable[tuple[Images, Labels]]], *, alpha: float = 0.2, seed: int = 0
) -> Callable[[int], Iterator[tuple[Images, Labels]]]:
    """A loader for `problem.batches` that mixes what another one yields: `mixup` with keys of the epoch and the batch.

    The loss must take soft labels, as `optax.softmax_cross_entropy` does; so `train` and `valid` hold one-hot ones.
    """
    return partial(_mixed_epoch, batches, jax.jit(partial(mixup, alpha=alpha)), seed)


# --- the changes themselves --------------------------------------------------------------------------------------


def _in_turn(augments: tuple[Augment, ...], key: Key, images: ImageBatch) -> ImageBatch:
    """All changes, each applied to what the one before it returned."""
    check_rank("images", images, 4)
    for index, augment in enumerate(augments):
        images = augment(jax.random.fold_in(key, index), images)
    return images


def _flip(horizontal: bool, vertical: bool, key: Key, images: ImageBatch) -> ImageBatch:
    """Mirrored images where the coin says so."""
    check_rank("images", images, 4)
    across, down = jax.random.bernoulli(key, 0.5, (2, len(images), 1, 1, 1))
    images = jnp.where(across & horizontal, images[:, :, ::-1], images)
    return jnp.where(down & vertical, images[:, ::-1], images)


def _shift(max_share: float, key: Key, images: ImageBatch) -> ImageBatch:
    """Images moved by whole pixels."""
    check_rank("images", images, 4)
    limits = jnp.array([int(max_share * side) for side in images.shape[1:3]])
    return jax.vmap(_moved)(images, jax.random.randint(key, (len(images), 2), -limits, limits + 1))


def _rotate(max_degrees: float, key: Key, images: ImageBatch) -> ImageBatch:
    """Images turned about their centres."""
    check_rank("images", images, 4)
    limit = jnp.deg2rad(max_degrees)
    angles = jax.random.uniform(key, (len(images),), minval=-limit, maxval=limit)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return _warped(images, jnp.stack([cos, -sin, sin, cos], -1).reshape(-1, 2, 2))


def _zoom(max_share: float, key: Key, images: ImageBatch) -> ImageBatch:
    """Images stretched from their centres."""
    check_rank("images", images, 4)
    factors = jax.random.uniform(key, (len(images), 1, 1), minval=1 - max_share, maxval=1 + max_share)
    return _warped(images, jnp.eye(2) / factors)


def _crop(min_share: float, key: Key, images: ImageBatch) -> ImageBatch:
    """Windows of the images, enlarged."""
    check_rank("images", images, 4)
    size_key, place_key = jax.random.split(key)
    shares = jax.random.uniform(size_key, (len(images), 1), minval=min_share)
    room = (1 - shares) * (jnp.array(images.shape[1:3]) - 1) / 2  # either way from the centre, in pixels
    offsets = room * jax.random.uniform(place_key, (len(images), 2), minval=-1.0)
    return _warped(images, jnp.eye(2) * shares[:, :, None], offsets)


def _cutout(share: float, key: Key, images: ImageBatch) -> ImageBatch:
    """Images with a square of one value."""
    check_rank("images", images, 4)
    num, height, width, _ = images.shape
    half = share * min(height, width) / 2
    row, column = jax.random.uniform(key, (2, num, 1, 1, 1))
    inside_rows = jnp.abs(jnp.arange(height)[:, None, None] + 0.5 - row * height) < half
    inside_columns = jnp.abs(jnp.arange(width)[:, None] + 0.5 - column * width) < half
    means = _as_type(jnp.mean(images.astype(jnp.float32), (1, 2), keepdims=True), images)
    return jnp.where(inside_rows & inside_columns, means, images)


def _noise(share: float, key: Key, images: ImageBatch) -> ImageBatch:
    """Images with noise, clipped to the range that they had."""
    check_rank("images", images, 4)
    values = images.astype(jnp.float32)
    low, high = jnp.min(values), jnp.max(values)
    noisy = values + share * (high - low) * jax.random.normal(key, images.shape)
    return _as_type(jnp.clip(noisy, low, high), images)


def _mixed_epoch(
    batches: Callable[[int], Iterable[tuple[Images, Labels]]], mix: Callable, seed: int, epoch: int
) -> Iterator[tuple[Images, Labels]]:
    """The mixed batches of one epoch."""
    key = jax.random.fold_in(jax.random.key(seed), epoch)
    for index, (images, labels) in enumerate(batches(epoch)):
        yield mix(jax.random.fold_in(key, index), jnp.asarray(images), jnp.asarray(labels))


# --- helpers -----------------------------------------------------------------------------------------------------


def _check_share(name: str, share: float) -> None:
    """Raises `ValueError` unless `share` is a fraction below 1."""
    if not 0 <= share < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, got {share!r}.")


def _moved(image: Shaped[Array, "height width channels"], offset: Shaped[Array, "2"]) -> Shaped[Array, "..."]:
    """One image moved down and right by `offset`."""
    rows = jnp.clip(jnp.arange(image.shape[0]) - offset[0], 0, image.shape[0] - 1)
    columns = jnp.clip(jnp.arange(image.shape[1]) - offset[1], 0, image.shape[1] - 1)
    return image[rows][:, columns]


def _warped(
    images: ImageBatch, matrices: Float[Array, "batch 2 2"], offsets: Float[Array, "batch 2"] | None = None
) -> ImageBatch:
    """Each image with pixel p taken from `matrix @ p + offset`, both counted from the centre."""
    height, width = images.shape[1:3]
    centre = jnp.array([height - 1, width - 1]) / 2
    pixels = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")) - centre[:, None, None]

    offsets = jnp.zeros((len(images), 2)) if offsets is None else offsets

    def _warp(
        image: Float[Array, "height width channels"], matrix: Float[Array, "2 2"], offset: Float[Array, " 2"]
    ) -> Float[Array, "..."]:
        places = list(jnp.einsum("ab,bhw->ahw", matrix, pixels) + (centre + offset)[:, None, None])
        read = partial(map_coordinates, coordinates=places, order=1, mode="nearest")
        return jax.vmap(read, in_axes=-1, out_axes=-1)(image)

    return _as_type(jax.vmap(_warp)(images.astype(jnp.float32), matrices, offsets), images)


def _as_type(values: Float[Array, "..."], images: ImageBatch) -> Shaped[Array, "..."]:
    """Values in the type of the images, rounded if that is whole numbers."""
    whole = jnp.issubdtype(images.dtype, jnp.integer)
    return (jnp.round(values) if whole else values).astype(images.dtype)
