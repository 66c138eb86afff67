"""Predictions: their spread over the classes, how sure they are, and whether they depend on the images at all."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from cnnprobe.checks import check_integer, check_rank, check_same_length
from cnnprobe.types import AnyArray


class PredictionStats(NamedTuple):
    """What a batch of logits predicts; all but the last two are over the rows that are finite, NaN without any."""

    class_share: Float[Array, " classes"]  # fraction of images predicted to be of each class
    top_class: Int[Array, ""]  # predicted most often, the first of several; -1 without a finite row
    top_share: Float[Array, ""]  # its fraction of the images
    entropy: Float[Array, ""]  # of `class_share`, divided by ln(classes): 0 one class, 1 all equally often
    mean_entropy: Float[Array, ""]  # of each image's softmax, divided by ln(classes): 0 sure, 1 undecided
    confidence: Float[Array, ""]  # mean largest softmax probability
    num_nonfinite: Int[Array, ""]  # rows with a NaN or infinite entry
    accuracy: Float[Array, ""]  # rows that are not finite count as wrong; NaN without labels


def prediction_stats(
    logits: Shaped[AnyArray, "batch classes"], labels: Shaped[AnyArray, " batch"] | None = None
) -> PredictionStats:
    """Describes what logits predict; `labels` are class ids.

    A network that has not learnt yet predicts one class too: on its own, a large `top_share` is no fault.

    Raises:
      ValueError: `logits` are not rows of two classes or more, or `labels` are not one id for each row.

    >>> float(prediction_stats(jnp.array([[2.0, 1.0], [3.0, 0.0], [0.0, 1.0], [1.0, 0.0]])).top_share)
    0.75
    """
    rows, finite = _finite_rows(logits)
    predicted = jnp.argmax(rows, axis=1)
    log_probs = jax.nn.log_softmax(rows)
    probs = jnp.exp(log_probs)
    class_share = class_counts(jnp.where(finite, predicted, -1), rows.shape[1]) / jnp.sum(finite)
    return PredictionStats(
        class_share=class_share,
        top_class=jnp.where(jnp.any(finite), jnp.argmax(class_share), -1),
        top_share=jnp.max(class_share),
        entropy=_entropy(class_share, jnp.log(jnp.where(class_share > 0, class_share, 1))),
        # A probability that underflows may have an infinite logarithm.
        mean_entropy=jnp.mean(_entropy(probs, jnp.where(probs > 0, log_probs, 0)), where=finite),
        confidence=jnp.mean(jnp.max(probs, axis=1), where=finite),
        num_nonfinite=jnp.sum(~finite),
        accuracy=_accuracy(jnp.where(finite, predicted, -1), labels),
    )


def class_counts(ids: Shaped[AnyArray, " n"], num_classes: int) -> Int[Array, " classes"]:
    """Number of ids of each class; what is no whole number from 0 to `num_classes - 1` is in no class.

    Raises:
      ValueError: `ids` has not one axis, or `num_classes` is below 1.

    >>> class_counts(jnp.array([0, 2, 2, -1, 3]), 3).tolist()
    [1, 0, 2]
    """
    check_rank("ids", ids, 1)
    check_integer("num_classes", num_classes, 1)
    return jnp.bincount(_places(ids, num_classes), length=num_classes)


def balanced_accuracy(
    predictions: Shaped[AnyArray, " n"], labels: Shaped[AnyArray, " n"], num_classes: int
) -> Float[Array, ""]:
    """Mean recall over the classes that occur among the labels: 1 / their number for a constant prediction.

    A prediction outside the classes is wrong. A label outside the classes is left out with its prediction; NaN where
    none is left.

    Raises:
      ValueError: the two are not as many ids, or `num_classes` is below 1.

    >>> float(balanced_accuracy(jnp.array([0, 0, 0, 0]), jnp.array([0, 0, 0, 1]), 2))
    0.5
    """
    check_rank("predictions", predictions, 1)
    check_rank("labels", labels, 1)
    check_same_length("predictions", predictions, "labels", labels)
    counts = class_counts(labels, num_classes)
    is_hit = jnp.asarray(predictions) == jnp.asarray(labels)
    hits = class_counts(jnp.where(is_hit, _places(labels, num_classes), num_classes), num_classes)
    return jnp.mean(hits / jnp.maximum(counts, 1), where=counts > 0)


def input_sensitivity(logits: Shaped[AnyArray, "batch classes"]) -> Float[Array, ""]:
    """Share of the logits' mean square, without what all classes have in common, that differs between images.

    In [0, 1]: 0 for outputs that are the same for every image or for every class, 1 for outputs that are 0 on average.
    Healthy networks read .06 to .2 before training and .8 to 1 after it, dead ones 1e-11. Rows that are not finite are
    left out; NaN without any other.

    Raises:
      ValueError: `logits` are not rows of two classes or more.
    """
    rows, finite = _finite_rows(logits)
    # Differences to the first class and to one row are exactly 0 where the outputs do not vary; the rounding of a mean
    # would leave a variance. They come before the scale, which a compiler may fuse into them and round. Halves, so that
    # the difference of two large logits does not overflow.
    rows = rows / 2 - rows[:, :1] / 2
    differences = rows / 2 - rows[jnp.argmax(finite)] / 2
    peak = jnp.max(jnp.abs(rows))
    scale = jnp.where(peak > 0, peak, 1)  # the squares of large logits would overflow
    rows, differences = rows / scale, 2 * (differences / scale)
    variance = jnp.mean(jnp.var(_centred(differences), axis=0, where=finite[:, None]))
    mean_square = jnp.mean(jnp.square(_centred(rows)), where=finite[:, None])
    is_rounding = mean_square < 1e-13  # of numbers up to 1: a quotient of two roundings says nothing
    return jnp.where(is_rounding, 0, variance) / jnp.where(is_rounding, 1, mean_square)


def _finite_rows(
    logits: Shaped[AnyArray, "batch classes"],
) -> tuple[Float[Array, "batch classes"], Bool[Array, " batch"]]:
    """Logits in float32 with zeros for the rows that are not finite, and which rows are."""
    check_rank("logits", logits, 2)
    if np.shape(logits)[0] < 1 or np.shape(logits)[1] < 2:
        raise ValueError(f"logits must have at least one row and two columns, got shape {np.shape(logits)}.")
    rows = jnp.asarray(logits).astype(jnp.float32)
    finite = jnp.all(jnp.isfinite(rows), axis=1)
    return jnp.where(finite[:, None], rows, 0), finite


def _places(ids: Shaped[AnyArray, " n"], num_classes: int) -> Int[Array, " n"]:
    """The ids as integers; `num_classes` for each that is in no class."""
    values = jnp.asarray(ids).astype(jnp.float32)  # exact for ids up to 2 ** 24, and holds NaN
    is_class = (values >= 0) & (values < num_classes) & (values == jnp.round(values))
    return jnp.where(is_class, values, num_classes).astype(jnp.int32)


def _entropy(probs: Float[Array, "... classes"], log_probs: Float[Array, "... classes"]) -> Float[Array, "..."]:
    """Entropy of each row, divided by that of equal shares."""
    return jnp.sum(-probs * log_probs, axis=-1) / np.log(probs.shape[-1])


def _accuracy(predicted: Int[Array, " batch"], labels: Shaped[AnyArray, " batch"] | None) -> Float[Array, ""]:
    """Share of equal ids where the prediction is a class; NaN without labels."""
    if labels is None:
        return jnp.float32(jnp.nan)
    check_rank("labels", labels, 1)
    check_same_length("logits", predicted, "labels", labels)
    return jnp.mean((predicted >= 0) & (predicted == jnp.asarray(labels)))


def _centred(rows: Float[Array, "batch classes"]) -> Float[Array, "batch classes"]:
    """Rows without their means."""
    return rows - jnp.mean(rows, axis=1, keepdims=True)
