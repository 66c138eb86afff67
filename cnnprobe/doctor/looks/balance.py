"""What it costs that some classes have few training images."""

import math

import numpy as np
from jaxtyping import Bool, Int

from cnnprobe.doctor.bench import Bench, decide
from cnnprobe.doctor.looks.splits import training_ids
from cnnprobe.doctor.run import Run, evaluated

RARE = 0.5  # of an equal share of the training images, below which a class is rare


def rare_classes(ids: Int[np.ndarray, " n"], num_classes: int) -> Int[np.ndarray, " rare"]:
    """Classes that hold less than half of an equal share of the labels, those that hold none left out."""
    counts = np.bincount(ids[(ids >= 0) & (ids < num_classes)], minlength=num_classes)
    return np.flatnonzero((counts > 0) & (counts < RARE * counts.sum() / num_classes))


def lost_to(
    is_rare: Bool[np.ndarray, " n"], is_right: Bool[np.ndarray, " n"], ids: Int[np.ndarray, " n"]
) -> tuple[float, float]:
    """Balanced accuracy that is lost where rare classes are recognised worse than the others; its standard error.

    With the mean recall of the common classes for all of them, balanced accuracy would be higher by as much.
    """
    classes, first = np.unique(ids, return_index=True)
    hits = [is_right[ids == each] for each in classes]
    recall = np.array([np.mean(hit) for hit in hits])
    variance = np.array([np.var(hit) / len(hit) for hit in hits])
    rare = is_rare[first]
    error = math.sqrt(variance[rare].sum() / rare.sum() ** 2 + variance[~rare].sum() / (~rare).sum() ** 2)
    return float(recall[~rare].mean() - recall.mean()), float(rare.mean() * error)


def look_at_balance(bench: Bench, run: Run) -> dict[str, float]:
    """What rare classes cost on the validation images; nothing where all classes are about as frequent."""
    trained_on, ids = training_ids(bench), bench.valid.ids
    if trained_on is None or ids is None:
        return {}
    is_rare = np.isin(ids, rare_classes(trained_on, bench.num_classes))
    if is_rare.all() or not is_rare.any():
        return {}
    is_right = decide(evaluated(bench.problem, bench, run.last, bench.valid.images), bench.num_classes) == ids
    lost, error = lost_to(is_rare, is_right, ids)
    return {"accuracy lost to rare classes": lost, "error of the accuracy lost to rare classes": error}
