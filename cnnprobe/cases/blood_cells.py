"""Every image of one batch gets the same class, and every image of the next batch another.

As reported: 9957 grayscale images of four kinds of white blood cells, 80x80x1, three convolutions with leaky ReLU,
dropout "prob" 0.75 and 0.5, Adam; 25 to 27 % for a hundred epochs. The images here are rendered.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Array, Int

from cnnprobe.cases.parts import Fault, centre_pixels, chosen_fault, cross_entropy, fitted, unchanged
from cnnprobe.data.bundled import ImageSet
from cnnprobe.data.named import blood_cell_set
from cnnprobe.models.cases import blood_cell_cnn
from cnnprobe.types import Dataset, Outputs, Problem

RATES_FOR_KEPT = (0.75, 0.95)  # what a share to keep becomes where a rate is meant, and worse
CLIP = 1e-7
STEP_SIZE = 3e-3  # of Adam: three times its default, for a tenth of the reported steps


def _with_network(problem: Problem, width: int, **parts: Any) -> Problem:
    """The problem with another form of its network."""
    assert problem.num_classes is not None
    return problem._replace(model=blood_cell_cnn(width=width, num_classes=problem.num_classes, **parts))


def _linear_dense(problem: Problem, width: int) -> Problem:
    """Hypothesis 1: nothing between the two dense layers, as the report lists none."""
    return _with_network(problem, width)


def _dropped_for_kept(problem: Problem, width: int) -> Problem:
    """Hypothesis 2: the share to keep and the rate to drop taken for each other."""
    return _with_network(problem, width, dropout_rates=RATES_FOR_KEPT, activation=jax.nn.leaky_relu)


def _softmax_twice(problem: Problem, width: int) -> Problem:
    """Hypothesis 3: the loss takes the softmax of what a softmax has made."""
    del width
    return problem._replace(loss=lambda logits, labels: cross_entropy(jax.nn.softmax(logits), labels))


def _no_softmax(problem: Problem, width: int) -> Problem:
    """Hypothesis 3, the other way: a loss that wants probabilities is given logits."""
    del width

    def loss(logits: Array, labels: Array) -> Array:
        """Categorical cross-entropy without a softmax before it."""
        chosen = jax.numpy.take_along_axis(logits, labels[:, None], axis=1)
        return -jax.numpy.log(jax.numpy.clip(chosen, CLIP, 1 - CLIP)).mean()

    return problem._replace(loss=loss)


def _metric_of_scores(problem: Problem, width: int) -> Problem:
    """Hypothesis 4: the metric compares labels with scores as if they were class ids."""
    del width

    def predict(outputs: Outputs) -> Int[Array, " batch"]:
        """The first score, made a whole number."""
        return outputs[:, 0].astype(int) % outputs.shape[1]

    return problem._replace(predict=predict)


def _sorted_batches(problem: Problem, width: int) -> Problem:
    """Hypothesis 5: files read folder by folder, never shuffled."""
    del width
    assert isinstance(problem.train, Dataset)
    order = np.argsort(problem.train.labels, kind="stable")
    return problem._replace(train=Dataset(problem.train.images[order], problem.train.labels[order]), shuffle=False)


def _raw_pixels(problem: Problem, width: int) -> Problem:
    """Hypothesis 6: images never scaled, with the plain gradient descent that suffers from it."""
    del width
    return problem._replace(
        preprocess=lambda images: np.asarray(images, np.float32), optimizer=optax.sgd(0.03, momentum=0.9)
    )


def _mispaired(problem: Problem, width: int) -> Problem:
    """Hypothesis 6, the other half: images and labels shuffled apart."""
    del width
    assert isinstance(problem.train, Dataset)
    order = np.random.default_rng(problem.seed).permutation(len(problem.train.labels))
    return problem._replace(train=Dataset(problem.train.images, problem.train.labels[order]))


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "linear_dense": _linear_dense,
        "dropped_for_kept": _dropped_for_kept,
        "softmax_twice": _softmax_twice,
        "no_softmax": _no_softmax,
        "metric_of_scores": _metric_of_scores,
        "sorted_batches": _sorted_batches,
        "raw_pixels": _raw_pixels,
        "mispaired": _mispaired,
    }
)


def blood_cells(
    *,
    fault: str | None = None,
    image_size: int = 32,
    width: int = 8,
    num_images: int = 1200,
    data: ImageSet | None = None,
    seed: int = 0,
) -> Problem:
    """Four kinds of rendered white blood cells, and the reported network with one of its possible faults.

    Args:
      fault: one of `FAULTS`; None: the network as it learns.
      image_size: side of the images, 80 in the report.
      width: of the second and third convolution, 64 in the report.
      num_images: for training, 9957 in the report; a quarter as many more to validate.
      data: images to use in the place of the rendered ones; they are made gray and brought to size.
      seed: of the images and the training.

    Raises:
      ValueError: an argument is out of its range, or there is no such fault; the message lists them.
    """
    plant = chosen_fault(fault, FAULTS, unchanged)
    num_valid = max(num_images // 4, 1)
    if data is None:
        data = blood_cell_set(num_train=num_images, num_valid=num_valid, size=image_size, seed=seed, raw=True)
    else:
        data = fitted(data, size=image_size, channels=1, num_train=num_images, num_valid=num_valid)
    return plant(
        Problem(
            model=blood_cell_cnn(width=width, activation=jax.nn.leaky_relu, num_classes=len(data.class_names)),
            loss=cross_entropy,
            optimizer=optax.adam(STEP_SIZE),
            train=data.train,
            valid=data.valid,
            num_classes=len(data.class_names),
            batch_size=32,
            num_epochs=12,
            preprocess=centre_pixels,
            seed=seed,
        ),
        width,
    )
