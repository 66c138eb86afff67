"""Training mode against evaluation mode, masks, batch statistics, and examples that feel their neighbours."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from cnnprobe.checks import check_integer, check_numbers, check_rank
from cnnprobe.types import AnyArray, Key


class StatisticsDrift(NamedTuple):
    """Distance of running batch statistics from those of the data, over channels; 0: they agree."""

    mean: Float[Array, ""]  # median of |running mean - batch mean| / batch standard deviation; healthy .005
    log_var: Float[Array, ""]  # median of |ln(running variance / batch variance)|; healthy .01, never updated 1.3


def mode_gap(train_outputs: Float[AnyArray, "*shape"], eval_outputs: Float[AnyArray, "*shape"]) -> Float[Array, ""]:
    """Distance of the outputs in training mode from those in evaluation mode, relative to the latter.

    Healthy: 0 without dropout and batch statistics, .02 with batch statistics, .6 with half of the units dropped.
    Infinite where only the evaluation outputs are all 0, and NaN with any NaN.

    Raises:
      ValueError: the two have other shapes.
    """
    check_numbers("train_outputs", train_outputs)
    check_numbers("eval_outputs", eval_outputs)
    if np.shape(train_outputs) != np.shape(eval_outputs):
        shapes = f"{np.shape(train_outputs)} and {np.shape(eval_outputs)}"
        raise ValueError(f"train_outputs and eval_outputs must have one shape, got {shapes}.")
    train, evaluated = jnp.asarray(train_outputs, jnp.float32), jnp.asarray(eval_outputs, jnp.float32)
    return _ratio(_norm(train - evaluated), _norm(evaluated))


def statistics_drift(
    running_mean: Float[AnyArray, " channels"],
    running_var: Float[AnyArray, " channels"],
    batch_mean: Float[AnyArray, " channels"],
    batch_var: Float[AnyArray, " channels"],
) -> StatisticsDrift:
    """How far the statistics that evaluation uses lie from those of the data; take a large batch.

    Channels that do not vary in the batch, and non-finite ones, are left out; NaN without any other.

    Raises:
      ValueError: the four have other shapes than one.
    """
    given = {"running_mean": running_mean, "running_var": running_var, "batch_mean": batch_mean, "batch_var": batch_var}
    for name, values in given.items():
        check_numbers(name, values)
    shapes = {np.shape(x) for x in given.values()}
    if len(shapes) > 1:
        raise ValueError(f"running and batch statistics must have one shape, got {sorted(shapes)}.")
    var = jnp.asarray(batch_var, jnp.float32)
    kept = var > 0
    safe = jnp.where(kept, var, 1)
    running, mean = jnp.asarray(running_mean, jnp.float32), jnp.asarray(batch_mean, jnp.float32)
    distance = jnp.abs(running - mean) / jnp.sqrt(safe)
    # A variance of 0 that is used for every image is far off: the floor makes its logarithm large, not infinite.
    log_ratio = jnp.abs(jnp.log(jnp.maximum(jnp.asarray(running_var), 1e-12) / safe))
    return StatisticsDrift(mean=_median(distance, kept), log_var=_median(log_ratio, kept))


def mask_variance_ratio(outputs: Float[AnyArray, "masks batch classes"]) -> Float[Array, ""]:
    """Variance of the outputs over dropout masks, relative to that of their mean over images.

    `outputs` are those of the same images under several keys. Healthy: 0 without dropout, .3 with half of the units
    dropped; above 1 the masks say more than the images. Huge where only the masks matter; 0 for constant outputs.

    Raises:
      ValueError: `outputs` has not three axes.
    """
    check_rank("outputs", outputs, 3)
    outputs = jnp.asarray(outputs, jnp.float32)
    return _ratio(jnp.mean(jnp.var(outputs, axis=0)), jnp.mean(jnp.var(jnp.mean(outputs, axis=0), axis=0)))


def mask_sharing(outputs: Float[AnyArray, "masks images copies classes"]) -> Float[Array, ""]:
    """Correlation of what masks do to copies of one image: 0 for a mask of each copy's own, 1 for one that all share.

    `outputs` are those of batches that hold each image twice or more often, under several keys. A mask shared by the
    batch (a key used once for all, a mask broadcast over the batch) moves all copies alike, whatever it means to the
    image. Chance leaves about `1 / sqrt(masks * images)` on either side of 0; 0 without dropout.

    Raises:
      ValueError: `outputs` has not four axes, or there are no two copies.
    """
    check_rank("outputs", outputs, 4)
    copies = np.shape(outputs)[2]
    check_integer("copies", copies, 2)
    outputs = jnp.asarray(outputs, jnp.float32)
    deviations = outputs - jnp.mean(outputs, axis=0)
    squares = jnp.mean(jnp.square(deviations))
    common = (copies * jnp.mean(jnp.square(jnp.mean(deviations, axis=2))) - squares) / (copies - 1)
    return jnp.sign(common) * _ratio(jnp.abs(common), squares)


def cross_example_jacobian(
    fn: Callable[[Float[Array, " batch *image"]], Float[Array, " batch *out"]],
    images: Shaped[AnyArray, " batch *image"],
    *,
    key: Key | None = None,
    num_probes: int = 4,
) -> Float[Array, ""]:
    """Share of the outputs' dependence on images that crosses from one example to another, in [0, 1].

    For a few examples i the gradient of a random projection of their output: sum over j != i of |d out_i / d x_j|,
    relative to the sum over all j. Healthy: 0, with normalisation in evaluation mode; .9 after a wrong reshape. NaN
    where no output depends on any image.

    Raises:
      ValueError: `fn` does not return one row per image, or `num_probes` is below 1.
    """
    check_integer("num_probes", num_probes, 1)
    check_numbers("images", images)
    if np.ndim(images) < 1 or len(images) < 1:
        raise ValueError(f"images must hold at least one image, got shape {np.shape(images)}.")
    outputs, pull = jax.vjp(fn, jnp.asarray(images, jnp.float32))
    num = len(images)
    if outputs.shape[:1] != (num,):
        raise ValueError(f"fn must return one row for each of {num} images, got shape {outputs.shape}.")
    probes = jax.random.normal(jax.random.key(0) if key is None else key, (num_probes, *outputs.shape), outputs.dtype)
    # Spread over the batch: a leak may reach some places of it only.
    chosen = jnp.arange(num_probes) * num // num_probes
    mine = jnp.arange(num) == chosen[:, None]
    (gradients,) = jax.vmap(pull)(jnp.where(mine.reshape(num_probes, num, *[1] * (outputs.ndim - 1)), probes, 0))
    norms = jnp.linalg.norm(gradients.reshape(num_probes, num, -1), axis=-1)
    total = jnp.sum(norms)
    return jnp.where(total > 0, jnp.sum(jnp.where(mine, 0, norms)) / jnp.where(total > 0, total, 1), jnp.nan)


def _norm(x: Float[Array, "*shape"]) -> Float[Array, ""]:
    """Euclidean norm over all axes, scaled against overflow."""
    largest = jnp.max(jnp.abs(x), initial=0)
    scale = jnp.where(largest > 0, largest, 1)
    return scale * jnp.sqrt(jnp.sum(jnp.square(x / scale)))


def _median(values: Float[Array, " n"], kept: Bool[Array, " n"]) -> Float[Array, ""]:
    """Median of the finite values that are kept; NaN without any."""
    if not values.size:
        return jnp.float32(jnp.nan)
    return jnp.nanmedian(jnp.where(kept & jnp.isfinite(values), values, jnp.nan))


def _ratio(numerator: Float[Array, ""], denominator: Float[Array, ""]) -> Float[Array, ""]:
    """Quotient of two numbers that are not negative; x/0 is infinite, 0/0 is 0, and NaN stays."""
    by_zero = jnp.where(numerator == 0, 0, jnp.where(jnp.isnan(numerator), jnp.nan, jnp.inf))
    return jnp.where(denominator == 0, by_zero, numerator / jnp.where(denominator == 0, 1, denominator))
