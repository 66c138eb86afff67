"""Gradients: their size, whether two of them agree, and how much of them is noise."""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnnprobe.checks import check_integer, check_numbers
from cnnprobe.probes.vectors import Vector, check_same_shapes, tree_cosine, tree_norm
from cnnprobe.types import AnyArray

Norms: TypeAlias = float | Float[AnyArray, "..."]  # squared, of one measurement or of many


class GradientStats(NamedTuple):
    """Summary of one gradient array; the first three are NaN or infinite where an entry is."""

    norm: Float[Array, ""]  # Euclidean
    rms: Float[Array, ""]  # norm / sqrt(size): comparable across layers
    max: Float[Array, ""]  # of the absolute values
    zero_share: Float[Array, ""]  # fraction of entries that are exactly 0; healthy below .3, dead above .95
    num_nonfinite: Float[Array, ""]  # NaN or infinite entries


class NoiseSums(NamedTuple):
    """Squared gradient norms at two batch sizes, summed over measurements."""

    num_measurements: Float[Array, ""]
    small_total: Float[Array, ""]
    big_total: Float[Array, ""]


class GradientNoise(NamedTuple):
    """The gradient noise scale and what it is the quotient of; unbiased estimates, so either may be below 0."""

    noise_scale: Float[Array, ""]  # in examples: batches far above it waste examples; infinite without a signal
    noise: Float[Array, ""]  # trace of the covariance of the gradient of one example
    signal: Float[Array, ""]  # squared norm of the gradient over all data


def gradient_stats(grad: Float[AnyArray, "..."]) -> GradientStats:
    """Summarises one gradient array; lift it over a tree with `per_layer`. An array without entries gives zeros.

    >>> gradient_stats(jnp.array([3.0, -4.0])).norm.item()
    5.0
    """
    check_numbers("grad", grad)
    values = jnp.asarray(grad).astype(jnp.float32)
    size, norm = max(values.size, 1), tree_norm(values)
    return GradientStats(
        norm=norm,
        rms=norm / jnp.sqrt(jnp.float32(size)),
        max=jnp.max(jnp.abs(values), initial=0),
        zero_share=jnp.sum(values == 0) / jnp.float32(size),
        num_nonfinite=jnp.sum(~jnp.isfinite(values)).astype(jnp.float32),
    )


def gradient_cosine(grads: Vector, other_grads: Vector) -> Float[Array, ""]:
    """Cosine of the angle between two gradients, over all entries of both trees.

    0 where one of them is all zeros; NaN where an entry is not finite. Between batches it is near 0 for many healthy
    networks too.

    Raises:
      ValueError: the trees have other structures or shapes.
    """
    check_same_shapes("grads", grads, "other_grads", other_grads)
    return tree_cosine(grads, other_grads)


def gradient_noise_scale(
    small_norm_sq: Norms,
    big_norm_sq: Norms,
    small_batch: int,
    big_batch: int,
) -> GradientNoise:
    """Estimates the batch size at which noise and signal in a gradient are of equal size.

    A single measurement is far too noisy: give those of many steps, or merge `noise_sums`.

    Args:
      small_norm_sq: squared norm of the gradient over `small_batch` examples, as of one micro-batch or device.
      big_norm_sq: squared norm of the gradient over `big_batch` examples, as of the average over micro-batches.
      small_batch: examples, at least 1.
      big_batch: examples, above `small_batch`.

    Raises:
      ValueError: the two have other shapes, or a batch size is out of range.

    References:
      McCandlish et al., An empirical model of large-batch training, 2018, appendix A.1.
    """
    return finish_noise(noise_sums(small_norm_sq, big_norm_sq), small_batch, big_batch)


def noise_sums(small_norm_sq: Norms, big_norm_sq: Norms) -> NoiseSums:
    """The mergeable form of `gradient_noise_scale`: of one measurement, or of many."""
    check_same_shapes("small_norm_sq", small_norm_sq, "big_norm_sq", big_norm_sq)
    small, big = (jnp.asarray(each).astype(jnp.float32) for each in (small_norm_sq, big_norm_sq))
    return NoiseSums(jnp.float32(small.size), jnp.sum(small), jnp.sum(big))


def merge_noise(a: NoiseSums, b: NoiseSums) -> NoiseSums:
    """Measurements of both together; associative and commutative."""
    return jax.tree.map(jnp.add, a, b)


def finish_noise(sums: NoiseSums, small_batch: int, big_batch: int) -> GradientNoise:
    """Divides last, since an average of quotients would be biased. NaN without a measurement."""
    check_integer("small_batch", small_batch, 1)
    check_integer("big_batch", big_batch, small_batch + 1)
    small, big = sums.small_total / sums.num_measurements, sums.big_total / sums.num_measurements
    signal = (big_batch * big - small_batch * small) / (big_batch - small_batch)
    noise = (small - big) / (1 / small_batch - 1 / big_batch)
    return GradientNoise(jnp.where(signal <= 0, jnp.inf, noise / signal), noise, signal)
