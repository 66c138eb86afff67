"""What it costs that some classes have few training images."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from cnnprobe.doctor.bench import Bench
from cnnprobe.doctor.looks.splits import training_ids
from cnnprobe.doctor.run import predicted
from cnnprobe.types import Outputs

RARE = 0.5  # of an equal share of the training images, below which a class is rare


def rare_classes(ids: Int[np.ndarray, " n"], num_classes: int) -> Int[np.ndarray, " rare"]:
    """Classes that hold less than half of an equal share of the labels, those that hold none left out."""
    counts = np.bincount(ids[(ids >= 0) & (ids < num_classes)], minlength=num_classes)
    return np.flatnonzero((counts > 0) & (counts < RARE * counts.sum() / num_classes))


class Toll(NamedTuple):
    """What rare classes cost."""

    lost: float  # of balanced accuracy
    error: float  # standard error of that
    recall: float  # of the rare classes, their mean, in [0, 1]
    recall_error: float


def lost_to(is_rare: Bool[np.ndarray, " n"], is_right: Bool[np.ndarray, " n"], ids: Int[np.ndarray, " n"]) -> Toll:
    """Balanced accuracy that is lost where rare classes are recognised worse than the others.

    With the mean recall of the common classes for all of them, balanced accuracy would be higher by as much. A few hits
    and no miss are no certainty: the error is that of Laplace's estimate, (hits + 1) / (images + 2).
    """
    classes, first, counts = np.unique(ids, return_index=True, return_counts=True)
    hits = np.array([np.sum(is_right[ids == each]) for each in classes])
    recall, likely = hits / counts, (hits + 1) / (counts + 2)
    variance, rare = likely * (1 - likely) / counts, is_rare[first]
    errors = [math.sqrt(variance[kind].sum()) / kind.sum() for kind in (rare, ~rare)]
    lost = recall[~rare].mean() - recall.mean()
    return Toll(float(lost), float(rare.mean() * math.hypot(*errors)), float(recall[rare].mean()), float(errors[0]))


def look_at_balance(bench: Bench, outputs: Outputs) -> dict[str, float]:
    """What rare classes cost, by outputs for the validation images; nothing where all are about as frequent.

    Classes that training lacks are another fault, and do not count.
    """
    if not bench.has_valid or bench.valid.ids is None or (trained_on := training_ids(bench)) is None:
        return {}
    rare, is_known = rare_classes(trained_on, bench.num_classes), np.isin(bench.valid.ids, trained_on)
    ids = bench.valid.ids[is_known]
    is_rare = np.isin(ids, rare)
    if is_rare.all() or not is_rare.any():
        return {}
    toll = lost_to(is_rare, predicted(bench.problem, bench, outputs)[is_known] == ids, ids)
    return {
        "accuracy lost to rare classes": toll.lost,
        "error of the accuracy lost to rare classes": toll.error,
        "recall of rare classes": toll.recall,
        "error of the recall of rare classes": toll.recall_error,
    }
