"""Features that need no training: coarse pixels, and random convolutions that also read textures."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from cnnprobe.checks import check_integer
from cnnprobe.compiling import quick_jit
from cnnprobe.types import AnyArray, Key

_CHUNK = 64  # images per call of the compiled feature function: bounds its memory
_GRID = 4  # random features are pooled on a grid of this many cells a side
_NUM_FILTERS = 16  # per scale


def image_rows(name: str, images: Shaped[AnyArray, " n *image"]) -> Float[np.ndarray, "n d"]:
    """Images of any numeric type as float32 rows; what overflows becomes infinite.

    Raises:
      ValueError: there is no image, or images are single numbers; `name` is what the message calls them.
    """
    if np.ndim(images) < 2 or np.size(images) == 0:
        raise ValueError(f"{name} must hold at least one image of at least one axis, got shape {np.shape(images)}.")
    with np.errstate(over="ignore"):
        return np.asarray(images).astype(np.float32).reshape(len(images), -1)


def pixel_features(
    images: Shaped[AnyArray, " n *image"], *, max_features: int = 1024
) -> Float[np.ndarray, "n features"]:
    """Images as rows of at most about `max_features` numbers: averages over square blocks of pixels.

    Rows that are no images (`[n, features]`) are thinned evenly instead. Non-finite entries become 0.
    """
    check_integer("max_features", max_features, 1)
    rows = image_rows("images", images)
    shape = np.shape(images)
    if len(shape) < 3 or rows.shape[1] <= max_features:
        return np.nan_to_num(rows[:, :: -(-rows.shape[1] // max_features)], posinf=0, neginf=0)
    height, width = shape[1:3]
    down = min(math.ceil(math.sqrt(rows.shape[1] / max_features)), height)
    across = min(math.ceil(rows.shape[1] / max_features / down), width)
    pixels = rows.reshape(len(rows), height, width, -1)[:, : height // down * down, : width // across * across]
    pixels = np.nan_to_num(pixels, posinf=0, neginf=0)
    blocks = pixels.reshape(len(rows), height // down, down, width // across, across, -1)
    return blocks.mean(axis=(2, 4)).reshape(len(rows), -1)


def random_features(images: Shaped[AnyArray, "n height width *channels"], *, seed: int = 0) -> Float[np.ndarray, "n d"]:
    """Fixed random convolutions at up to three scales, pooled over a coarse grid, beside coarse pixels.

    Each scale gives the mean absolute response in every cell of a 4 x 4 grid, and its maximum and standard deviation
    over the image: the grid reads shapes, the rest reads textures. Each row depends on its image alone. Linear
    classifiers on such features need standardised columns; `ridge_accuracy` does that.

    Raises:
      ValueError: `images` are not `[n, height, width]` or `[n, height, width, channels]`.

    References:
      Saxe et al., On random weights and unsupervised feature learning, ICML 2011.
    """
    if np.ndim(images) not in (3, 4):
        raise ValueError(f"images must have 3 or 4 axes, got shape {np.shape(images)}.")
    height, width = np.shape(images)[1:3]
    pixels = image_rows("images", images).reshape(len(images), height, width, -1)
    pixels = np.nan_to_num(pixels, posinf=0, neginf=0)
    padded = np.pad(pixels, [(0, -len(pixels) % _CHUNK), (0, 0), (0, 0), (0, 0)])
    chunks = padded.reshape(-1, _CHUNK, *pixels.shape[1:])
    pooled = [np.asarray(_convolution_features(jax.random.key(seed), chunk)) for chunk in chunks]
    responses = np.concatenate(pooled)[: len(pixels)]
    return np.concatenate([responses, pixel_features(pixels, max_features=256)], axis=1)


@quick_jit
def _convolution_features(key: Key, images: Float[Array, "n height width channels"]) -> Float[Array, "n d"]:
    """Pooled responses of random filters to images at full, half and quarter size."""
    scales = [images]
    while len(scales) < 3 and min(scales[-1].shape[1:3]) >= 16:
        scales.append(_halve(scales[-1]))
    keys = jax.random.split(key, len(scales))
    pooled = [_pool(_convolve(*pair)) for pair in zip(keys, scales, strict=True)]
    return jnp.concatenate(pooled, axis=1)


def _halve(images: Float[Array, "n height width channels"]) -> Float[Array, "n halfheight halfwidth channels"]:
    """Means over 2 x 2 pixels; an odd last row or column is left out."""
    num, height, width, channels = images.shape
    even = images[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(num, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def _convolve(key: Key, images: Float[Array, "n height width channels"]) -> Float[Array, "n rows columns filters"]:
    """Responses to random 5 x 5 filters of zero mean, on at most about 64 x 64 positions."""
    filters = jax.random.normal(key, (5, 5, images.shape[-1], _NUM_FILTERS))
    filters = filters - filters.mean(axis=(0, 1, 2))
    stride = max(1, math.ceil(min(images.shape[1:3]) / 64))
    padded = jnp.pad(images, [(0, 0), (2, 2), (2, 2), (0, 0)], mode="edge")
    return jax.lax.conv_general_dilated(
        padded, filters, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _pool(responses: Float[Array, "n rows columns filters"]) -> Float[Array, "n d"]:
    """Mean absolute response per cell of a coarse grid, and maximum and standard deviation over the image."""
    num, height, width, filters = responses.shape
    down, across = min(_GRID, height), min(_GRID, width)
    cells = jnp.abs(responses[:, : height // down * down, : width // across * across])
    cells = cells.reshape(num, down, height // down, across, width // across, filters).mean(axis=(2, 4))
    parts = [cells.reshape(num, -1), responses.max(axis=(1, 2)), responses.std(axis=(1, 2))]
    return jnp.concatenate(parts, axis=1)
