"""What a model says of many images, in slices that fit in memory."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from cnnprobe.checks import check_integer, check_optional, check_time
from cnnprobe.data.sampling import num_examples, take
from cnnprobe.models.caching import cached
from cnnprobe.probes.predictions import balanced_accuracy
from cnnprobe.training.pipeline import prepare
from cnnprobe.training.predict import count_classes, label_classes, predict_classes
from cnnprobe.training.step import check_loss, run_model
from cnnprobe.types import Batch, Dataset, Key, Labels, Model, Outputs, Params, Problem, Source, State

MAX_SLICE = 256  # images
MAX_NUMBERS = 4_000_000  # entries of one slice of images; thirty-two feature maps as large as these are 0.5 GB


class _Slice(NamedTuple):
    """Outputs of the images that were run together."""

    num_new: int  # images at the end that no slice before had
    num_images: int
    outputs: Outputs


class Evaluation(NamedTuple):
    """A model's answers, on the host."""

    loss: float  # the user's own, averaged over batches of the user's size; of rows where its loader gives it those
    accuracy: float  # fraction of images predicted right; NaN where the labels are no classes
    balanced_accuracy: float  # mean over the classes that occur of the fraction predicted right; NaN likewise
    predictions: Int[np.ndarray, " images"]  # class of each image
    outputs: Outputs
    labels: Labels  # as they are stored


def evaluate(
    problem: Problem,
    params: Params,
    state: State,
    examples: Batch | Dataset | Source,
    *,
    train_mode: bool = False,
    key: Key | None = None,
    slice_size: int | None = None,
) -> Evaluation:
    """Runs the model over all the examples and scores it; arguments as in `collect_outputs`."""
    outputs, labels = collect_outputs(
        problem, params, state, examples, train_mode=train_mode, key=key, slice_size=slice_size
    )
    predictions = np.asarray(predict_classes(outputs, len(labels), predict=problem.predict))
    accuracy, balanced = _accuracies(problem, predictions, labels)
    return Evaluation(_loss(problem, outputs, labels), accuracy, balanced, predictions, outputs, labels)


def collect_outputs(
    problem: Problem,
    params: Params,
    state: State,
    examples: Batch | Dataset | Source,
    *,
    train_mode: bool = False,
    key: Key | None = None,
    slice_size: int | None = None,
    deadline: float = math.inf,
) -> tuple[Outputs, Labels]:
    """The model's outputs for all the examples and their labels, on the host; the model's state is not changed.

    Args:
      problem: gives the model and the preprocessing.
      params: of the model.
      state: of the model.
      examples: one or more. A `Batch` is ready for the model. A `Dataset` or source is as stored, and is preprocessed
        as for validation.
      train_mode: runs the model as in training, each slice as one batch.
      key: for the model's randomness, folded with the number of each slice; None: key 0.
      slice_size: images at a time; None: as many as fit, 256 at most.
      deadline: `time.monotonic()` seconds after which no slice is begun.

    Raises:
      ValueError: there is no example, or an array of the outputs has no row for each image.
      TimeoutError: the deadline came first.
    """
    check_optional(check_integer, "slice_size", slice_size, 1)
    key = jax.random.key(0) if key is None else key
    run = _compiled_apply(problem.model, train_mode)
    slices, labels = [], []
    for index, (num_new, batch) in enumerate(_slices(problem, examples, slice_size)):
        check_time(deadline)
        outputs = run(params, state, batch.images, jax.random.fold_in(key, index))
        slices.append(_Slice(num_new, len(batch.images), jax.device_get(outputs)))
        labels.append(np.asarray(batch.labels)[-num_new:])
    return _join(slices), np.concatenate(labels)


@cached
def _compiled_apply(model: Model, train: bool) -> Callable[..., Outputs]:
    """The jitted model without its new state."""
    return jax.jit(lambda params, state, images, key: run_model(model, params, state, images, key=key, train=train)[0])


@cached
def _compiled_loss(loss: Callable) -> Callable[[Outputs, Labels], Any]:
    """The jitted loss."""
    return jax.jit(lambda outputs, labels: check_loss(loss(outputs, labels), loss))


def _slices(
    problem: Problem, examples: Batch | Dataset | Source, slice_size: int | None
) -> Iterator[tuple[int, Batch]]:
    """Slices of one size with the number of images at their end that are new.

    The last slice reaches back over images already seen: it needs no padding, which would spoil the statistics of a
    batch, and no second compilation.
    """
    ready = isinstance(examples, Batch)
    data = Dataset(*examples) if isinstance(examples, Batch) else examples
    num = num_examples(data)
    if num == 0:
        raise ValueError("examples must be one or more, got 0.")
    first = take(data, [0]).images
    size = min(num, slice_size or _fitting(first.size))
    for start in range(0, num, size):
        stop = min(start + size, num)
        batch = take(data, np.arange(stop - size, stop))
        yield stop - start, batch if ready else prepare(problem, batch, jax.random.key(0), train=False)


def _fitting(numbers_per_image: int) -> int:
    """Images to run at a time."""
    return int(np.clip(MAX_NUMBERS // max(numbers_per_image, 1), 1, MAX_SLICE))


def _join(slices: list[_Slice]) -> Outputs:
    """The outputs of all slices as one; what has no row for each image passes where there is one slice only."""
    if len(slices) == 1:
        return slices[0].outputs
    return jax.tree.map(lambda *leaves: _join_leaf(slices, leaves), *(each.outputs for each in slices))


def _join_leaf(slices: list[_Slice], leaves: tuple[np.ndarray, ...]) -> np.ndarray | np.floating:
    """One array of the outputs: its new rows in order, or the mean of a scalar."""
    if leaves[0].ndim == 0:
        return np.mean(leaves)
    num_images = slices[0].num_images
    if len(leaves[0]) != num_images:
        raise ValueError(f"outputs must have a row for each of {num_images} images, got shape {leaves[0].shape}.")
    return np.concatenate([leaf[-each.num_new :] for each, leaf in zip(slices, leaves, strict=True)])


def _accuracies(problem: Problem, predictions: np.ndarray, labels: Labels) -> tuple[float, float]:
    """Accuracy and balanced accuracy; NaN where the labels are no classes."""
    classes = label_classes(labels)
    if classes is None:
        return float("nan"), float("nan")
    ids = np.asarray(classes)
    return float(np.mean(predictions == ids)), float(balanced_accuracy(predictions, ids, count_classes(problem)))


def _loss(problem: Problem, outputs: Outputs, labels: Labels) -> float:
    """The user's loss; a loader may train it on rows, as mixup does, where validation labels are numbers of classes."""
    try:
        return _mean_loss(problem, outputs, labels)
    except (TypeError, ValueError):
        classes = label_classes(labels) if np.ndim(labels) == 1 and problem.batches is not None else None
        if classes is None:
            raise
        return _mean_loss(problem, outputs, np.asarray(jax.nn.one_hot(classes, count_classes(problem))))


def _mean_loss(problem: Problem, outputs: Outputs, labels: Labels) -> float:
    """The loss by batches of the user's size, so that a sum over the batch can be set beside the training loss."""
    loss, num, size = _compiled_loss(problem.loss), len(labels), min(problem.batch_size, len(labels))
    starts = list(range(0, num, size))
    values = [float(loss(_rows(outputs, start, size, num), labels[start : start + size])) for start in starts]
    return float(np.average(values, weights=np.minimum(size, num - np.array(starts))))


def _rows(outputs: Outputs, start: int, size: int, num: int) -> Outputs:
    """Some rows of the outputs; scalars whole."""

    def cut(leaf: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """The rows of one array."""
        return leaf[start : start + size] if np.shape(leaf)[:1] == (num,) else leaf

    return jax.tree.map(cut, outputs)
