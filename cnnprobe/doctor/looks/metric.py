"""Whether the user's own metric agrees with the outputs that it is computed from."""

import math

import numpy as np
from jaxtyping import Float, Int

from cnnprobe.doctor.bench import Bench, decide, main_output
from cnnprobe.doctor.compiled import balanced_accuracy
from cnnprobe.training.predict import predict_classes
from cnnprobe.types import Outputs

DRAWN, MOST = 200, 20_000_000  # rows of made-up outputs for each class, and numbers in all of them
FEWEST = 4096  # rows
SCALES = 0.1, 1000.0  # of made-up outputs: of probabilities, and of scores that are sure


def look_at_metric(bench: Bench, outputs: Outputs) -> dict[str, float]:
    """The user's `predict` beside the largest score, on outputs for validation images; and what it never gives."""
    ids = bench.valid.ids
    if bench.problem.predict is None or ids is None:
        return {}
    return _beside_the_largest(bench, outputs, ids) | _out_of_reach(bench, outputs, ids)


def _beside_the_largest(bench: Bench, outputs: Outputs, ids: Int[np.ndarray, " n"]) -> dict[str, float]:
    """Accuracy by both, where there is a score for each class."""
    if main_output(outputs, bench.num_classes).shape[-1] not in (1, bench.num_classes):
        return {}
    own = np.asarray(predict_classes(outputs, len(ids), predict=bench.problem.predict))
    largest = decide(outputs, bench.num_classes)
    difference = (largest == ids).astype(float) - (own == ids)
    balanced = [float(balanced_accuracy(each, ids, bench.num_classes)) for each in (own, largest)]
    return {
        "accuracy by your metric": float(np.mean(own == ids)),
        "accuracy of the outputs": float(np.mean(largest == ids)),
        "balanced accuracy lost by your metric": balanced[1] - balanced[0],
        "accuracy lost by your metric": float(np.mean(difference)),
        "error of the accuracy lost by your metric": float(np.std(difference)) / math.sqrt(len(ids)),
        "metric agreement": float(np.mean(own == largest)),
    }


def _out_of_reach(bench: Bench, outputs: Outputs, ids: Int[np.ndarray, " n"]) -> dict[str, float]:
    """Share of the images whose class `predict` gives to no outputs whatever, and the class of most of these.

    Nothing where it gives the largest score: then it is scores that are missing, or labels that are out of range.
    """
    if getattr(outputs, "ndim", 0) != 2:
        return {}
    try:
        rows = made_up(np.shape(outputs)[1], bench.num_classes)
        given = [np.asarray(predict_classes(x, len(x), predict=bench.problem.predict)) for x in (rows, outputs)]
    except Exception:  # a function of the user's may be made for outputs of one length
        return {}
    if np.array_equal(given[0], rows.argmax(axis=-1)):
        return {}
    never = ids[(ids >= 0) & (ids < bench.num_classes) & ~np.isin(ids, np.concatenate(given))]
    most = {"class your metric never gives": float(np.bincount(never).argmax())} if len(never) else {}
    return {"share of images your metric cannot name": len(never) / len(ids)} | most


def made_up(width: int, num_classes: int) -> Float[np.ndarray, "rows width"]:
    """Outputs of any sign and size: where scores of a row go together, as thresholds do, and where they do not."""
    num = max(1, min(max(FEWEST, DRAWN * num_classes), MOST // width))
    rng = np.random.default_rng(0)
    together = rng.normal(0, 3, (num, 1)) + rng.normal(size=(num, width))
    smallest, largest = np.log(SCALES)
    return (np.exp(rng.uniform(smallest, largest, (num, 1))) * together).astype(np.float32)
