"""Mean and variance per channel, from sums that add up over batches, loops and devices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from cnnprobe.types import AnyArray


class Moments(NamedTuple):
    """Sums over everything but the channels, in float32."""

    num_entries: Float[Array, ""]  # of each channel
    total: Float[Array, " channels"]
    total_squares: Float[Array, " channels"]


class MeanVariance(NamedTuple):
    """Mean and variance of each channel."""

    mean: Float[Array, " channels"]
    variance: Float[Array, " channels"]  # of the entries seen, not the estimate of a population


def moments(x: Shaped[AnyArray, "*rows channels"]) -> Moments:
    """Sums up each channel, the last axis of `x`; NaN or infinite where an entry is.

    The sums suit entries whose mean is below some hundred standard deviations. Beyond that float32 rounds the variance
    away: subtract a constant first.

    Raises:
      ValueError: `x` has no axis.
    """
    rows = channel_rows("x", x)
    return Moments(jnp.float32(len(rows)), jnp.sum(rows, axis=0), jnp.sum(jnp.square(rows), axis=0))


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Moments of both together; associative and commutative.

    Raises:
      ValueError: the two have different numbers of channels.
    """
    check_same_channels("moments", a.total, b.total)
    return jax.tree.map(jnp.add, a, b)


def finish_moments(sums: Moments) -> MeanVariance:
    """Divides the sums by the number of entries; NaN where nothing was counted.

    >>> finish_moments(moments(jnp.array([[1.0, 5.0], [3.0, 5.0]]))).variance.tolist()
    [1.0, 0.0]
    """
    mean = sums.total / sums.num_entries
    # Rounding can bring the difference of two near numbers below 0.
    return MeanVariance(mean, jnp.maximum(sums.total_squares / sums.num_entries - jnp.square(mean), 0))


def channel_rows(name: str, x: Shaped[AnyArray, "*rows channels"]) -> Float[Array, "rows channels"]:
    """All axes but the last as one, in float32: sums of half precision would stall.

    Raises:
      ValueError: `x` has no axis.
    """
    shape = np.shape(x)
    if not shape:
        raise ValueError(f"{name} must have an axis of channels, got shape {shape}.")
    num_rows = int(np.prod(shape[:-1]))
    return jnp.reshape(jnp.asarray(x), (num_rows, shape[-1])).astype(jnp.float32)


def check_same_channels(name: str, a: Float[Array, " channels"], b: Float[Array, " others"]) -> None:
    """Raises `ValueError` unless both hold as many channels."""
    if np.shape(a) != np.shape(b):
        raise ValueError(f"{name} must have as many channels to be merged, got shapes {np.shape(a)} and {np.shape(b)}.")
