"""The bench: what every measurement of one diagnosis shares, read once from the user's data."""

import math
import time
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from cnnprobe.checks import place_of
from cnnprobe.data.batching import endless_batches, epoch_batches, num_batches
from cnnprobe.data.sampling import sample
from cnnprobe.probes.labels import class_ids
from cnnprobe.training.pipeline import prepare
from cnnprobe.training.predict import count_classes
from cnnprobe.types import Batch, Outputs, Problem

MAX_IMAGES = 1000  # nearest neighbours need 500 at least
MAX_BYTES = 300e6  # of one sample, as float32
FEWEST = 32  # images of a sample, however slow they come


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
    steps_per_epoch: int | None  # None: a loader longer than the sample
    deadline: float = math.inf  # `time.monotonic()` at which the diagnosis must end
    read_seconds: float = math.inf  # that one pass over the data may take: slow ones are read in part
    mesh: Mesh | None = None  # devices that share the batches of a training run; None: one device


def most_images(example: np.ndarray) -> int:
    """How many images a sample may hold."""
    return int(np.clip(MAX_BYTES / max(4 * example.size, 1), FEWEST, MAX_IMAGES))


def _from_loader(problem: Problem, num: int, seconds: float) -> tuple[Batch, int | None]:
    """Up to `num` examples of the loader's first epoch, none of them twice, and its batches if that was all of it.

    What a slow loader does not give in so many seconds is left out.
    """
    read: list[Batch] = []
    until = time.monotonic() + seconds
    for batch in epoch_batches(problem, 0):
        if sum(len(each.images) for each in read) >= num:
            return _joined(problem, read, num), None
        read.append(batch)
        if time.monotonic() > until:
            return _joined(problem, read, num), None
    return _joined(problem, read, num), len(read)


def _joined(problem: Problem, batches: list[Batch], num: int) -> Batch:
    """The first examples of several batches; raises `ValueError` unless all have one shape."""
    shapes = {(batch.images.shape[1:], batch.labels.shape[1:]) for batch in batches}
    if len(shapes) > 1:
        raise ValueError(
            f"problem.batches must yield images of one shape and labels of one shape, got {sorted(shapes)}"
            f"{place_of(problem.batches)}."
        )
    images, labels = (np.concatenate(arrays)[:num] for arrays in zip(*batches, strict=True))
    return Batch(images, labels)


def _affordable(problem: Problem, batch: Batch, seconds: float, *, train: bool) -> Batch:
    """The first of the examples, as many as the user's `preprocess` is expected to manage in so many seconds.

    The first call may compile, so that the second one tells; a few images then tell more than one.
    """
    num, each = len(batch.images), 0.0
    for few in (1, 1, FEWEST):
        started = time.monotonic()
        _prepared(problem, Batch(batch.images[:few], batch.labels[:few]), None, train=train)
        each = (time.monotonic() - started) / few
        if each * num <= seconds or each > seconds:
            break
    most = num if each * num <= seconds else max(FEWEST, int(seconds / each))
    return Batch(batch.images[:most], batch.labels[:most])


def _prepared(problem: Problem, batch: Batch, num_classes: int | None, *, train: bool) -> Sample:
    """A raw batch as the model sees it."""
    plain = problem._replace(augment=None)
    seen = prepare(plain, batch, jax.random.key(problem.seed), train=train)
    labels = np.asarray(seen.labels)
    return Sample(np.asarray(seen.images), labels, class_ids(labels, num_classes))


def make_bench(problem: Problem, *, seconds: float = math.inf) -> Bench:
    """Reads samples of the user's training and validation data, at random over the whole sets.

    Args:
      problem: gives the data and what is done to them.
      seconds: that reading a sample may take, and preparing it; of slow data the samples are smaller.

    Raises:
      ValueError: a source yields no examples, or examples of several shapes.
    """
    first = next(endless_batches(problem))
    one = _prepared(problem, Batch(first.images[:1], first.labels[:1]), None, train=True)
    most, steps = most_images(one.images), num_batches(problem)
    num_classes = count_classes(problem, seconds=seconds)
    if problem.batches is None:
        raw = sample(problem.train, most, seed=problem.seed, seconds=seconds)
    else:
        raw, steps = _from_loader(problem, most, seconds)
    train = _prepared(problem, _affordable(problem, raw, seconds, train=True), num_classes, train=True)
    bench = Bench(problem, num_classes, train, train, False, steps, read_seconds=seconds)
    if problem.valid is None:
        return bench
    held_out = sample(problem.valid, most, seed=problem.seed, seconds=seconds)
    valid = _prepared(problem, _affordable(problem, held_out, seconds, train=False), num_classes, train=False)
    return bench._replace(valid=valid, has_valid=True)


def decide(outputs: Outputs, num_classes: int) -> Int[np.ndarray, " batch"]:
    """Class of each image by the doctor's own rule, whatever metric the user has.

    The largest score wins; a single score is held against 0.5 where all are probabilities, else against 0.
    """
    scores = scores_of(outputs, num_classes)
    if scores.shape[1] == 1:
        column = scores[:, 0]
        is_probability = np.all((column >= 0) & (column <= 1))
        return (column > (0.5 if is_probability else 0.0)).astype(np.int32)
    return np.argmax(np.nan_to_num(scores, nan=-np.inf), axis=1).astype(np.int32)


def main_output(outputs: Outputs, num_classes: int) -> np.ndarray:
    """The first array of the outputs with one entry for each class; the first of all where none has."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(outputs)]
    fitting = [leaf for leaf in leaves if leaf.ndim > 1 and leaf.shape[-1] == num_classes]
    return (fitting or leaves)[0]


def scores_of(outputs: Outputs, num_classes: int) -> Float[np.ndarray, "batch units"]:
    """One row of scores for each image; a map of scores is averaged over its places."""
    scores = main_output(outputs, num_classes).astype(np.float32)
    if scores.ndim == 1:
        return scores[:, None]
    return scores.mean(axis=tuple(range(1, scores.ndim - 1)))


def halfway(bench: Bench) -> float:
    """Accuracy half of the way from a blind guess to every image right."""
    return (1 + 1 / bench.num_classes) / 2


def above_chance(bench: Bench) -> float:
    """Balanced accuracy on the validation sample that no blind guess reaches: 4 standard errors or .1 above."""
    chance = 1 / bench.num_classes
    return chance + min(0.1, 4 * math.sqrt(chance * (1 - chance) / max(len(bench.valid.images), 1)))
