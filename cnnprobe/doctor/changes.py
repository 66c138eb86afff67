"""The usual changes that people try when a CNN disappoints, each as a remedy to measure."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnprobe.data.augment import Augment, compose, random_flip, random_rotation, random_zoom
from cnnprobe.data.sampling import num_examples
from cnnprobe.doctor.observation import Observation
from cnnprobe.doctor.remedies import (
    cross_entropy,
    log_of,
    map_outputs,
    operate,
    replace_optimizer,
    scale_updates,
    use_cross_entropy,
)
from cnnprobe.doctor.remedies_data import balance_classes, keep_examples, shuffle_batches, standardise_inputs
from cnnprobe.models.networks import baseline_cnn, residual_cnn, small_cnn
from cnnprobe.models.plain import average_pool
from cnnprobe.tracing.surgery import replace_activation
from cnnprobe.types import Model, Problem, Remedy

Build = Callable[[Observation], Remedy]
DEGREES = 36.0  # a tenth of a turn either way
ZOOM = 0.1


class Change(NamedTuple):
    """One line of the checklist that is answered by training."""

    question: str
    change: Build  # what is tried
    base: Build | None = None  # what it is held against; None: the problem as it is
    steps: float = 1.0  # times as many steps, where the change is one of their number or size


def _always(remedy: Remedy) -> Build:
    """A remedy that needs no reading."""
    return lambda _: remedy


def _augmented(augment: Augment) -> Build:
    """Another augmentation behind the user's own."""

    def remedy(problem: Problem) -> Problem:
        """The problem with this one thing changed; a loader's batches are drawn as they are."""
        if problem.batches is not None:
            raise ValueError("problem.augment acts on arrays and sources; batches is a loader of the user's own.")
        own = problem.augment
        return problem._replace(
            augment=augment if own is None else compose(lambda key, images: jnp.asarray(own(key, images)), augment)
        )

    return _always(remedy)


def _batches(factor: float) -> Build:
    """Batches of another size."""

    def remedy(problem: Problem) -> Problem:
        """The problem with this one thing changed."""
        if problem.batches is not None:
            raise ValueError("problem.batch_size is the loader's own where batches is one.")
        return problem._replace(batch_size=max(1, round(problem.batch_size * factor)))

    return _always(remedy)


def _reference(build: Callable[[int], Model]) -> Build:
    """A small network of ours on the user's data, trained in the plainest way that is known to work."""

    def of(seen: Observation) -> Remedy:
        """The remedy, given the scale of the inputs."""
        images = seen.bench.train.images
        scaled = standardise_inputs(float(np.mean(images)), max(float(np.std(images)), 1e-9))
        parts = {"model": build(seen.bench.num_classes), "loss": cross_entropy, "optimizer": optax.adam(1e-3)}
        return lambda problem: scaled(problem)._replace(**parts)

    return of


def _half(seen: Observation) -> Remedy:
    """Every second training image, at random."""
    problem = seen.bench.problem
    num = num_examples(problem.train)
    half = keep_examples(np.random.default_rng(problem.seed).permutation(num)[: max(num // 2, 1)])

    def remedy(problem: Problem) -> Problem:
        """The problem with this one thing changed; a loader's batches are drawn as they are."""
        if problem.batches is not None:
            raise ValueError("problem.train is not what trains where batches is a loader of the user's own.")
        return half(problem)

    return remedy


def _loss(seen: Observation) -> Remedy:
    """Cross-entropy on what the outputs are."""
    if seen.names.get("outputs") != "probabilities":
        return use_cross_entropy
    return lambda problem: map_outputs(log_of)(use_cross_entropy(problem))


SMALL = _reference(small_cnn)

CHANGES: tuple[Change, ...] = (
    Change("Balance the classes?", _always(balance_classes)),
    Change("Half of the images?", _half),
    Change("Shuffle every epoch?", _always(shuffle_batches)),
    Change("Augment by flips?", _augmented(random_flip())),
    Change("Augment by rotations of a tenth of a turn?", _augmented(random_rotation(DEGREES))),
    Change("Augment by zooms of a tenth?", _augmented(random_zoom(ZOOM))),
    Change("Steps ten times as long?", _always(scale_updates(10.0))),
    Change("Steps a tenth as long?", _always(scale_updates(0.1))),
    Change("Adam, 0.001?", _always(replace_optimizer(optax.adam(1e-3)))),
    Change("SGD with momentum, 0.01?", _always(replace_optimizer(optax.sgd(0.01, momentum=0.9)))),
    Change("The plain cross-entropy?", _loss),
    Change("Batches a quarter as large?", _batches(1 / 4), steps=4.0),
    Change("Batches four times as large?", _batches(4.0), steps=1 / 4),
    Change("Train three times as long?", _always(lambda problem: problem), steps=3.0),
    Change("Leaky ReLU for ReLU?", _always(operate(partial(replace_activation, name="relu", new=jax.nn.leaky_relu)))),
    Change("A small network of two convolutions?", _reference(baseline_cnn)),
    Change("A residual network?", _reference(residual_cnn)),
    Change("One layer less, in a small network?", _reference(partial(small_cnn, widths=(16,))), SMALL),
    Change("One layer more, in a small network?", _reference(partial(small_cnn, widths=(16, 32, 64))), SMALL),
    Change("Kernels of 5x5, in a small network?", _reference(partial(small_cnn, kernel_size=5)), SMALL),
    Change("Average pools, in a small network?", _reference(partial(small_cnn, pool=average_pool)), SMALL),
    Change("Batch normalisation, in a small network?", _reference(partial(small_cnn, batch_norm=True)), SMALL),
)
