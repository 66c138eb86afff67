"""Short training runs of a problem exactly as its owner configured it, with readings of every step."""

import math
import time
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from cnnprobe.checks import check_time
from cnnprobe.data.batching import endless_batches
from cnnprobe.doctor.bench import Bench, decide, main_output
from cnnprobe.doctor.compiled import (
    balanced_accuracy,
    compiled_state_update,
    with_compiled_init,
)
from cnnprobe.doctor.statistics import end_of_averages
from cnnprobe.training.evaluate import collect_outputs
from cnnprobe.training.parallel import local_copy, share_batch, spread_state
from cnnprobe.training.pipeline import prepare
from cnnprobe.training.predict import label_classes, predict_classes
from cnnprobe.training.step import Observation, Report, TrainState, init_state, make_train_step
from cnnprobe.trees import leaf_sums
from cnnprobe.types import Batch, Curve, Key, Outputs, Params, Problem, State

ROWS = ("update", "param", "gradient", "descent", "zeros")  # of `leaf_readings`
SYNC_EVERY = 20  # steps between two looks at the clock: a host sync each step would slow a fast run
FEWEST_STEPS = 50  # below which even a healthy network predicts one class
SLOW_STEP = 0.05  # seconds from which every step may be waited for
SETTLING, MOST_BATCHES = 1000, 50  # images and batches that tell where running statistics end
MAX_STEPS = 400  # of a probed run: the faults of the field show within 250


def steps_of_training(bench: Bench) -> int | None:
    """Updates of the user's whole training; None where a long loader does not tell."""
    return None if bench.steps_per_epoch is None else bench.steps_per_epoch * bench.problem.num_epochs


def planned_steps(bench: Bench) -> int:
    """Updates of a probed run: the user's own number, up to a bound."""
    whole = steps_of_training(bench)
    return MAX_STEPS if whole is None else min(MAX_STEPS, whole)


class Run(NamedTuple):
    """A finished run."""

    curve: Curve
    first: tuple[Params, State]  # before any update, on the host
    last: tuple[Params, State]  # after the last update
    leaves: Float[np.ndarray, "steps 5 leaves"]  # `leaf_readings` of every step
    leaf_names: tuple[str, ...]
    leaf_sizes: tuple[int, ...]
    seconds: float  # of the whole run, compilation included
    is_complete: bool  # False: the time ran out first
    step_seconds: float = float("nan")  # mean, compilation aside; NaN for a run of one look at the clock


def leaf_readings(seen: Observation) -> Float[Array, "5 leaves"]:
    """Sums over each parameter leaf: |update|^2, |param|^2, |grad|^2, -update . grad, exact zeros in grad."""

    def terms(update: Array, param: Array, grad: Array) -> list[Array]:
        """Of one leaf."""
        return [update * update, param * param, grad * grad, -update * grad, grad == 0]

    return leaf_sums(terms, seen.updates, seen.params, seen.grads)


PROBES = (("leaves", leaf_readings),)


def prepared_stream(problem: Problem, num_steps: int) -> Iterator[Batch]:
    """The first `num_steps` batches as the model gets them, preprocessed and augmented."""
    key = jax.random.key(problem.seed + 1)
    for step, batch in enumerate(islice(endless_batches(problem), num_steps)):
        yield prepare(problem, batch, jax.random.fold_in(key, step), train=True)


def start(problem: Problem, images: np.ndarray) -> TrainState:
    """The state before the first update, from the problem's own seed."""
    compiled = problem._replace(model=with_compiled_init(problem.model))
    return init_state(compiled, jax.random.key(problem.seed), images)


def _is_over(clock: list[tuple[int, float]], seconds: float, deadline: float) -> bool:
    """Whether the run has had its time; a slow network gets up to four times as much to make its fewest steps.

    Compilation, before the first look at the clock, does not count as training.
    """
    step, now = clock[-1]
    spent = now - clock[0][1]
    return now > deadline or spent > 4 * seconds or (spent > seconds and step >= FEWEST_STEPS)


def train_run(problem: Problem, bench: Bench, *, num_steps: int, seconds: float, deadline: float) -> Run:
    """Trains for `num_steps` steps, or `seconds` after compilation, or until `time.monotonic()` passes `deadline`.

    Whatever the user's functions raise comes through: the caller names it.
    """
    step = make_train_step(
        problem.model,
        problem.loss,
        problem.optimizer,
        predict=problem.predict,
        num_classes=bench.num_classes,
        probes=PROBES,
        mesh=bench.mesh,
    )
    state = start(problem, bench.train.images)
    first = jax.device_get((state.params, state.model_state))
    state = spread_state(state, bench.mesh)
    reports: list[Report] = []
    started = time.monotonic()
    clock: list[tuple[int, float]] = []
    for index, batch in enumerate(prepared_stream(problem, num_steps)):
        state, report = step(state, *share_batch(batch, bench.mesh))
        reports.append(report)
        if index < 3 or index % SYNC_EVERY == 0 or _step_seconds(clock) > SLOW_STEP:
            report.loss.block_until_ready()
            clock.append((index, time.monotonic()))
            if _is_over(clock, seconds, deadline):
                break
    last = local_copy((state.params, state.model_state), bench.mesh)
    run = _collect(jax.device_get(reports), first, last, started, num_steps)
    return run._replace(step_seconds=_mean_step_seconds(clock))


def _step_seconds(clock: list[tuple[int, float]]) -> float:
    """Median seconds a step between looks at the clock, the first of which follows the compilation."""
    if len(clock) < 2:
        return float("nan")
    steps, times = np.asarray(clock).T
    return float(np.median(np.diff(times) / np.diff(steps)))


def _mean_step_seconds(clock: list[tuple[int, float]]) -> float:
    """Mean seconds a step after the compilation, pauses of a loader included; NaN of one look at the clock."""
    if len(clock) < 2:
        return float("nan")
    (first, began), (last, ended) = clock[0], clock[-1]
    return (ended - began) / (last - first)


def _collect(reports: list[Report], first: tuple, last: tuple, started: float, num_steps: int) -> Run:
    """Stacks the readings of all steps."""
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *reports)
    paths = jax.tree_util.tree_flatten_with_path(first[0])[0]
    return Run(
        curve=Curve(stacked.loss, stacked.accuracy, stacked.prediction_counts, stacked.label_counts),
        first=first,
        last=last,
        leaves=stacked.probes["leaves"],
        leaf_names=tuple(jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths),
        leaf_sizes=tuple(int(np.size(leaf)) for _, leaf in paths),
        seconds=time.monotonic() - started,
        is_complete=len(reports) == num_steps,
    )


def outputs_of(
    problem: Problem,
    weights: tuple[Params, State],
    images: np.ndarray,
    *,
    train_mode: bool,
    key: Key,
    deadline: float = math.inf,
) -> Outputs:
    """What the model says of prepared `images`, on the host; in training mode in batches of the user's size."""
    batch = Batch(images, np.zeros(len(images), np.int32))
    size = min(problem.batch_size, len(images)) if train_mode else None
    outputs, _ = collect_outputs(
        problem, *weights, batch, train_mode=train_mode, key=key, slice_size=size, deadline=deadline
    )
    return outputs


def evaluated(problem: Problem, bench: Bench, weights: tuple[Params, State], images: np.ndarray) -> Outputs:
    """What the model says of prepared `images` in evaluation mode, if there is time."""
    key = jax.random.key(0)
    return outputs_of(problem, weights, images, train_mode=False, key=key, deadline=bench.deadline)


def valid_outputs(bench: Bench, run: Run) -> Outputs:
    """What the trained network says of the validation sample in evaluation mode.

    Raises:
      TimeoutError: the bench's deadline came first.
    """
    return evaluated(bench.problem, bench, run.last, bench.valid.images)


def score(problem: Problem, bench: Bench, weights: tuple[Params, State]) -> float:
    """Balanced accuracy in evaluation mode on the validation sample, in [0, 1]; NaN where no class ids are known."""
    if bench.valid.ids is None:
        return float("nan")
    return score_of(problem, bench, evaluated(problem, bench, weights, bench.valid.images))


def score_of(problem: Problem, bench: Bench, outputs: Outputs) -> float:
    """Balanced accuracy of outputs for the validation sample; NaN where no class ids are known.

    A label that no output stands for is a class of its own, which no prediction hits.
    """
    ids = bench.valid.ids
    if ids is None:
        return float("nan")
    reached = float(balanced_accuracy(predicted(problem, bench, outputs), ids, bench.num_classes))
    classes = np.unique(ids)
    return reached * float(np.mean((classes >= 0) & (classes < bench.num_classes)))


def predicted(problem: Problem, bench: Bench, outputs: Outputs) -> np.ndarray:
    """Classes by the doctor's own rule; by the user's metric where no output has a score for each class.

    What is no whole number is class -1, which no image belongs to.
    """
    if problem.predict is None or main_output(outputs, bench.num_classes).shape[-1:] == (bench.num_classes,):
        return decide(outputs, bench.num_classes)
    return np.asarray(label_classes(predict_classes(outputs, len(bench.valid.images), predict=problem.predict)))


def settle(
    problem: Problem, weights: tuple[Params, State], num_passes: int, *, deadline: float = math.inf
) -> tuple[Params, State]:
    """Lets running statistics arrive where parameters held as they are would bring them in so many passes.

    A probed run may be cut short while its weights still move, and statistics of a slow average are then those of
    earlier weights; they catch up when the weights come to rest in the end. Where a pass does nothing but average, a
    few batches tell the end; else all passes are made.

    Raises:
      TimeoutError: the deadline came first.
    """
    if not num_passes:
        return weights
    params, state = weights
    update = compiled_state_update(problem.model)
    most = min(num_passes, math.ceil(SETTLING / problem.batch_size), MOST_BATCHES)

    def step(old: State, index: int, batch: Batch) -> State:
        """One pass in training mode."""
        return jax.block_until_ready(update(params, old, batch.images, jax.random.key(index)))

    ends = end_of_averages(step, state, _in_time(prepared_stream(problem, most), deadline))
    if ends is not None:
        return params, ends
    for index, batch in enumerate(_in_time(prepared_stream(problem, num_passes), deadline)):
        state = step(state, index, batch)
    return params, state


def _in_time(batches: Iterator[Batch], deadline: float) -> Iterator[Batch]:
    """The batches, as long as there is time; raises `TimeoutError` then."""
    for batch in batches:
        check_time(deadline)
        yield batch
