"""Temporary integration version by the lead; the probes engineer replaces it."""
from typing import NamedTuple
import numpy as np

class BatchCollapse(NamedTuple):
    index: float
    z: float
    top_share: float
    num_modes: int
    lag_agreement: float
    lag_chance: float
    own_agreement: float

def batch_collapse(prediction_counts, label_counts=None, *, num_permutations=50, seed=0):
    return BatchCollapse(0.0, 0.0, float(np.max(np.sum(prediction_counts, 0)) / max(np.sum(prediction_counts), 1)), 1, 1.0, 1.0, 1.0)
