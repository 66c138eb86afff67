"""What chance alone would give: the reference that a reading of real data is held against."""

import numpy as np
from jaxtyping import Float, Int


def redeal(counts: Int[np.ndarray, "steps classes"], rng: np.random.Generator) -> Int[np.ndarray, "steps classes"]:
    """A random table with the row and column sums of `counts`: the pooled items, dealt anew into batches as large."""
    num_steps, num_classes = counts.shape
    items = rng.permutation(np.repeat(np.arange(num_classes), counts.sum(axis=0)))
    cells = np.repeat(np.arange(num_steps), counts.sum(axis=1)) * num_classes + items
    return np.bincount(cells, minlength=counts.size).reshape(counts.shape)


def z_score(value: float, null: Float[np.ndarray, " draws"]) -> float:
    """How many standard deviations of `null` the value lies above its mean.

    Zero where the value is the only one that chance can give; infinite where chance has no spread and the value
    differs.
    """
    distance = value - float(np.mean(null))
    spread = float(np.std(null, ddof=1))
    if spread > 1e-12:
        return distance / spread
    return float(np.sign(distance) * np.inf) if abs(distance) > 1e-9 else 0.0


def entropy(counts: Int[np.ndarray, "... classes"]) -> Float[np.ndarray, "..."]:
    """Entropy in nats of the distribution that each row of counts describes; 0 for a row without items."""
    totals = np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    shares = counts / totals
    return np.asarray(-np.sum(shares * np.log(np.where(shares > 0, shares, 1.0)), axis=-1))
