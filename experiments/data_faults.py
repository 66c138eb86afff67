"""Faults of loaders, splits, augmentation, metric and maps, beside those of `faults`."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from cnnprobe.data.sampling import num_examples, take, to_dataset
from cnnprobe.types import Dataset, Images, Key, Model, Params, Problem, Remedy, State
from experiments.planting import count_classes, feed, keep, relabel, valid_of, with_loader


def reshuffled_labels(problem: Problem) -> Problem:
    """A loader that shuffles images and labels apart, anew in every epoch."""
    return with_loader(problem, lambda images, labels, rng: (images, rng.permutation(labels)))


def mispairing_loader(problem: Problem) -> Problem:
    """A loader that gives every image the label of the one stored after it."""
    return with_loader(problem, lambda images, labels, _: (images, np.roll(labels, 1)))


def labels_one_late(problem: Problem) -> Problem:
    """A file that was skipped among the images alone: from there on each has the label of the one before it."""
    first = num_examples(problem.train) // 20
    return relabel(problem, lambda labels: np.concatenate([labels[:first], np.roll(labels[first:], 1)]))


def loader_of_few(problem: Problem) -> Problem:
    """A loader whose batches begin one image further each, not a whole batch, so that an epoch hardly gets anywhere."""
    images, labels = take(problem.train, np.arange(num_examples(problem.train)))
    preprocess, size = problem.preprocess or (lambda images: images), problem.batch_size
    prepared = np.asarray(preprocess(images))

    def batches(_: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """One epoch."""
        for start in range(len(labels) // size):
            yield prepared[start : start + size], np.asarray(labels)[start : start + size]

    return problem._replace(batches=batches)


def noisy_labels(problem: Problem) -> Problem:
    """Three in five training labels drawn at random."""
    rng, num_classes = np.random.default_rng(0), count_classes(problem)
    return relabel(
        problem,
        lambda labels: np.where(rng.random(len(labels)) < 0.6, rng.integers(0, num_classes, len(labels)), labels),
    )


def class_numbers_differ(problem: Problem) -> Problem:
    """Validation labels whose classes are numbered by another list, which begins with the last one."""
    valid = to_dataset(valid_of(problem))
    return problem._replace(valid=Dataset(valid.images, (np.asarray(valid.labels) + 1) % count_classes(problem)))


def split_by_class(problem: Problem) -> Problem:
    """The last classes held out, a quarter of them and one at least, as a split of a sorted set does it."""
    splits = zip(to_dataset(problem.train), to_dataset(valid_of(problem)), strict=True)
    images, labels = (np.concatenate(parts) for parts in splits)
    num_classes = count_classes(problem)
    is_last = labels >= num_classes - max(1, num_classes // 4)
    return problem._replace(
        train=Dataset(images[~is_last], labels[~is_last]), valid=Dataset(images[is_last], labels[is_last])
    )


def leaked_validation(problem: Problem) -> Problem:
    """Nine in ten validation images are training images, of which there are few and which are learnt by heart."""
    small = keep(problem, np.arange(num_examples(problem.train) // 5))._replace(num_epochs=8 * problem.num_epochs)
    valid = to_dataset(valid_of(problem))
    num = min(len(valid.labels) * 9 // 10, num_examples(small.train))
    known = take(small.train, np.arange(num))
    images, labels = (np.concatenate(pair) for pair in zip(known, take(valid, np.arange(num // 9)), strict=True))
    return small._replace(valid=Dataset(images, labels))


def destroying_augmentation(problem: Problem) -> Problem:
    """Noise in the units of bytes on images between 0 and 1."""
    return problem._replace(augment=lambda key, images: images + 25 * jax.random.normal(key, images.shape))


def wrong_metric(problem: Problem) -> Problem:
    """Predictions that count the classes from 1."""
    return problem._replace(predict=lambda outputs: jnp.argmax(outputs, axis=-1) + 1)


def valid_upside_down(problem: Problem) -> Problem:
    """Validation images that were read from the last row to the first."""
    prepare = problem.preprocess_valid or problem.preprocess or (lambda images: images)
    return problem._replace(preprocess_valid=lambda images: np.asarray(prepare(images))[:, ::-1])


def bytes_wrapped(problem: Problem) -> Problem:
    """Bytes from which the middle is taken before they are made numbers with a sign: what is darker wraps around."""
    return feed(problem, lambda images: ((255 * images).astype(np.uint8) - np.uint8(128)).astype(np.float32) / 255)


def augmented_inside(problem: Problem) -> Problem:
    """A model that adds noise in the units of bytes to its images in training, which are between 0 and 1."""
    init, apply = problem.model

    def noisy(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Array, State]:
        """The model behind its augmentation."""
        noise = 25 * jax.random.normal(jax.random.fold_in(key, 1), jnp.shape(images))
        return apply(params, state, images + noise if train else images, key=key, train=train)

    return problem._replace(model=Model(init, noisy))


DATA_FAULTS: tuple[Remedy, ...] = (
    reshuffled_labels,
    mispairing_loader,
    labels_one_late,
    loader_of_few,
    noisy_labels,
    class_numbers_differ,
    split_by_class,
    leaked_validation,
    destroying_augmentation,
    wrong_metric,
    valid_upside_down,
    bytes_wrapped,
    augmented_inside,
)
