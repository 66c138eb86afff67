"""What the cases share: losses as people write them, and images brought to size."""

from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Shaped

from cnnprobe.checks import check_one_of
from cnnprobe.data.bundled import ImageSet
from cnnprobe.types import Dataset, Images, Labels, Problem

T = TypeVar("T")
Fault: TypeAlias = Callable[[Problem, int], Problem]  # of the healthy problem and its width
SMALLEST_PROBABILITY = 1e-7


def cross_entropy(logits: Float[Array, "batch classes"], labels: Labels) -> Float[Array, ""]:
    """Mean cross-entropy from logits, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def log_likelihood_loss(probabilities: Float[Array, "batch classes"], labels: Labels) -> Float[Array, ""]:
    """Mean negative log-likelihood from probabilities, in nats."""
    chosen = jnp.take_along_axis(probabilities, labels[:, None], axis=1)
    return -jnp.log(jnp.clip(chosen, SMALLEST_PROBABILITY, 1.0)).mean()


def scale_pixels(images: Images) -> Float[np.ndarray, "..."]:
    """Bytes to the range 0 to 1."""
    return np.asarray(images, np.float32) / 255


def centre_pixels(images: Images) -> Float[np.ndarray, "..."]:
    """Bytes to the range -1 to 1."""
    return np.asarray(images, np.float32) / 127.5 - 1


def resized(images: Images, size: int) -> Shaped[np.ndarray, "n size size channels"]:
    """Bytes interpolated to squares of `size` pixels; as they are where they have that size."""
    images = np.asarray(images)
    if images.shape[1:3] == (size, size):
        return images
    shape = (len(images), size, size, images.shape[-1])
    smooth = jax.image.resize(jnp.asarray(images, jnp.float32), shape, "linear")
    return np.clip(np.round(np.asarray(smooth)), 0, 255).astype(np.uint8)


def fitted(data: ImageSet, *, size: int, channels: int, num_train: int, num_valid: int) -> ImageSet:
    """Some images of a set of the user's own, as bytes of the size and the channels that a case has.

    They are drawn at random, since files are read folder by folder; fewer than asked for are all taken. Floating-point
    images are held to lie in [0, 1].

    Raises:
      ValueError: there is no part to validate on.
    """
    if data.valid is None:
        raise ValueError("data.valid must hold images, got None.")
    parts = (_fitted(data.train, size, channels, num_train), _fitted(data.valid, size, channels, num_valid))
    return ImageSet(*parts, data.class_names)


def _fitted(part: Dataset, size: int, channels: int, num: int) -> Dataset:
    """Some images of one part."""
    drawn = np.random.default_rng(0).permutation(len(part.labels))[:num]
    images = np.asarray(part.images)[drawn]
    if images.dtype != np.uint8:
        images = np.clip(np.round(255 * images), 0, 255).astype(np.uint8)
    if images.shape[-1] != channels:
        gray = images.mean(axis=-1, keepdims=True).round().astype(np.uint8)
        images = np.repeat(gray, channels, axis=-1)
    return Dataset(resized(images, size), np.asarray(part.labels, np.int32)[drawn])


def unchanged(problem: Problem, width: int) -> Problem:
    """The problem without a fault."""
    del width
    return problem


def chosen_fault(fault: str | None, faults: Mapping[str, T], healthy: T) -> T:
    """The entry of that name; `healthy` for None.

    Raises:
      ValueError: there is no such fault; the message lists them.
    """
    if fault is None:
        return healthy
    check_one_of("fault", fault, faults)
    return faults[fault]
