"""Batch collapse: does the network name one class for this batch and another for the next, and what drives it?

Everything is read from counts of predictions per batch and class, so a training step has only those to return.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from cnnprobe.checks import check_counts, check_integer, check_optional
from cnnprobe.probes.nulls import entropy, redeal, z_score
from cnnprobe.types import AnyArray


class BatchCollapse(NamedTuple):
    """How far the predicted class depends on the batch and not on the image."""

    # 0: predictions vary inside batches as chance deals them; 1: one class per batch, changing between batches.
    index: float  # type: ignore[assignment]  # hides `tuple.index`, which no one asks of a record
    z: float  # of the information behind `index`, against the null: |z| up to about 3 is chance
    top_share: float  # share of the batch's most frequent prediction, mean over batches
    num_modes: int  # distinct most frequent predictions over the batches
    lag_agreement: float  # batches whose mode is the majority label of the batch before; NaN without labels
    lag_chance: float  # the same if modes and labels were unrelated
    own_agreement: float  # batches whose mode is their own majority label; NaN without labels
    label_index: float  # `index` of the labels themselves: near 0 for shuffled data, near 1 for sorted; NaN without


class CollapseSplit(NamedTuple):
    """Which mechanism makes predictions depend on the batch."""

    mechanism: str  # "none", "updates", "order", "batch-coupled" or "constant"
    stream: float  # collapse index while training
    frozen_loader: float  # of frozen parameters on the loader's batches
    frozen_random: float  # of frozen parameters on random batches
    frozen_eval: float  # the same in evaluation mode
    lag_ratio: float  # lag agreement / chance while training; 2 and more accompany "updates"


def batch_collapse(
    prediction_counts: Int[AnyArray, "steps classes"],
    label_counts: Int[AnyArray, "steps classes"] | None = None,
    *,
    num_permutations: int = 50,
    seed: int = 0,
) -> BatchCollapse:
    """Compares how batches differ in their predictions with a random deal of the same predictions into the batches.

    The index is (I - null) / (H - null): I the information between batch and prediction, null its mean over random
    deals, H the entropy of all predictions. A network that always names one class reads 0, not 1: it does not depend
    on the batch. Batches without predictions are left out; NaN where none is left.

    Raises:
      ValueError: counts have not two axes or differ in shape, or `num_permutations` is below 2.
    """
    check_counts("prediction_counts", prediction_counts)
    check_integer("num_permutations", num_permutations, 2)
    if label_counts is not None and np.shape(label_counts) != np.shape(prediction_counts):
        shapes = f"{np.shape(label_counts)} and {np.shape(prediction_counts)}"
        raise ValueError(f"label_counts and prediction_counts must have one shape, got {shapes}.")
    check_optional(check_counts, "label_counts", label_counts)
    counts = np.asarray(prediction_counts, np.int64)
    kept = counts.sum(axis=1) > 0
    counts, rng = counts[kept], np.random.default_rng(seed)
    if not len(counts):
        nan = float("nan")
        return BatchCollapse(nan, nan, nan, 0, nan, nan, nan, nan)
    index, z = _collapse_index(counts, rng, num_permutations)
    modes = np.argmax(counts, axis=1)
    labels = None if label_counts is None else np.asarray(label_counts, np.int64)[kept]
    lag, chance, own, label_index = _label_readings(modes, labels, rng, num_permutations)
    return BatchCollapse(
        index=index,
        z=z,
        top_share=float(np.mean(counts.max(axis=1) / counts.sum(axis=1))),
        num_modes=len(np.unique(modes)),
        lag_agreement=lag,
        lag_chance=chance,
        own_agreement=own,
        label_index=label_index,
    )


def collapse_split(
    stream: BatchCollapse,
    frozen_loader: BatchCollapse,
    frozen_random: BatchCollapse,
    frozen_eval: BatchCollapse,
    *,
    min_index: float = 0.3,
    min_z: float = 5.0,
    min_top_share: float = 0.7,
) -> CollapseSplit:
    """Names what drives batch collapse from four readings of one run.

    They are taken while training; with parameters frozen on the loader's own batches, in training mode; on batches
    drawn at random; and on those in evaluation mode. Collapse on random batches lies in the forward pass (shared
    masks, batch statistics, a softmax over the batch). Collapse that needs the loader's batches lies in their
    order, and so does collapse of the stream where its labels cluster by batch. What remains is the updates. Without
    any collapse, one class for nearly all images in all four is "constant".
    """
    readings = (stream, frozen_loader, frozen_random, frozen_eval)
    high = [reading.index >= min_index and reading.z >= min_z for reading in readings]
    if high[2] or high[3]:
        mechanism = "batch-coupled"
    elif high[1] or (high[0] and stream.label_index >= min_index):
        mechanism = "order"
    elif high[0]:
        mechanism = "updates"
    else:
        constant = all(reading.top_share >= min_top_share for reading in readings)
        mechanism = "constant" if constant else "none"
    ratio = stream.lag_agreement / stream.lag_chance if stream.lag_chance > 0 else float("nan")
    return CollapseSplit(
        mechanism, stream.index, frozen_loader.index, frozen_random.index, frozen_eval.index, lag_ratio=ratio
    )


def _collapse_index(
    counts: Int[np.ndarray, "steps classes"], rng: np.random.Generator, num_permutations: int
) -> tuple[float, float]:
    """The collapse index and the z-score of its information."""
    information = _information(counts)
    null = np.array([_information(redeal(counts, rng)) for _ in range(num_permutations)])
    room = float(entropy(counts.sum(axis=0))) - float(null.mean())
    index = (information - float(null.mean())) / room if room > 1e-9 else 0.0
    return index, z_score(information, null)


def _information(counts: Int[np.ndarray, "steps classes"]) -> float:
    """Mutual information of batch and class, in nats."""
    sizes = counts.sum(axis=1)
    return float(entropy(counts.sum(axis=0)) - np.sum(sizes * entropy(counts)) / sizes.sum())


def _label_readings(
    modes: Int[np.ndarray, " steps"],
    labels: Int[np.ndarray, "steps classes"] | None,
    rng: np.random.Generator,
    num_permutations: int,
) -> tuple[float, float, float, float]:
    """Lag agreement, its chance, own agreement, and the collapse index of the labels."""
    if labels is None or len(modes) < 2 or not labels.any():
        return (float("nan"),) * 4
    majorities = np.argmax(labels, axis=1)
    shares = [np.bincount(ids, minlength=labels.shape[1]) / len(ids) for ids in (modes[1:], majorities[:-1])]
    labelled = labels[labels.sum(axis=1) > 0]
    return (
        _share(modes[1:] == majorities[:-1]),
        float(shares[0] @ shares[1]),
        _share(modes == majorities),
        _collapse_index(labelled, rng, num_permutations)[0],
    )


def _share(hits: Bool[np.ndarray, " n"]) -> float:
    """Fraction that is true."""
    return float(np.mean(hits))
