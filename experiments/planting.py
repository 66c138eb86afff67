"""What faults are planted with: other images, other labels, other features, other outputs."""

from collections.abc import Callable, Iterator

import jax
import numpy as np
import optax
from jaxtyping import Array, Int

from cnnprobe.data.sampling import num_examples, take
from cnnprobe.tracing.surgery import change_last_inputs
from cnnprobe.types import Dataset, Images, Key, Model, Params, Problem, Source, State

MOMENTUM = optax.sgd(0.01, momentum=0.9)  # of faults that Adam's steps of one size would hide, and of their twin


def feed(problem: Problem, fn: Callable[[Images], Images]) -> Problem:
    """`fn` after the problem's own preprocessing."""
    first = problem.preprocess or (lambda images: images)
    return problem._replace(preprocess=lambda images: fn(first(images)))


def labels_of(problem: Problem) -> Int[np.ndarray, " n"]:
    """All training labels."""
    return np.asarray(take(problem.train, np.arange(num_examples(problem.train))).labels)


def count_classes(problem: Problem) -> int:
    """Classes of the problem, counted if it does not say."""
    return problem.num_classes or int(labels_of(problem).max()) + 1


def image_side(problem: Problem) -> int:
    """The shorter side of an image, in pixels."""
    return min(np.shape(take(problem.train, [0]).images)[1:3])


def relabel(problem: Problem, fn: Callable[[Int[np.ndarray, " n"]], Int[np.ndarray, " n"]]) -> Problem:
    """The training images with other labels."""
    batch = take(problem.train, np.arange(num_examples(problem.train)))
    return problem._replace(train=Dataset(batch.images, fn(np.asarray(batch.labels))))


def keep(problem: Problem, kept: Int[np.ndarray, " kept"]) -> Problem:
    """The training examples `kept`, in that order."""
    return problem._replace(train=Dataset(*take(problem.train, kept)))


def valid_of(problem: Problem) -> Dataset | Source:
    """The validation images, which the fault needs.

    Raises:
      ValueError: the problem has none.
    """
    if problem.valid is None:
        raise ValueError("problem.valid must be given for this fault, got None.")
    return problem.valid


def with_loader(problem: Problem, deal: Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple]) -> Problem:
    """Batches from a loader that deals the images and labels of each epoch by `deal` before it shuffles them."""
    images, labels = take(problem.train, np.arange(num_examples(problem.train)))
    preprocess, size = problem.preprocess or (lambda images: images), problem.batch_size

    def batches(epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """One epoch."""
        rng = np.random.default_rng(epoch)
        dealt = deal(np.asarray(preprocess(images)), np.asarray(labels), rng)
        order = rng.permutation(len(labels))
        for start in range(0, len(order) - size + 1, size):
            yield tuple(part[order[start : start + size]] for part in dealt)

    return problem._replace(batches=batches)


def map_outputs(problem: Problem, fn: Callable[[Array], Array]) -> Problem:
    """The model with `fn` behind it."""
    init, apply = problem.model

    def mapped(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Array, State]:
        """The outputs, changed."""
        outputs, state = apply(params, state, images, key=key, train=train)
        return fn(outputs), state

    return problem._replace(model=Model(init, mapped))


def map_features(problem: Problem, fn: Callable[[Array, Key, bool], Array]) -> Problem:
    """The model with `fn(features, key, train)` in front of its last layer."""
    init, apply = problem.model

    def mapped(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Array, State]:
        """The outputs of other features."""
        run = change_last_inputs(
            lambda p, s, x, k: apply(p, s, x, key=k, train=train),
            lambda features: fn(features, jax.random.fold_in(key, 1), train),
        )
        return run(params, state, images, key)

    return problem._replace(model=Model(init, mapped))
