"""Runs of one problem on several parts of its images, for error bars.

On an accelerator, which a small network leaves mostly idle, every step is one compiled program for all runs at once. On
a processor the runs come one after the other: kernels that differ from run to run make convolutions there several times
slower (`experiments/benchmark_trials.py`).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cnnprobe.checks import check_integer
from cnnprobe.data.sampling import num_examples, take
from cnnprobe.training.pipeline import prepare
from cnnprobe.training.predict import count_classes, label_classes, predict_classes
from cnnprobe.training.step import TrainState, init_state, make_train_step, run_model
from cnnprobe.training.validate import check_problem
from cnnprobe.types import Batch, Images, Labels, Params, Problem, State

AUGMENT_STREAM = 0xF01D  # keeps the draws of `augment` apart from those of the model


class Splits(NamedTuple):
    """Which images each run trains on and which it is scored on, in random order."""

    train: Int[np.ndarray, "runs n"]
    valid: Int[np.ndarray, "runs m"]


class Scores(NamedTuple):
    """What each run reached after its last step, in evaluation mode; accuracies in [0, 1]."""

    train: Float[np.ndarray, " runs"]  # on its own training images
    valid: Float[np.ndarray, " runs"]  # on the images that it was not trained on


def fold_splits(num: int, *, num_folds: int = 5, seed: int = 0) -> Splits:
    """Parts `num` images at random into folds of one size, and holds out each in turn; a remainder is left out.

    Raises:
      ValueError: `num_folds` is below 2, or there are fewer images than folds.
    """
    check_integer("num_folds", num_folds, 2)
    check_integer("num", num, num_folds)
    folds = np.random.default_rng(seed).permutation(num)[: num // num_folds * num_folds].reshape(num_folds, -1)
    rest = [np.delete(folds, held_out, axis=0).ravel() for held_out in range(num_folds)]
    shuffled = [np.random.default_rng([seed, run]).permutation(places) for run, places in enumerate(rest)]
    return Splits(np.stack(shuffled), folds)


def keep_share(splits: Splits, share: float) -> Splits:
    """The same runs with only a share of their training images.

    Raises:
      ValueError: `share` is not above 0, or above 1, or leaves no image.
    """
    num = round(share * splits.train.shape[1])
    if not 0 < share <= 1 or not num:
        raise ValueError(f"share must be above 0 and at most 1 and leave an image, got {share!r}.")
    return splits._replace(train=splits.train[:, :num])


def train_folds(problem: Problem, splits: Splits, *, num_steps: int) -> Scores:
    """Trains one run for each row of `splits` on images of `problem.train`, from initial weights of its own.

    Each run goes through its images in a fresh order every epoch, in batches of the problem's size, for `num_steps`
    steps. The problem's own validation images are not used.

    Raises:
      ValueError: the problem is malformed or has its own loader, `num_steps` is below 1, or an index in `splits` is
        out of range.
    """
    check_problem(problem)
    check_integer("num_steps", num_steps, 1)
    if problem.batches is not None:
        raise ValueError("problem.batches must be None: a loader of the user's own cannot be parted into folds.")
    num = num_examples(problem.train)
    if any(rows.min() < 0 or rows.max() >= num for rows in splits):
        raise ValueError(f"splits must hold places from 0 to {num - 1}, got {max(int(rows.max()) for rows in splits)}.")
    whole = take(problem.train, np.arange(num))
    batch = prepare(problem._replace(augment=None), whole, jax.random.key(0), train=True)
    if label_classes(batch.labels) is None:
        raise ValueError(f"labels must tell the class of each image, got shape {np.shape(batch.labels)}.")
    data = Batch(np.asarray(batch.images), np.asarray(batch.labels))
    keys = jax.random.split(jax.random.key(problem.seed), len(splits.train))
    orders = np.stack([_places(problem, row, run, num_steps) for run, row in enumerate(splits.train)])
    train = _trained_in_turn if jax.default_backend() == "cpu" else _trained_together
    score = jax.jit(partial(_hits, problem))
    hits = np.stack([score(data, last.params, last.model_state) for last in train(problem, keys, data, orders)])
    return Scores(*(np.take_along_axis(hits, rows, axis=1).mean(axis=1) for rows in splits))


def _places(problem: Problem, own: Int[np.ndarray, " n"], run: int, num_steps: int) -> Int[np.ndarray, "steps batch"]:
    """The images of every step of one run."""
    size = min(problem.batch_size, len(own))
    per_epoch = len(own) // size
    epochs = [
        np.random.default_rng([problem.seed, run, epoch]).permutation(own)[: per_epoch * size].reshape(per_epoch, size)
        for epoch in range(-(-num_steps // per_epoch))
    ]
    return np.concatenate(epochs)[:num_steps]


def _advance(problem: Problem) -> Callable[[TrainState, Images, Labels], TrainState]:
    """One step of one run."""
    step = make_train_step(
        problem.model, problem.loss, problem.optimizer, num_classes=count_classes(problem), predict=problem.predict
    )
    return lambda state, images, labels: step(state, _augmented(problem, state, images), labels)[0]


def _trained_in_turn(
    problem: Problem, keys: Array, data: Batch, orders: Int[np.ndarray, "runs steps batch"]
) -> Iterator[TrainState]:
    """The last state of each run, one run after the other."""
    advance = jax.jit(_advance(problem), donate_argnums=0)
    for key, places in zip(keys, orders, strict=True):
        state = init_state(problem, key, data.images)
        for rows in places:
            state = advance(state, data.images[rows], data.labels[rows])
        yield state


def _trained_together(
    problem: Problem, keys: Array, data: Batch, orders: Int[np.ndarray, "runs steps batch"]
) -> Iterator[TrainState]:
    """The same; each step is one call for all runs."""
    advance = jax.jit(jax.vmap(_advance(problem)), donate_argnums=0)
    states = jax.vmap(lambda key: init_state(problem, key, data.images))(keys)
    for places in orders.swapaxes(0, 1):
        states = advance(states, data.images[places], data.labels[places])
    for run in range(len(keys)):
        yield jax.tree.map(lambda leaf, run=run: leaf[run], states)


def _augmented(problem: Problem, state: TrainState, images: Images) -> Images:
    """The images of one step as the model sees them."""
    if problem.augment is None:
        return images
    key = jax.random.fold_in(jax.random.fold_in(state.key, AUGMENT_STREAM), state.step)
    return problem.augment(key, images)


def _hits(problem: Problem, batch: Batch, params: Params, state: State) -> Bool[Array, " images"]:
    """Which images a trained network names right, in evaluation mode."""
    outputs, _ = run_model(problem.model, params, state, batch.images, key=jax.random.key(0), train=False)
    predicted = predict_classes(outputs, len(batch.images), predict=problem.predict)
    return jnp.asarray(predicted == label_classes(batch.labels))
