"""Problems to train: built-in images, a folder, a file, or what a function of the user's returns."""

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optax
from jaxtyping import Array, Float

from cnnprobe.models.networks import baseline_cnn, residual_cnn, small_cnn
from cnnprobe.types import Images, Labels, Model, Problem
from experiments.faults import plant
from experiments.images import ImageSet, folder_images, named_images, npz_images

MODELS: dict[str, Callable[[int], Model]] = {
    "small_cnn": small_cnn,
    "baseline_cnn": baseline_cnn,
    "residual_cnn": residual_cnn,
}
OPTIMIZERS: dict[str, Callable[[float], optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "momentum": functools.partial(optax.sgd, momentum=0.9),
    "adam": optax.adam,
    "adamw": optax.adamw,
}


def cross_entropy(logits: Float[Array, "batch classes"], labels: Labels) -> Float[Array, ""]:
    """Mean softmax cross-entropy, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def scale_pixels(images: Images) -> Float[np.ndarray, "..."]:
    """Bytes to the range 0 to 1; anything else as it is."""
    images = np.asarray(images)
    return images.astype(np.float32) / 255 if images.dtype == np.uint8 else images


def build_problem(
    *,
    dataset: str = "fashion_mnist",
    images: str | None = None,
    npz: str | None = None,
    problem: str | None = None,
    model: str = "small_cnn",
    optimizer: str = "adam",
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    num_epochs: int = 5,
    num_images: int | None = None,
    image_size: int = 64,
    fault: str | None = None,
    seed: int = 0,
) -> tuple[Problem, tuple[str, ...]]:
    """A problem and the names of its classes, from choices as `problem_flags` offers them.

    `images`, `npz` and `problem` each take the place of `dataset`; the choices that make up a problem do not touch one
    that `problem` names. `fault` is planted in whichever it is.

    Raises:
      ValueError: a choice is malformed or its data are; the message names it.
    """
    if problem is not None:
        return plant(call_problem(problem), fault), ()
    if images is not None:
        data: ImageSet = folder_images(images, size=image_size, seed=seed)
    elif npz is not None:
        data = npz_images(npz, seed=seed)
    else:
        data = named_images(dataset, num_images=num_images, size=image_size, seed=seed)
    train, valid, class_names = data
    built = Problem(
        model=MODELS[model](len(class_names)),
        loss=cross_entropy,
        optimizer=OPTIMIZERS[optimizer](learning_rate),
        train=train,
        valid=valid,
        num_classes=len(class_names),
        batch_size=batch_size,
        num_epochs=num_epochs,
        preprocess=scale_pixels,
        seed=seed,
    )
    return plant(built, fault), class_names


def call_problem(name: str) -> Problem:
    """The problem that `module:function` returns; the module is looked for in the working directory first.

    This runs the user's code: it can do whatever that code does.

    Raises:
      ValueError: the name is malformed, there is no such function, or it returns something else.
      RuntimeError: the function itself failed.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"problem must be module:function, got {name!r}.")
    print(f"running your code: {function}() of {module}", file=sys.stderr)
    sys.path.insert(0, str(Path.cwd()))
    build = getattr(importlib.import_module(module), function, None)
    if not callable(build):
        raise ValueError(f"problem must name a function of {module}, got {name!r}.")
    try:
        problem = build()
    except Exception as error:
        raise RuntimeError(f"{name} raised {type(error).__name__}: {error}") from error
    if not isinstance(problem, Problem):
        raise ValueError(f"{name} must return a cnnprobe.Problem, got {type(problem).__name__}.")
    return problem
