"""The order in which one epoch of a problem shows its examples."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from cnnprobe.checks import check_integer, is_real, place_of
from cnnprobe.data.sampling import num_examples, take
from cnnprobe.types import Batch, Problem

_RESHUFFLE_STREAM = 1  # keeps the draws of `reshuffle` apart from those of `epoch_batches`


def epoch_batches(problem: Problem, epoch: int, *, seed: int | None = None) -> Iterator[Batch]:
    """Batches of one epoch in the problem's own order, as numpy arrays, before `preprocess` and `augment`.

    With `problem.batches` they are what the user's loader yields. Otherwise they are drawn from `problem.train`: in a
    fresh order every epoch if `problem.shuffle`, else as stored. A last batch of fewer examples is left out, so that
    every step has one shape; a set smaller than one batch is one batch.

    The same `seed` (None: the problem's) and epoch give the same batches.

    Raises:
      ValueError: at once for bad arguments; while iterating if the loader yields anything but pairs of arrays.
    """
    check_integer("epoch", epoch, 0)
    if problem.batches is not None:
        return _loader_batches(problem.batches(epoch), place_of(problem.batches))
    seed = problem.seed if seed is None else seed
    check_integer("batch_size", problem.batch_size, 1)
    check_integer("seed", seed, 0)
    return _array_batches(problem, epoch, seed)


def endless_batches(problem: Problem) -> Iterator[Batch]:
    """The batches of `epoch_batches`, epoch after epoch without an end.

    A loader is asked for its own epochs only, over and over: it may know no others.

    Raises:
      ValueError: an epoch has no batches.
    """
    for epoch in count():
        batches = epoch_batches(problem, epoch % problem.num_epochs if problem.batches else epoch)
        first = next(batches, None)
        if first is None:
            raise ValueError(
                f"problem.batches must yield at least one batch an epoch, got none in epoch {epoch}"
                f"{place_of(problem.batches)}; a generator can be read only once."
            )
        yield first
        yield from batches


def num_batches(problem: Problem) -> int | None:
    """Steps in one epoch; None if the user's own loader decides.

    >>> import numpy as np
    >>> from cnnprobe.types import Dataset
    >>> digits = Dataset(np.zeros((100, 8, 8, 1)), np.zeros(100, int))
    >>> num_batches(Problem(None, None, None, train=digits, batch_size=32))
    3
    """
    if problem.batches is not None:
        return None
    num = num_examples(problem.train)
    return num // min(problem.batch_size, num) if num else 0


def reshuffle(problem: Problem) -> Problem:
    """The same problem with its examples in a random order: the remedy for batches that are sorted.

    With a loader of the user's own, one epoch of it is collected and its examples are dealt anew, in batches of the
    same sizes. A loader without end is cut at twice the number of training examples.
    """
    if problem.batches is None:
        return problem._replace(shuffle=True)

    return problem._replace(batches=partial(_reshuffled, problem))


def _array_batches(problem: Problem, epoch: int, seed: int) -> Iterator[Batch]:
    """Batches of `problem.train`, read one at a time."""
    num = num_examples(problem.train)
    order = np.random.default_rng([seed, epoch]).permutation(num) if problem.shuffle else np.arange(num)
    size = min(problem.batch_size, num)
    for start in range(0, num - size + 1, size) if size else ():
        yield take(problem.train, order[start : start + size])


def _loader_batches(loader: Any, place: str) -> Iterator[Batch]:
    """What the user's loader yields, checked and as numpy arrays."""
    if not isinstance(loader, Iterable):
        raise ValueError(
            f"batches(epoch) must return an iterable of (images, labels), got {type(loader).__name__}{place}."
        )
    return (_checked_pair(item, f"{index}{place}") for index, item in enumerate(loader))


def _checked_pair(item: Any, where: str) -> Batch:
    """One item of the user's loader as a batch."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        found = f"{len(item)} values" if isinstance(item, tuple | list) else f"a {type(item).__name__}"
        raise ValueError(f"batches(epoch) must yield pairs (images, labels), got {found} at batch {where}.")
    images, labels = _array(item[0], "images", where), _array(item[1], "labels", where)
    if images.shape[:1] != labels.shape[:1] or not images.shape:
        raise ValueError(
            f"batches(epoch) must yield as many images as labels, got shapes {images.shape} and {labels.shape} "
            f"at batch {where}."
        )
    if not len(images):
        raise ValueError(f"batches(epoch) must yield at least one image a batch, got none at batch {where}.")
    return Batch(images, labels)


def _array(x: Any, name: str, where: str) -> np.ndarray:
    """`x` as a numpy array of numbers; a copy, since many loaders fill one and the same buffer for every batch."""
    try:
        array = np.array(x)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists; tensors that refuse to leave their device
        raise ValueError(f"batches(epoch) yields {name} that are no array at batch {where}: {error}") from error
    if not is_real(array.dtype):
        raise ValueError(f"batches(epoch) must yield {name} of numbers, got {array.dtype} at batch {where}.")
    return array


def _reshuffled(problem: Problem, epoch: int) -> Iterator[Batch]:
    """One epoch of the user's loader in another order."""
    return _redealt(_one_epoch(problem, epoch), np.random.default_rng([problem.seed, epoch, _RESHUFFLE_STREAM]))


def _one_epoch(problem: Problem, epoch: int) -> list[Batch]:
    """The batches of one epoch of the user's loader, cut at twice the number of training examples."""
    limit = 2 * num_examples(problem.train)
    batches: list[Batch] = []
    num_seen = 0
    for batch in epoch_batches(problem, epoch):
        batches.append(batch)
        num_seen += len(batch.images)
        if num_seen >= limit:
            break
    return batches


def _redealt(batches: list[Batch], rng: np.random.Generator) -> Iterator[Batch]:
    """The examples of all batches in a random order, in batches of the sizes that they had."""
    shapes = {(batch.images.shape[1:], batch.labels.shape[1:]) for batch in batches}
    if len(shapes) > 1:
        raise ValueError(f"batches(epoch) must yield images and labels of one shape to be reordered, got {shapes}.")
    if not batches:
        return
    images = np.concatenate([batch.images for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches])
    order = rng.permutation(len(images))
    for rows in np.split(order, np.cumsum([len(batch.images) for batch in batches])[:-1]):
        yield Batch(images[rows], labels[rows])
