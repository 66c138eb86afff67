"""From the examples as stored to the batch that the model sees."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cnnprobe.checks import place_of
from cnnprobe.models.caching import cached
from cnnprobe.types import Batch, Images, Key, Problem


def prepare(problem: Problem, batch: Batch, key: Key, *, train: bool) -> Batch:
    """What the user does to a batch before the model: `preprocess`, and in training then `augment` with `key`.

    Out of training `preprocess_valid` takes the place of `preprocess` where it is given. Training batches of the
    user's own loader are ready for the model and are returned as they are. `preprocess` runs as ordinary Python on
    whatever arrays the batch holds; `augment` is compiled where that cannot change what it does.

    Raises:
      ValueError: a function does not return one image for each that it is given.
    """
    if train and problem.batches is not None:
        return batch
    name, preprocess = _preprocess_of(problem, train=train)
    images = batch.images
    if preprocess is not None:
        images = _same_number(name, preprocess, preprocess(images), images)
    if train and problem.augment is not None:
        images = _same_number("augment", problem.augment, _augmented(problem.augment, key, images), images)
    return Batch(images, batch.labels)


def _preprocess_of(problem: Problem, *, train: bool) -> tuple[str, Callable[[Images], Images] | None]:
    """The function that serves this kind of batch, with the name of its field."""
    if not train and problem.preprocess_valid is not None:
        return "preprocess_valid", problem.preprocess_valid
    return "preprocess", problem.preprocess


def _augmented(augment: Callable[[Key, Images], Images], key: Key, images: Images) -> Images:
    """The augmented images, compiled if the function allows it."""
    shape, dtype = np.shape(images), jax.dtypes.canonicalize_dtype(np.asarray(images).dtype)
    if _is_pure(augment, shape, dtype):
        return _compiled(augment)(key, images)
    return augment(key, images)


@cached
def _compiled(augment: Callable) -> Callable:
    """The jitted function; asked for twice, compiled once."""
    return jax.jit(augment)


@cached
def _is_pure(augment: Callable, shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether `augment` can be traced and draws from its key.

    A function that leaves the key alone may draw from numpy instead: compiled, it would repeat its first draw for ever.
    """
    try:
        traced = jax.make_jaxpr(augment)(jax.random.key(0), jax.ShapeDtypeStruct(shape, dtype))
    except Exception:  # it may be written for arrays of numpy; what is wrong with it shows when it is called on them
        return False
    key = traced.jaxpr.invars[0]
    return any(key is operand for equation in traced.jaxpr.eqns for operand in equation.invars)


def _same_number(name: str, function: Callable, images: Any, given: Images) -> Images:
    """The images; raises `ValueError` unless they are as many as were given."""
    if not hasattr(images, "shape") or images.shape[:1] != np.shape(given)[:1]:
        found = f"shape {images.shape}" if hasattr(images, "shape") else f"a {type(images).__name__}"
        raise ValueError(
            f"{name} must return an array with one image for each given, got {found} for {np.shape(given)}"
            f"{place_of(function)}."
        )
    return images
