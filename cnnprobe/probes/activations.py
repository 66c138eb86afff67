"""Activations: their scale, and how many units still say something, each in a way of its own.

A unit is a channel, the last axis: a convolution's is taken over images and positions, a dense layer's over images.
"""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from cnnprobe.checks import check_rank
from cnnprobe.probes.moments import (
    Moments,
    channel_rows,
    check_same_channels,
    finish_moments,
    merge_moments,
    moments,
)
from cnnprobe.types import AnyArray

Bound: TypeAlias = float | tuple[float, float]  # 0.99 for tanh, (0.01, 0.99) for a sigmoid


class ActivationStats(NamedTuple):
    """Summary of one layer's activations; the first four are NaN or infinite where an entry is."""

    mean: Float[Array, ""]
    std: Float[Array, ""]
    min: Float[Array, ""]
    max: Float[Array, ""]
    zero_share: Float[Array, ""]  # fraction of entries that are exactly 0
    dead_share: Float[Array, ""]  # fraction of units that are never above 0
    saturated_share: Float[Array, ""]  # fraction of entries at `bound` or beyond; NaN without a bound
    num_nonfinite: Float[Array, ""]  # NaN or infinite entries


class ActivationSums(NamedTuple):
    """What `ActivationStats` is made of, per unit; adds up over batches."""

    moments: Moments
    min: Float[Array, " channels"]
    max: Float[Array, " channels"]
    num_zeros: Float[Array, " channels"]
    num_saturated: Float[Array, " channels"]
    num_nonfinite: Float[Array, " channels"]


def activation_stats(x: Shaped[AnyArray, "*rows channels"], *, bound: Bound | None = None) -> ActivationStats:
    """Summarises the activations of one layer.

    Args:
      x: activations; the last axis holds the units.
      bound: where the activation saturates: a size, or the lower and the upper end.

    Raises:
      ValueError: `x` has no entries or no axis, or `bound` is no such number or pair.

    >>> float(activation_stats(jnp.array([[0.0, 1.0], [0.0, 3.0]])).dead_share)
    0.5
    """
    return finish_activations(activation_sums(x, bound=bound))


def activation_sums(x: Shaped[AnyArray, "*rows channels"], *, bound: Bound | None = None) -> ActivationSums:
    """The mergeable form of `activation_stats`, of the same arguments and errors."""
    rows = channel_rows("x", x)
    if rows.size == 0:
        raise ValueError(f"x must hold at least one activation, got shape {np.shape(x)}.")
    return ActivationSums(
        moments=moments(rows),
        min=jnp.min(rows, axis=0),
        max=jnp.max(rows, axis=0),
        num_zeros=_count(rows == 0),
        num_saturated=_num_saturated(rows, bound),
        num_nonfinite=_count(~jnp.isfinite(rows)),
    )


def merge_activations(a: ActivationSums, b: ActivationSums) -> ActivationSums:
    """Sums of both together; associative and commutative. Both must have been taken with the same bound.

    Raises:
      ValueError: the two have different numbers of units.
    """
    check_same_channels("activations", a.max, b.max)
    return ActivationSums(
        moments=merge_moments(a.moments, b.moments),
        min=jnp.minimum(a.min, b.min),
        max=jnp.maximum(a.max, b.max),
        num_zeros=a.num_zeros + b.num_zeros,
        num_saturated=a.num_saturated + b.num_saturated,
        num_nonfinite=a.num_nonfinite + b.num_nonfinite,
    )


def finish_activations(sums: ActivationSums) -> ActivationStats:
    """Statistics over all units, from sums of each."""
    mean, variance = finish_moments(sums.moments)
    num_entries = sums.moments.num_entries
    return ActivationStats(
        mean=jnp.mean(mean),
        std=jnp.sqrt(jnp.mean(variance) + jnp.var(mean)),
        min=jnp.min(sums.min),
        max=jnp.max(sums.max),
        zero_share=jnp.mean(sums.num_zeros / num_entries),
        dead_share=jnp.mean(sums.max <= 0),
        saturated_share=jnp.mean(sums.num_saturated / num_entries),
        num_nonfinite=jnp.sum(sums.num_nonfinite),
    )


def effective_rank(
    features: Shaped[AnyArray, "batch channels"], *, centred: bool = False, squared: bool = False
) -> Float[Array, ""]:
    """Exponential entropy of the normalised singular values: from 1, all rows alike, to the smaller of the two sizes.

    Rows with a NaN or an infinity are left out. Features that are all 0 have rank 0, and so have equal rows if centred.

    Args:
      features: one row per image.
      centred: subtract the mean row first, so that features shared by all images do not count.
      squared: normalise the squares of the singular values, the variances along the principal axes.

    Raises:
      ValueError: `features` is no matrix.

    References:
      Roy & Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007.
    """
    check_rank("features", features, 2)
    rows, kept = _finite_rows(channel_rows("features", features))
    if centred:
        rows = jnp.where(kept, rows - jnp.sum(rows, axis=0) / jnp.maximum(jnp.sum(kept), 1), 0)
    sizes = jnp.linalg.svd(rows, compute_uv=False)
    # What lies within the rounding of entries of size 1 is no direction of its own.
    sizes = jnp.where(sizes > 8 * jnp.finfo(sizes.dtype).eps * np.sqrt(rows.size), sizes, 0)
    sizes = jnp.square(sizes) if squared else sizes
    total = jnp.sum(sizes)
    shares = sizes / jnp.where(total > 0, total, 1)
    # The inner `where` keeps log(0) out of the graph: masking its result would still leave a NaN in the gradient.
    entropy = -jnp.sum(shares * jnp.log(jnp.where(shares > 0, shares, 1)))
    return jnp.where(total > 0, jnp.exp(entropy), 0)


def duplicate_units(kernel: Shaped[AnyArray, "*window inputs units"]) -> Float[Array, ""]:
    """Largest absolute cosine between the incoming weights of two different units, in [0, 1].

    1 where two units compute the same thing and will do so for ever, as after a constant initialisation. Few inputs
    bring random weights near 1 too (and a single input always to 1), so compare with a fresh kernel. Units whose
    weights are all 0 resemble none; the reading is 0 for a single unit and NaN where a weight is not finite.

    Raises:
      ValueError: `kernel` has fewer than two axes.
    """
    if np.ndim(kernel) < 2:
        raise ValueError(f"kernel must have at least 2 axes, got shape {np.shape(kernel)}.")
    columns = channel_rows("kernel", kernel)
    columns = columns / jnp.clip(jnp.max(jnp.abs(columns), axis=0, initial=0), 1e-37, 1e37)
    lengths = jnp.sqrt(jnp.sum(jnp.square(columns), axis=0))
    columns = columns / jnp.where(lengths == 0, 1, lengths)
    # The default precision of accelerators would blur what is equal and what is not.
    cosines = jnp.abs(jnp.matmul(columns.T, columns, precision=jax.lax.Precision.HIGHEST))
    off_diagonal = jnp.where(jnp.eye(len(cosines), dtype=bool), 0, cosines)
    largest = jnp.clip(jnp.max(off_diagonal, initial=0), 0, 1)
    return jnp.where(jnp.all(jnp.isfinite(columns)), largest, jnp.nan)


def _count(marks: Shaped[Array, "rows channels"]) -> Float[Array, " channels"]:
    """How many rows are marked, for each channel."""
    return jnp.sum(marks, axis=0).astype(jnp.float32)


def _num_saturated(rows: Float[Array, "rows channels"], bound: Bound | None) -> Float[Array, " channels"]:
    """Entries at the bound or beyond it, for each channel; NaN without a bound."""
    if bound is None:
        return jnp.full(rows.shape[1], jnp.nan)
    ends = tuple(bound) if isinstance(bound, tuple | list) else (-bound, bound)
    if len(ends) != 2 or not ends[0] < ends[1]:
        raise ValueError(f"bound must be a number above 0, or a lower and an upper end, got {bound!r}.")
    return _count((rows <= ends[0]) | (rows >= ends[1]))


def _finite_rows(rows: Float[Array, "batch channels"]) -> tuple[Float[Array, "batch channels"], Array]:
    """Rows divided by their largest entry, with zeros, which add nothing, for those not finite; and which are."""
    kept = jnp.all(jnp.isfinite(rows), axis=1, keepdims=True)
    rows = jnp.where(kept, rows, 0)
    return rows / jnp.clip(jnp.max(jnp.abs(rows), initial=0), 1e-37, 1e37), kept
