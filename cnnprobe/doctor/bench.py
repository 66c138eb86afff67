"""The bench: what every measurement of one diagnosis shares, read once from the user's data."""

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from cnnprobe.data.batching import epoch_batches
from cnnprobe.data.sampling import num_examples, sample
from cnnprobe.probes.labels import class_ids
from cnnprobe.training.pipeline import prepare
from cnnprobe.types import Batch, Outputs, Problem

MAX_IMAGES = 1000  # nearest neighbours need 500 at least
MAX_BYTES = 300e6  # of one sample, as float32


class Sample(NamedTuple):
    """Some examples as the model sees them in one mode, not augmented."""

    images: np.ndarray  # [batch, height, width, channels], after the user's `preprocess`
    labels: np.ndarray  # as the user's loss takes them
    ids: Int[np.ndarray, " batch"] | None  # class of each image; None where the labels do not tell


class Bench(NamedTuple):
    """A problem with samples of its data."""

    problem: Problem
    num_classes: int
    train: Sample
    valid: Sample  # what trials are scored on; the training sample where the user has no validation set
    has_valid: bool
    num_train: int | None  # None: a loader of unknown length


def _most_images(example: np.ndarray) -> int:
    """How many images a sample may hold."""
    return int(np.clip(MAX_BYTES / max(4 * example.size, 1), 32, MAX_IMAGES))


def _from_loader(problem: Problem, num: int) -> Batch:
    """The first `num` examples that the user's loader yields, over as many epochs as that takes."""
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for batch in stream(problem):
        images.append(np.asarray(batch.images))
        labels.append(np.asarray(batch.labels))
        if sum(map(len, images)) >= num:
            break
    return Batch(np.concatenate(images)[:num], np.concatenate(labels)[:num])


def _prepared(problem: Problem, batch: Batch, num_classes: int | None, *, train: bool) -> Sample:
    """A raw batch as the model sees it."""
    plain = problem._replace(augment=None)
    seen = prepare(plain, batch, jax.random.key(problem.seed), train=train)
    labels = np.asarray(seen.labels)
    return Sample(np.asarray(seen.images), labels, class_ids(labels, num_classes))


def _count_classes(problem: Problem, labels: np.ndarray) -> int:
    """The user's number of classes, else what the labels show."""
    if problem.num_classes is not None:
        return problem.num_classes
    if labels.ndim == 2 and labels.shape[1] > 1:
        return labels.shape[1]
    return max(len(np.unique(labels)), 2)


def make_bench(problem: Problem) -> Bench:
    """Reads samples of the user's training and validation data, at random over the whole sets.

    Raises:
      ValueError: a source yields no examples, or examples of several shapes.
    """
    first = next(stream(problem))
    most = _most_images(np.asarray(first.images)[0])
    loaded = problem.batches is not None
    raw = _from_loader(problem, most) if loaded else sample(problem.train, most, seed=problem.seed)
    num_classes = _count_classes(problem, np.asarray(raw.labels))
    train = _prepared(problem, raw, num_classes, train=True)
    num_train = None if loaded else num_examples(problem.train)
    if problem.valid is None:
        return Bench(problem, num_classes, train, train, False, num_train)
    held_out = sample(problem.valid, most, seed=problem.seed)
    return Bench(problem, num_classes, train, _prepared(problem, held_out, num_classes, train=False), True, num_train)


def stream(problem: Problem) -> Iterator[Batch]:
    """The user's training batches as the loader hands them out, epoch after epoch without an end.

    Raises:
      ValueError: an epoch has no batches.
    """
    for epoch in count():
        batches = epoch_batches(problem, epoch)
        first = next(batches, None)
        if first is None:
            raise ValueError(f"problem.batches must yield at least one batch an epoch, got none in epoch {epoch}.")
        yield first
        yield from batches


def decide(outputs: Outputs) -> Int[np.ndarray, " batch"]:
    """Class of each image by the doctor's own rule, whatever metric the user has.

    The largest score wins; a single score is held against 0.5 where all are probabilities, else against 0. A map of
    scores is averaged over its places.
    """
    scores = scores_of(outputs)
    if scores.shape[1] == 1:
        column = scores[:, 0]
        is_probability = np.all((column >= 0) & (column <= 1))
        return (column > (0.5 if is_probability else 0.0)).astype(np.int32)
    return np.argmax(np.nan_to_num(scores, nan=-np.inf), axis=1).astype(np.int32)


def scores_of(outputs: Outputs) -> Float[np.ndarray, "batch units"]:
    """The first array of the outputs as one row of scores for each image."""
    scores = np.asarray(jax.tree.leaves(outputs)[0], np.float32)
    if scores.ndim == 1:
        return scores[:, None]
    return scores.mean(axis=tuple(range(1, scores.ndim - 1)))
