"""Substitution: which single part, swapped for a reference, lets the network fit a handful of images.

A program that cannot fit sixteen images is broken somewhere on the way from image to update. The set of swaps that
rescue it names the place: the optimizer alone for a wrong step size, inputs and optimizer for raw bytes, the loss
alone for a wrong loss.
"""

import time
from collections.abc import Callable, Mapping

import numpy as np
import optax
from jaxtyping import Int

from cnnprobe.doctor.bench import Bench
from cnnprobe.doctor.remedies import redraw_parameters, replace_optimizer, use_cross_entropy
from cnnprobe.doctor.remedies_data import standardise_inputs
from cnnprobe.doctor.run import train_run
from cnnprobe.models.networks import small_cnn
from cnnprobe.types import Dataset, Problem, Remedy

NUM_IMAGES = 16
NUM_STEPS = 150
LAST = 10  # steps over which the accuracy is averaged
FITTED = 0.9  # accuracy on the sixteen from which they are held to be fitted


def balanced_rows(ids: Int[np.ndarray, " n"], num: int) -> Int[np.ndarray, " num"]:
    """The first `num` examples, taken class by class in turn."""
    order = np.argsort(ids, kind="stable")
    turns = np.concatenate([np.arange(count) for count in np.unique(ids, return_counts=True)[1]])
    return order[np.argsort(turns, kind="stable")][:num]


def small_problem(bench: Bench) -> Problem:
    """The user's program on sixteen of its own images, one batch, no augmentation."""
    ids = np.zeros(len(bench.train.images), int) if bench.train.ids is None else bench.train.ids
    rows = balanced_rows(ids, NUM_IMAGES)
    train = Dataset(bench.train.images[rows], bench.train.labels[rows])
    return bench.problem._replace(
        train=train, valid=None, preprocess=None, preprocess_valid=None, augment=None, batches=None,
        batch_size=len(rows), shuffle=False,
    )  # fmt: skip


def swaps(bench: Bench) -> Mapping[str, Remedy]:
    """One reference part each."""
    mean, std = float(np.mean(bench.train.images)), max(float(np.std(bench.train.images)), 1e-9)
    return {
        "data": standardise_inputs(mean, std),
        "loss": use_cross_entropy,
        "optimisation": replace_optimizer(optax.adam(1e-3)),
        "architecture": redraw_parameters,
        "network": lambda problem: problem._replace(model=small_cnn(bench.num_classes)),
    }


def overfit_accuracy(problem: Problem, bench: Bench, *, deadline: float) -> float:
    """Accuracy on the sixteen images in training mode at the end of 150 steps; 0 for a program that does not run."""
    try:
        run = train_run(problem, bench, num_steps=NUM_STEPS, seconds=deadline - time.monotonic(), deadline=deadline)
    except Exception:  # the user's parts may not fit the swapped one
        return 0.0
    return float(np.mean(run.curve.accuracy[-LAST:]))


def rescues(bench: Bench, *, deadline: float) -> Mapping[str, float]:
    """Accuracy on sixteen images of the program "as it is" and with each part swapped, as far as time allows."""
    problem = small_problem(bench)
    parts: dict[str, Callable[[Problem], Problem]] = {"as it is": lambda p: p, **swaps(bench)}
    accuracies = {}
    for name, swap in parts.items():
        if time.monotonic() > deadline:
            break
        accuracies[name] = overfit_accuracy(swap(problem), bench, deadline=deadline)
    return accuracies
