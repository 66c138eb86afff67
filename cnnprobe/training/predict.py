"""From outputs and labels to class ids and counts, inside a jitted step and outside alike."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cnnprobe.checks import place_of
from cnnprobe.data.sampling import sample
from cnnprobe.types import Dataset, Labels, Outputs, Problem

NOT_TRACEABLE = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)  # numpy, `if x > 0`
NUM_SAMPLED = 1000  # labels read from a source whose number of classes was not given
WRITES = "item assignment"  # what jax says to a function that writes into an array


def predict_classes(
    outputs: Outputs, num_images: int, *, predict: Callable[[Outputs], Any] | None = None
) -> Int[Array, " batch"] | Float[Array, " batch"]:
    """Class of each image, by the user's own `predict` or else by the largest score.

    Without `predict`, the first array of the outputs counts, averaged over the places of a map. A single score is held
    against 0.5 where all of them lie in [0, 1], else against 0. NaN never wins.

    Raises:
      ValueError: there is not one prediction for each image.
    """
    if predict is None:
        return _one_per_image("outputs", _default_predict(outputs), num_images)
    return _run_predict(predict, outputs, num_images)


def label_classes(labels: Labels) -> Int[Array, " batch"] | None:
    """Class of each label: whole numbers as they are, rows of a `[batch, classes]` array by their largest entry.

    A number that is not whole, NaN among them, is in class -1. None where the labels are neither (a map, a scalar).
    """
    labels = jnp.asarray(labels)
    if labels.dtype == bool:
        labels = labels.astype(jnp.int32)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return jnp.argmax(labels, axis=1).astype(jnp.int32)
    if labels.ndim == 0 or labels.size != labels.shape[0]:
        return None
    column = labels.reshape(-1)
    return jnp.where(column == jnp.round(column), column, -1).astype(jnp.int32)


def count_ids(ids: Array, num_classes: int) -> Int[Array, " classes"]:
    """Images of each class; ids outside `0..num_classes - 1` are in no class."""
    hits: Bool[Array, "batch classes"] = jnp.asarray(ids)[:, None] == jnp.arange(num_classes)
    return jnp.sum(hits, axis=0, dtype=jnp.int32)


def count_classes(problem: Problem, *, seconds: float = math.inf) -> int:
    """The user's number of classes, else the width of the labels, else how many differ (2 at least).

    Of a source, a thousand labels count, or as many as come within `seconds`.
    """
    if problem.num_classes is not None:
        return problem.num_classes
    data = problem.train
    labels = np.asarray(data.labels if isinstance(data, Dataset) else sample(data, NUM_SAMPLED, seconds=seconds).labels)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return labels.shape[1]
    return max(len(np.unique(labels)), 2)


def _default_predict(outputs: Outputs) -> Int[Array, " batch"]:
    """The place of the largest score."""
    leaves = jax.tree.leaves(outputs)
    if not leaves:
        raise ValueError(f"outputs must hold an array, got {outputs!r:.200}.")
    scores = jnp.asarray(leaves[0])
    if scores.ndim > 2:
        scores = scores.mean(axis=tuple(range(1, scores.ndim - 1)))
    if scores.ndim < 2 or scores.shape[1] == 1:
        column = scores.reshape(-1)
        is_probability = jnp.all((column >= 0) & (column <= 1))
        return (column > jnp.where(is_probability, 0.5, 0.0)).astype(jnp.int32)
    return jnp.argmax(jnp.where(jnp.isnan(scores), -jnp.inf, scores), axis=1).astype(jnp.int32)


def _run_predict(predict: Callable[[Outputs], Any], outputs: Outputs, num_images: int) -> Any:
    """The user's metric; one that is written in numpy is called back on the host."""
    name, place = "predict(outputs)", place_of(predict)

    def on_host(outputs: Outputs) -> Int[np.ndarray, " batch"]:
        """The metric on numpy arrays."""
        classes = np.asarray(predict(jax.tree.map(np.array, outputs)))  # copies, which it may write to
        return _one_per_image(name, classes, num_images, place).astype(np.int32)

    try:
        classes = _as_array(name, predict(jax.tree.map(_own, outputs)), place)
    except (*NOT_TRACEABLE, TypeError) as error:
        if not isinstance(error, NOT_TRACEABLE) and WRITES not in str(error):
            raise
        return jax.pure_callback(
            on_host, jax.ShapeDtypeStruct((num_images,), jnp.int32), outputs, vmap_method="sequential"
        )
    return _one_per_image(name, classes, num_images, place)


def _own(leaf: Any) -> Any:
    """A copy of an array that could be written to."""
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


def _as_array(name: str, classes: Any, place: str) -> Array:
    """What the user's metric returned, as an array; raises `ValueError` where it is none."""
    if not isinstance(classes, list | tuple) and not hasattr(classes, "__array__"):
        raise ValueError(f"{name} must be an array of class ids, got a {type(classes).__name__}{place}.")
    return jnp.asarray(classes)


def _one_per_image(name: str, classes: Any, num_images: int, place: str = "") -> Any:
    """The same classes; raises `ValueError` unless there is one for each image."""
    if classes.shape != (num_images,):
        raise ValueError(f"{name} must have a row for each of {num_images} images, got shape {classes.shape}{place}.")
    return classes
