"""What differs between training mode and evaluation mode on the same images."""

import functools
from typing import TypeAlias

import jax
import numpy as np
from jaxtyping import Float

from cnnprobe.doctor.bench import Bench, decide, scores_of
from cnnprobe.doctor.compiled import (
    balanced_accuracy,
    compiled_state_update,
    mask_sharing,
    mask_variance_ratio,
    mode_gap,
)
from cnnprobe.doctor.run import Run, outputs_of
from cnnprobe.doctor.statistics import momentum
from cnnprobe.tracing.surgery import set_dropout_rate
from cnnprobe.types import Batch, Images, Key, Model, Outputs, Params, Problem, State

Weights: TypeAlias = tuple[Params, State]

NUM_MASKS = 8
NUM_PROBED = 256  # images
MOVED = 1e-6  # smallest relative difference between two outputs that is not rounding
DROPPED = 1e-3  # the same of what dropout does to the scores of one image, relative to the largest of any
FEWEST_DROPPED = 0.1  # share of the images, so that masks which differ would show it in one of them


def without_dropout(problem: Problem) -> Problem:
    """The problem with every dropout rate at zero."""
    apply = problem.model.apply

    def still(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Outputs, State]:
        """The user's model, every unit kept."""
        return set_dropout_rate(lambda p, s, x, k: apply(p, s, x, key=k, train=train), rate=0.0)(
            params, state, images, key
        )

    return problem._replace(model=Model(problem.model.init, still))


def look_at_modes(
    bench: Bench, run: Run, *, has_dropout: bool, drops_in_evaluation: bool = False, augments: bool = False
) -> dict[str, float]:
    """Accuracy of the trained network on its own training images in each mode, and the noise of its masks.

    In a model that augments inside, what its masks do cannot be told from that.
    """
    images, ids = bench.train.images[:NUM_PROBED], bench.train.ids
    outputs = functools.partial(_outputs, bench, run.last, bench.problem, images)
    evaluated, trained = outputs(train_mode=False), outputs(train_mode=True)
    facts = {
        "mode gap": float(mode_gap(trained, evaluated)),
        "dropped output share": float(np.mean(trained == 0) - np.mean(evaluated == 0)),
    }
    if drops_in_evaluation:
        facts["evaluation noise"] = _evaluation_noise(bench, run)
    quiet = without_dropout(bench.problem) if has_dropout else None
    other = _otherwise(bench, run.last, quiet)
    if not augments:
        is_drawn = _changes(trained, other)
        facts |= _look_at_masks(bench, run.last) if is_drawn else _look_before_training(bench, run.first, quiet)
    if facts["mode gap"] < MOVED:
        return facts
    still = trained if quiet is None else other
    if ids is not None:
        accuracy = [
            float(balanced_accuracy(decide(scores, bench.num_classes), ids[: len(images)], bench.num_classes))
            for scores in (trained, still, evaluated)
        ]
        facts["train mode minus eval mode accuracy"] = accuracy[0] - accuracy[2]
        facts["batch minus running statistics accuracy"] = accuracy[1] - accuracy[2]
    return facts


def _changes(scores: Float[np.ndarray, "n classes"], other: Float[np.ndarray, "n classes"]) -> bool:
    """Whether dropout, or another draw, changes the scores of more than a few images.

    It does not where the units that it acts on are dead.
    """
    changed = np.abs(scores - other).max(axis=1, initial=0) > DROPPED * np.abs(other).max(initial=0)
    return bool(np.mean(changed) >= FEWEST_DROPPED)


def _outputs(
    bench: Bench, weights: Weights, problem: Problem, images: np.ndarray, *, train_mode: bool, draw: int = 0
) -> np.ndarray:
    """Scores in one mode, under one of several keys."""
    key = jax.random.fold_in(jax.random.key(bench.problem.seed + 2), draw)
    found = outputs_of(problem, weights, images, train_mode=train_mode, key=key, deadline=bench.deadline)
    return scores_of(found, bench.num_classes)


def _evaluation_noise(bench: Bench, run: Run) -> float:
    """Distance between the outputs of evaluation mode under two keys, the larger one of before and after training.

    A network whose units are all dead has none after it.
    """
    images = bench.train.images[:NUM_PROBED]

    def noise(weights: Weights) -> float:
        """Of the network at one time."""
        one, other = (_outputs(bench, weights, bench.problem, images, train_mode=False, draw=draw) for draw in range(2))
        return float(mode_gap(other, one))

    return float(np.fmax(noise(run.first), noise(run.last)))


def _otherwise(bench: Bench, weights: Weights, quiet: Problem | None) -> np.ndarray:
    """Scores of training mode without dropout, by the problem `quiet`; without one, under another key."""
    problem, draw = (bench.problem, 1) if quiet is None else (quiet, 0)
    return _outputs(bench, weights, problem, bench.train.images[:NUM_PROBED], train_mode=True, draw=draw)


def _look_before_training(bench: Bench, first: Weights, quiet: Problem | None) -> dict[str, float]:
    """The noise of training mode before the first update, where training may have silenced it.

    Untrained networks tell images less well apart, so that the noise of any dropout is large beside that: of it only
    what the images of a batch share is read then.
    """
    drawn = _outputs(bench, first, bench.problem, bench.train.images[:NUM_PROBED], train_mode=True)
    if not _changes(drawn, _otherwise(bench, first, quiet)):
        return {}
    facts = _look_at_masks(bench, first)
    return facts if quiet is None else {"mask sharing": facts["mask sharing"]}


def _look_at_masks(bench: Bench, weights: Weights) -> dict[str, float]:
    """The noise of the masks, and what of it the two copies of each image in a batch share."""
    images = bench.train.images[:NUM_PROBED]
    pairs = np.repeat(images[: (len(images) + 1) // 2], 2, axis=0)
    masks = np.stack(
        [_outputs(bench, weights, bench.problem, pairs, train_mode=True, draw=draw) for draw in range(NUM_MASKS)]
    )
    return {
        "mask variance ratio": float(mask_variance_ratio(masks)),
        "mask sharing": float(mask_sharing(masks.reshape(NUM_MASKS, -1, 2, masks.shape[-1]))),
    }


def statistics_momentum(bench: Bench, run: Run) -> float:
    """Share of the old statistics that a training step keeps; NaN without any."""
    (params, state), size = run.last, bench.problem.batch_size
    update = compiled_state_update(bench.problem.model)
    batch = Batch(bench.train.images[:size], bench.train.labels[:size])
    return momentum(lambda old, index, seen: update(params, old, seen.images, jax.random.key(index)), state, batch)
