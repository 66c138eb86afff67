"""Whether the user's own metric agrees with the outputs that it is computed from."""

import math

import numpy as np

from cnnprobe.doctor.bench import Bench, decide, main_output
from cnnprobe.doctor.compiled import balanced_accuracy
from cnnprobe.training.predict import predict_classes
from cnnprobe.types import Outputs


def look_at_metric(bench: Bench, outputs: Outputs) -> dict[str, float]:
    """Accuracy by the user's `predict` beside that of the largest score, on the same outputs for validation images."""
    ids = bench.valid.ids
    if bench.problem.predict is None or ids is None:
        return {}
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
