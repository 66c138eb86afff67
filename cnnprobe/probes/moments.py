"""Mean and variance per channel, in a form that merges over batches, loops and devices."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from cnnprobe.checks import check_numbers
from cnnprobe.types import AnyArray


class Moments(NamedTuple):
    """What mean and variance are made of, over everything but the channels, in float32."""

    num_entries: Float[Array, ""]  # of each channel
    mean: Float[Array, " channels"]  # 0 where nothing was counted
    squares: Float[Array, " channels"]  # summed squares of the distances from the mean


class MeanVariance(NamedTuple):
    """Mean and variance of each channel."""

    mean: Float[Array, " channels"]
    variance: Float[Array, " channels"]  # of the entries seen, not the estimate of a population


def moments(x: Shaped[AnyArray, "*rows channels"]) -> Moments:
    """Sums up each channel, the last axis of `x`; NaN or infinite where an entry is.

    The squares are of distances from the mean: those of the entries themselves would round away a small spread about a
    large mean.

    Raises:
      ValueError: `x` has no axis.
    """
    rows = channel_rows("x", x)
    mean = jnp.sum(rows, axis=0) / max(len(rows), 1)
    return Moments(jnp.float32(len(rows)), mean, jnp.sum(jnp.square(rows - mean), axis=0))


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Moments of both together; associative and commutative to rounding.

    Raises:
      ValueError: the two have different numbers of channels.

    References:
      Chan, Golub & LeVeque, Algorithms for computing the sample variance, The American Statistician 1983.
    """
    check_same_channels("moments", a.mean, b.mean)
    num_entries = a.num_entries + b.num_entries
    share = b.num_entries / jnp.maximum(num_entries, 1)
    distance = b.mean - a.mean
    return Moments(
        num_entries=num_entries,
        mean=a.mean + distance * share,
        squares=a.squares + b.squares + jnp.square(distance) * a.num_entries * share,
    )


def finish_moments(sums: Moments) -> MeanVariance:
    """Divides by the number of entries; NaN where nothing was counted.

    >>> finish_moments(moments(jnp.array([[1.0, 5.0], [3.0, 5.0]]))).variance.tolist()
    [1.0, 0.0]
    """
    mean = jnp.where(sums.num_entries > 0, sums.mean, jnp.nan)
    return MeanVariance(mean, sums.squares / sums.num_entries)


def channel_rows(name: str, x: Shaped[AnyArray, "*rows channels"]) -> Float[Array, "rows channels"]:
    """All axes but the last as one, in float32: sums of half precision would stall.

    Raises:
      ValueError: `x` is no array of real numbers, or has no axis.
    """
    check_numbers(name, x)
    shape = np.shape(x)
    if not shape:
        raise ValueError(f"{name} must have an axis of channels, got shape {shape}.")
    num_rows = int(np.prod(shape[:-1]))
    return jnp.reshape(jnp.asarray(x), (num_rows, shape[-1])).astype(jnp.float32)


def check_same_channels(name: str, a: Float[Array, " channels"], b: Float[Array, " others"]) -> None:
    """Raises `ValueError` unless both hold as many channels."""
    if np.shape(a) != np.shape(b):
        raise ValueError(f"{name} must have as many channels to be merged, got shapes {np.shape(a)} and {np.shape(b)}.")
