"""Whether training and validation number the classes alike."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from cnnprobe.doctor.bench import Bench
from cnnprobe.doctor.run import predicted
from cnnprobe.types import Outputs

NAMED = 5  # classes that are named


class Numbering(NamedTuple):
    """The numbers that fit the network's answers on validation images best, each used once."""

    number: Int[np.ndarray, " classes"]  # that training has for each class as validation numbers it
    accuracy: float  # balanced, as validation numbers the classes, in [0, 1]
    renumbered: float  # the same with those numbers


def best_numbering(bench: Bench, outputs: Outputs) -> Numbering | None:
    """Pairs the classes of the two splits by outputs of the trained network for validation images.

    None where the validation images have no class ids, or none of them is a class and named as one.
    """
    from scipy.optimize import linear_sum_assignment

    ids, num_classes = bench.valid.ids, bench.num_classes
    if not bench.has_valid or ids is None:
        return None
    said = predicted(bench.problem, bench, outputs)
    is_known = (ids >= 0) & (ids < num_classes)
    is_class = is_known & (said >= 0) & (said < num_classes)
    if not is_class.any():
        return None
    recalls = np.zeros((num_classes, num_classes))
    np.add.at(recalls, (ids[is_class], said[is_class]), 1.0)
    counts = np.bincount(ids[is_known], minlength=num_classes)  # of all images: an answer that is no class is wrong
    recalls /= np.maximum(counts, 1.0)[:, None]
    # A class stays what it is unless another number is better.
    _, number = linear_sum_assignment(recalls + 1e-9 * np.eye(num_classes), maximize=True)
    occurs = np.flatnonzero(counts)
    own, best = recalls[occurs, occurs], recalls[occurs, number[occurs]]
    return Numbering(number, float(own.mean()), float(best.mean()))


def look_at_numbering(bench: Bench, outputs: Outputs) -> tuple[dict[str, float], dict[str, str]]:
    """Accuracy that other class numbers would bring, and which those are."""
    found = best_numbering(bench, outputs)
    if found is None:
        return {}, {}
    moved = [f"{before} as {after}" for before, after in enumerate(found.number) if before != after]
    names = ", ".join(moved[:NAMED]) + (", ..." if len(moved) > NAMED else "")
    facts = {
        "accuracy with classes renumbered": found.renumbered,
        "accuracy gained by other class numbers": found.renumbered - found.accuracy,
    }
    return facts, {"classes numbered otherwise": names}
