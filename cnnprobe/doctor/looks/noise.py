"""Whether the trained network, too, finds wrong labels where it is surest."""

import jax
import numpy as np

from cnnprobe.doctor.bench import Bench, scores_of
from cnnprobe.doctor.run import Run, outputs_of
from cnnprobe.probes.noise import label_noise


def look_at_noise(bench: Bench, run: Run) -> dict[str, float]:
    """Share of the training labels that the network's surest predictions contradict; 0 once it knows them by heart."""
    ids = bench.train.ids
    if ids is None or not np.all((ids >= 0) & (ids < bench.num_classes)):
        return {}
    outputs = outputs_of(bench.problem, run.last, bench.train.images, train_mode=False, key=jax.random.key(0))
    scores = scores_of(outputs, bench.num_classes)
    if scores.shape[1] != bench.num_classes or not np.all(np.isfinite(scores)):
        return {}
    return {"label share contradicted by the network": label_noise(scores[:, np.unique(ids)], ids).share}
