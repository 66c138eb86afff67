"""Healthy variants of a problem: everything that people do and that is no fault.

Each is a pure function of the problem that `problems.build_problem` makes, as a fault is. A doctor must stay silent on
all of them.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from cnnprobe.data.augment import compose, mixup_batches, random_flip, random_shift
from cnnprobe.data.sampling import num_examples, take
from cnnprobe.models.networks import baseline_cnn, residual_cnn, small_cnn
from cnnprobe.types import Dataset, Problem, Remedy
from experiments.networks import mixed_cnn
from experiments.planting import MOMENTUM

Logits = Float[Array, "batch classes"]
Ids = Int[Array, " batch"]


def _num(problem: Problem) -> int:
    """Number of classes."""
    assert problem.num_classes is not None
    return problem.num_classes


def _arrays(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """All training images and labels."""
    batch = take(problem.train, np.arange(num_examples(problem.train)))
    return np.asarray(batch.images), np.asarray(batch.labels)


def _kept(problem: Problem, rows: np.ndarray) -> Problem:
    """Training on some of the examples."""
    images, labels = _arrays(problem)
    return problem._replace(train=Dataset(images[rows], labels[rows]))


def _optimizer(optimizer: optax.GradientTransformation) -> Remedy:
    """Another optimizer."""
    return lambda problem: problem._replace(optimizer=optimizer)


def _model(build: Callable) -> Remedy:
    """Another network, given the number of classes."""
    return lambda problem: problem._replace(model=build(_num(problem)))


def early_stop(problem: Problem) -> Problem:
    """Half of the epochs."""
    return problem._replace(num_epochs=problem.num_epochs // 2)


def few_images(problem: Problem) -> Problem:
    """A quarter of the images."""
    return _kept(problem, np.arange(num_examples(problem.train) // 4))


def noisy_labels(problem: Problem) -> Problem:
    """A label in seven drawn at random."""
    images, labels = _arrays(problem)
    rng = np.random.default_rng(problem.seed)
    drawn = rng.integers(0, _num(problem), len(labels))
    return problem._replace(train=Dataset(images, np.where(rng.random(len(labels)) < 1 / 7, drawn, labels)))


def three_to_one(problem: Problem) -> Problem:
    """The first class three times as frequent as the others."""
    labels = _arrays(problem)[1]
    rank = np.array([np.sum(labels[:index] == label) for index, label in enumerate(labels)])
    return _kept(problem, np.flatnonzero((labels == 0) | (rank % 3 == 0)))


def standardised(problem: Problem) -> Problem:
    """Inputs of mean 0 and standard deviation 1."""
    before, images = problem.preprocess, _arrays(problem)[0][:500]
    assert before is not None
    mean, std = float(np.mean(before(images))), float(np.std(before(images)))
    return problem._replace(preprocess=lambda x: (before(x) - mean) / std)


def smoothed_labels(problem: Problem) -> Problem:
    """Label smoothing of a tenth."""

    def loss(logits: Logits, ids: Ids) -> Float[Array, ""]:
        """Cross-entropy with smoothed targets."""
        targets = optax.smooth_labels(jax.nn.one_hot(ids, logits.shape[1]), 0.1)
        return optax.softmax_cross_entropy(logits, targets).mean()

    return problem._replace(loss=loss)


def focal(problem: Problem) -> Problem:
    """Focal loss (Lin et al. 2017) with gamma 2."""

    def loss(logits: Logits, ids: Ids) -> Float[Array, ""]:
        """Cross-entropy weighed by the square of what is missing from certainty."""
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), ids[:, None], axis=1)[:, 0]
        return jnp.mean(-((1 - jnp.exp(log_p)) ** 2) * log_p)

    return problem._replace(loss=loss)


def one_against_rest(problem: Problem) -> Problem:
    """A sigmoid cross-entropy for each class."""

    def loss(logits: Logits, ids: Ids) -> Float[Array, ""]:
        """Mean over images and classes."""
        return optax.sigmoid_binary_cross_entropy(logits, jax.nn.one_hot(ids, logits.shape[1])).mean()

    return problem._replace(loss=loss)


def probabilities(problem: Problem) -> Problem:
    """A model that ends in a softmax with a loss that reads probabilities: unusual, and right."""
    apply = problem.model.apply

    def loss(p: Logits, ids: Ids) -> Float[Array, ""]:
        """Negative log-likelihood."""
        return -jnp.mean(jnp.log(jnp.clip(jnp.take_along_axis(p, ids[:, None], axis=1), 1e-7, 1.0)))

    def softmaxed(*args: object, **kwargs: object) -> tuple[Logits, object]:
        """Probabilities out."""
        logits, state = apply(*args, **kwargs)
        return jax.nn.softmax(logits), state

    return problem._replace(model=problem.model._replace(apply=softmaxed), loss=loss)


def one_hot_labels(problem: Problem) -> Problem:
    """Labels as rows."""
    rows = np.eye(_num(problem), dtype=np.float32)
    images, labels = _arrays(problem)
    valid = problem.valid
    assert isinstance(valid, Dataset)
    return problem._replace(
        train=Dataset(images, rows[labels]),
        valid=Dataset(valid.images, rows[np.asarray(valid.labels)]),
        loss=lambda logits, targets: optax.softmax_cross_entropy(logits, targets).mean(),
    )


def own_loader(problem: Problem) -> Problem:
    """Batches from a generator of the user's own."""
    images, labels = _arrays(problem)
    preprocess, size = problem.preprocess, problem.batch_size
    assert preprocess is not None

    def batches(epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """One epoch in a fresh order."""
        order = np.random.default_rng(epoch).permutation(len(images))
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            yield np.asarray(preprocess(images[rows])), labels[rows]

    return problem._replace(batches=batches)


def mixed_up(problem: Problem) -> Problem:
    """Images mixed in pairs, their labels too (Zhang et al. 2018)."""
    loaded = own_loader(one_hot_labels(problem))
    assert loaded.batches is not None
    return loaded._replace(batches=mixup_batches(loaded.batches))


HEALTHY: dict[str, Remedy] = {
    "adam": lambda problem: problem,
    "sgd": _optimizer(optax.sgd(0.05)),
    "sgd with large steps": _optimizer(optax.sgd(0.1)),
    "momentum": _optimizer(MOMENTUM),
    "adam with small steps": _optimizer(optax.adam(3e-4)),
    "adam with large steps": _optimizer(optax.adam(3e-3)),
    "adamw with decay": _optimizer(optax.adamw(1e-3, weight_decay=1e-2)),
    "rmsprop": _optimizer(optax.rmsprop(1e-3)),
    "clipped": _optimizer(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))),
    "cosine schedule": _optimizer(optax.adam(optax.cosine_decay_schedule(2e-3, 400))),
    "warm-up": _optimizer(optax.adam(optax.linear_schedule(0.0, 1e-3, 50))),
    "batches of four": lambda problem: problem._replace(batch_size=4),
    "batches of eight": lambda problem: problem._replace(batch_size=8),
    "small batches": lambda problem: problem._replace(batch_size=16),
    "large batches": lambda problem: problem._replace(batch_size=128),
    "baseline network": _model(baseline_cnn),
    "residual network": _model(residual_cnn),
    "batch norm": _model(lambda k: small_cnn(k, batch_norm=True)),
    "dropout": _model(lambda k: small_cnn(k, dropout_rate=0.5)),
    "tanh": _model(lambda k: small_cnn(k, activation=jnp.tanh)),
    "leaky relu": _model(lambda k: small_cnn(k, activation=jax.nn.leaky_relu)),
    "mixed precision": _model(mixed_cnn),
    "gelu": _model(lambda k: small_cnn(k, activation=jax.nn.gelu)),
    "early stop": early_stop,
    "few images": few_images,
    "noisy labels": noisy_labels,
    "three to one": three_to_one,
    "standardised": standardised,
    "label smoothing": smoothed_labels,
    "focal": focal,
    "one against rest": one_against_rest,
    "probabilities": probabilities,
    "one-hot labels": one_hot_labels,
    "own loader": own_loader,
    "mixup": mixed_up,
    "augmented": lambda problem: problem._replace(augment=compose(random_flip(), random_shift(0.1))),
    "no validation": lambda problem: problem._replace(valid=None),
}
NOT_IN: dict[str, tuple[str, ...]] = {  # what is healthy in other networks, and not in these
    "sgd with large steps": ("linen",),  # on cells, a third right from any seed, where Adam gets nearly all
}
