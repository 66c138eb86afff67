"""Remedies for data, labels and their splits: pure functions from a problem to the problem with one thing mended."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cnnprobe.data.batching import epoch_batches, reshuffle
from cnnprobe.data.sampling import num_examples, take
from cnnprobe.probes.features import random_features
from cnnprobe.probes.inputs import ridge_readings
from cnnprobe.probes.labels import class_ids
from cnnprobe.types import Dataset, Images, Labels, Problem, Remedy

GCE_POWER = 0.7  # of the generalised cross-entropy: 0 is cross-entropy, 1 the mean absolute error


# --- inputs --------------------------------------------------------------------------------------------------------


def _then(first: Callable | None, second: Callable) -> Callable:
    """`second` after `first`; `second` alone where there is no first."""
    return second if first is None else lambda images: second(first(images))


def map_images(fn: Callable[[Images], Images]) -> Remedy:
    """Applies `fn` to everything that the model is fed, in training and in validation."""

    def remedy(problem: Problem) -> Problem:
        """The problem with this one thing changed."""
        loader, valid = problem.batches, problem.preprocess_valid
        return problem._replace(
            preprocess=_then(problem.preprocess, fn),
            preprocess_valid=None if valid is None else _then(valid, fn),
            batches=loader and (lambda epoch: ((fn(images), labels) for images, labels in loader(epoch))),
        )

    return remedy


def read_valid_otherwise(fn: Callable[[Images], Images]) -> Remedy:
    """Applies `fn` to the validation images alone, behind what they are prepared with."""
    return lambda problem: problem._replace(preprocess_valid=_then(problem.preprocess_valid or problem.preprocess, fn))


def standardise_inputs(mean: float, std: float) -> Remedy:
    """Brings the inputs to mean 0 and standard deviation 1."""
    return map_images(lambda images: _standardised(images, mean, std))


def _standardised(images: Images, mean: float, std: float) -> np.ndarray:
    """Images of a known mean and standard deviation brought to 0 and 1."""
    return ((np.asarray(images, np.float32) - mean) / std).astype(np.float32)


def prepare_anew(mean: float, std: float, shape: tuple[int, ...]) -> Remedy:
    """Standardises the stored images, and gives them `shape`, in the place of the user's own preparation."""

    def prepare(images: Images) -> np.ndarray:
        """Mean 0 and standard deviation 1."""
        return _standardised(images, mean, std).reshape(-1, *shape)

    return lambda problem: problem._replace(preprocess=prepare, preprocess_valid=None)


def keep_examples(kept: Int[np.ndarray, " kept"]) -> Remedy:
    """Trains on the examples `kept` alone; an index may stand more than once."""

    def remedy(problem: Problem) -> Problem:
        """The problem with this one thing changed."""
        batch = take(problem.train, kept)
        return problem._replace(train=Dataset(batch.images, batch.labels))

    return remedy


# --- labels and order ----------------------------------------------------------------------------------------------


def _relabel(data: Any, fn: Callable[[Labels], Labels]) -> Any:
    """One split with new labels."""
    if data is None:
        return None
    batch = take(data, np.arange(num_examples(data)))
    return Dataset(batch.images, fn(np.asarray(batch.labels)))


def map_labels(fn: Callable[[Labels], Labels]) -> Remedy:
    """Applies `fn` to the labels of training and validation."""

    def remedy(problem: Problem) -> Problem:
        """The problem with this one thing changed."""
        loader = problem.batches
        return problem._replace(
            train=_relabel(problem.train, fn),
            valid=_relabel(problem.valid, fn),
            batches=loader and (lambda epoch: ((images, fn(np.asarray(labels))) for images, labels in loader(epoch))),
        )

    return remedy


def renumber_valid(number: Int[np.ndarray, " classes"]) -> Remedy:
    """Gives the classes of the validation images other numbers; its labels must be integers."""

    def renumbered(labels: Labels) -> Labels:
        """Labels of one split; what is no class stays."""
        is_known = (labels >= 0) & (labels < len(number))
        return np.where(is_known, number[labels * is_known], labels)

    return lambda problem: problem._replace(valid=_relabel(problem.valid, renumbered))


def balance_classes(problem: Problem) -> Problem:
    """Repeats the examples of rare classes until every class is as large as the largest."""
    batch = take(problem.train, np.arange(num_examples(problem.train)))
    ids = np.asarray(class_ids(batch.labels, problem.num_classes))
    classes, counts = np.unique(ids, return_counts=True)
    rng = np.random.default_rng(problem.seed)
    rows = [np.resize(rng.permutation(np.flatnonzero(ids == c)), counts.max()) for c in classes]
    kept = rng.permutation(np.concatenate(rows))
    return problem._replace(train=Dataset(np.asarray(batch.images)[kept], np.asarray(batch.labels)[kept]))


def shuffle_batches(problem: Problem) -> Problem:
    """Draws the batches at random over the whole set."""
    return reshuffle(problem)


# --- images that are too small, and augmentation --------------------------------------------------------------------


def enlarged(images: Images, factor: int) -> np.ndarray:
    """Images with every pixel repeated `factor` times in height and width."""
    return np.asarray(images).repeat(factor, axis=1).repeat(factor, axis=2)


def enlarge_images(factor: int) -> Remedy:
    """Feeds images `factor` times as high and wide, so that pools and strides leave more of them."""
    return map_images(lambda images: enlarged(images, factor))


def drop_augmentation(problem: Problem) -> Problem:
    """Trains on the images as they are."""
    return problem._replace(augment=None)


# --- pairs of images and labels ------------------------------------------------------------------------------------


def train_as_stored(problem: Problem) -> Problem:
    """Trains on the pairs in `train`, in batches of the loader's size, instead of what the loader yields."""
    first = next(epoch_batches(problem, 0))
    return problem._replace(batches=None, batch_size=len(first.images), shuffle=True)


def take_labels_from(train: Int[np.ndarray, " num"], valid: Int[np.ndarray, " num"] | None = None) -> Remedy:
    """Gives each stored image the label that stands at another place; validation images too, where theirs are given."""

    def remedy(problem: Problem) -> Problem:
        """The problem with this one thing changed."""
        held_out = problem.valid if valid is None else _relabel(problem.valid, lambda labels: labels[valid])
        return problem._replace(train=_relabel(problem.train, lambda labels: labels[train]), valid=held_out)

    return remedy


def keep_first_labels(problem: Problem) -> Problem:
    """Gives every image of the user's loader the label that it came with the first time.

    Images are known by all their values. One epoch is read for it, at most twice the number of training examples.
    """
    loader = problem.batches
    if loader is None:
        return problem
    labels: dict[bytes, np.ndarray] = {}
    pairs = (pair for batch in epoch_batches(problem, 0) for pair in zip(*batch, strict=True))
    for image, label in islice(pairs, 2 * num_examples(problem.train)):
        labels.setdefault(image.tobytes(), label)

    def paired(epoch: int) -> Iterator[tuple[Images, Labels]]:
        """The user's batches with the labels of the first epoch."""
        for images, given in loader(epoch):
            pairs = zip(np.asarray(images), np.asarray(given), strict=True)
            yield images, np.stack([labels.get(image.tobytes(), label) for image, label in pairs])

    return problem._replace(batches=paired)


# --- splits --------------------------------------------------------------------------------------------------------


def divide_anew(problem: Problem) -> Problem:
    """Deals the images of both splits at random into two of the same sizes, each class in its share; arrays only."""
    train, valid = problem.train, problem.valid
    assert isinstance(train, Dataset)
    assert isinstance(valid, Dataset)
    images = np.concatenate([np.asarray(train.images), np.asarray(valid.images)])
    labels = np.concatenate([np.asarray(train.labels), np.asarray(valid.labels)])
    ids = class_ids(labels, problem.num_classes)
    assert ids is not None
    held_out = _every_class(ids, len(valid.images), np.random.default_rng(problem.seed))
    return problem._replace(
        train=Dataset(images[~held_out], labels[~held_out]), valid=Dataset(images[held_out], labels[held_out])
    )


def _every_class(ids: Int[np.ndarray, " n"], num: int, rng: np.random.Generator) -> np.ndarray:
    """Which `num` examples to hold out, so that every class has its share: every so many of the examples by class."""
    order = rng.permutation(len(ids))
    order = order[np.argsort(ids[order], kind="stable")]
    chosen = order[np.linspace(0, len(ids) - 1, num).round().astype(int)]
    return np.isin(np.arange(len(ids)), chosen)


def keep_valid(kept: Int[np.ndarray, " kept"]) -> Remedy:
    """Validates on the examples `kept` alone."""

    def remedy(problem: Problem) -> Problem:
        """The problem with this one thing changed."""
        assert problem.valid is not None
        return problem._replace(valid=Dataset(*take(problem.valid, kept)))

    return remedy


# --- noisy labels --------------------------------------------------------------------------------------------------


def drop_suspicious(problem: Problem) -> Problem:
    """Trains on the examples whose label the images do not contradict, judged by random features of the other half.

    An example goes where another class leads its own label by more than the shortest quarter of all leads.

    References:
      Northcutt, Jiang & Chuang, Confident learning, JAIR 2021.
    """
    batch = take(problem.train, np.arange(num_examples(problem.train)))
    images = np.asarray(batch.images if problem.preprocess is None else problem.preprocess(batch.images))
    ids = class_ids(batch.labels, problem.num_classes)
    assert ids is not None
    _, scores = ridge_readings(random_features(images, seed=problem.seed), ids, num_permutations=2, seed=problem.seed)
    kept = np.flatnonzero(~contradicted(scores, np.unique(ids, return_inverse=True)[1]))
    return problem._replace(train=Dataset(np.asarray(batch.images)[kept], np.asarray(batch.labels)[kept]))


def contradicted(scores: Float[np.ndarray, "n classes"], ids: Int[np.ndarray, " n"]) -> np.ndarray:
    """Which labels another class beats by more than the lower quartile of the leads of the first over the second."""
    ranked = np.sort(scores, axis=1)
    behind = ranked[:, -1] - scores[np.arange(len(ids)), ids]
    return behind > np.quantile(ranked[:, -1] - ranked[:, -2], 0.25)


def generalised_cross_entropy(outputs: Float[Array, "batch classes"], labels: Labels) -> Float[Array, ""]:
    """A loss of logits that wrong labels pull less: mean of `(1 - p ** q) / q`, q = 0.7.

    References:
      Zhang & Sabuncu, Generalized cross entropy loss for training deep neural networks with noisy labels, NeurIPS 2018.
    """
    labels = jnp.asarray(labels)
    is_rows = labels.shape == outputs.shape
    targets = labels if is_rows else jax.nn.one_hot(labels.reshape(len(labels)), outputs.shape[-1])
    likelihood = jnp.sum(targets * jax.nn.softmax(outputs), axis=-1)
    return jnp.mean((1 - jnp.maximum(likelihood, 1e-7) ** GCE_POWER) / GCE_POWER)


def use_robust_loss(problem: Problem) -> Problem:
    """Trains on the generalised cross-entropy of the model's outputs."""
    return problem._replace(loss=generalised_cross_entropy)
