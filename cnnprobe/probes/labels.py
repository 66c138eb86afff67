"""Labels: how they are written, how they are spread over classes, and over batches."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from cnnprobe.checks import check_counts, check_integer, check_optional
from cnnprobe.probes.nulls import entropy, redeal, z_score
from cnnprobe.types import AnyArray


class LabelStats(NamedTuple):
    """How a set of labels is written and spread."""

    format: str  # "integer", "one-hot", "soft", "multi-hot", "scaled", "signed", "map", "text" or "other"
    min: float  # of the finite entries; NaN without any
    max: float
    num_distinct: int  # distinct classes; distinct values where no class can be read off
    num_nonfinite: int  # NaN or infinite entries
    out_of_range_share: float  # images whose class is below 0 or not below `num_classes`
    non_integer_share: float  # entries that are no whole numbers; one-hot and soft rows: 0 and their share of fractions
    row_sum_error: float  # largest |sum of a row - 1|; 0 for labels that are no rows
    entropy: float  # of the class counts, divided by ln(num_classes): in [0, 1]; NaN where no class can be read off
    majority_share: float  # images of the most frequent class; NaN likewise
    class_counts: Int[np.ndarray, " classes"]  # images per class, classes out of range left out


class BatchLabelEntropy(NamedTuple):
    """How mixed the labels inside a batch are."""

    mean: float  # entropy of one batch's labels, divided by ln(classes), averaged over batches: in [0, 1]
    expected: float  # the same if the labels were dealt into the batches at random
    z: float  # distance of the two in standard deviations of the random deal; very negative for sorted data


def class_ids(labels: Shaped[AnyArray, " n *label"], num_classes: int | None = None) -> Int[np.ndarray, " n"] | None:
    """The class of each label as an integer; None where the labels name no class.

    Reads whole numbers `[n]` or `[n, 1]` of any type, and rows `[n, k]` (one-hot, soft, signed or scaled) by their
    largest entry, the first of several. Nothing is clipped or shifted: a class out of range stays out of range. Rows
    of another width than `num_classes` name no class.

    >>> class_ids(np.array([[0.0, 1.0], [0.9, 0.1]])).tolist()
    [1, 0]
    """
    check_optional(check_integer, "num_classes", num_classes, 1)
    values = _numbers(labels)
    if values is None or values.ndim not in (1, 2) or 0 in values.shape[1:] or not np.all(np.isfinite(values)):
        return None
    if values.ndim == 2 and values.shape[1] > 1:
        return None if num_classes not in (None, values.shape[1]) else np.argmax(values, axis=1)
    ids = values.reshape(len(values))
    return ids.astype(np.int64) if np.all(ids == np.round(ids)) else None


def label_stats(labels: Shaped[AnyArray, " n *label"], num_classes: int | None = None) -> LabelStats:
    """Describes labels as they are, right or wrong; raises only for no labels at all.

    `num_classes` is the width of the rows or the number of distinct classes where it is not given.

    Raises:
      ValueError: `labels` is empty or has no axis.
    """
    if np.ndim(labels) == 0 or len(labels) == 0:
        raise ValueError(f"labels must hold at least one label, got shape {np.shape(labels)}.")
    values, ids = _numbers(labels), class_ids(labels)
    if values is None:
        return _unreadable_stats("text", len(np.unique(np.asarray(labels).astype(str))))
    finite = values[np.isfinite(values)]
    num_classes = num_classes or _guessed_num_classes(values, ids)
    counts = _counts(ids, num_classes)
    return LabelStats(
        format=_format(values),
        min=float(finite.min()) if finite.size else float("nan"),
        max=float(finite.max()) if finite.size else float("nan"),
        num_distinct=len(np.unique(finite if ids is None else ids)),
        num_nonfinite=int(values.size - finite.size),
        out_of_range_share=_out_of_range_share(values, ids, num_classes),
        non_integer_share=float(np.mean(finite != np.round(finite))) if finite.size else 0.0,
        row_sum_error=_row_sum_error(values),
        entropy=float(entropy(counts)) / max(np.log(num_classes), 1e-12) if counts.sum() else float("nan"),
        majority_share=float(counts.max() / counts.sum()) if counts.sum() else float("nan"),
        class_counts=counts,
    )


def batch_label_entropy(
    label_counts: Int[AnyArray, "steps classes"], *, num_permutations: int = 50, seed: int = 0
) -> BatchLabelEntropy:
    """Compares the mixture of labels inside batches with a random deal of the same labels.

    Sorted data read near 0 with a very negative z; shuffled data read what is expected (.97 for 10 even classes in
    batches of 64, .27 in batches of 2), with |z| below about 3.

    Raises:
      ValueError: `label_counts` has not two axes, or `num_permutations` is below 2.
    """
    check_counts("label_counts", label_counts)
    check_integer("num_permutations", num_permutations, 2)
    counts = np.asarray(label_counts, np.int64)
    counts, rng = counts[counts.sum(axis=1) > 0], np.random.default_rng(seed)
    if not len(counts):
        return BatchLabelEntropy(*[float("nan")] * 3)
    scale = max(np.log(counts.shape[1]), 1e-12)
    null = np.array([np.mean(entropy(redeal(counts, rng))) for _ in range(num_permutations)]) / scale
    mean = float(np.mean(entropy(counts))) / scale
    return BatchLabelEntropy(mean=mean, expected=float(np.mean(null)), z=z_score(mean, null))


def missing_classes(ids: Int[AnyArray, " n"], other_ids: Int[AnyArray, " m"]) -> tuple[int, ...]:
    """The classes of `other_ids` that `ids` lacks, in order.

    >>> missing_classes(np.array([0, 1, 1]), np.array([1, 2, 3]))
    (2, 3)
    """
    return tuple(int(label) for label in np.setdiff1d(other_ids, ids))


def _numbers(labels: Shaped[AnyArray, " n *label"]) -> Float[np.ndarray, " n *label"] | None:
    """The labels as float64, or None for text and objects."""
    array = _as_array(labels)
    return None if array.dtype.kind in "USOM" else array.astype(np.float64)


def _as_array(labels: Shaped[AnyArray, " n *label"]) -> Shaped[np.ndarray, " n *label"]:
    """The labels as numpy sees them; raises `ValueError` for rows of several lengths."""
    try:
        return np.asarray(labels)
    except ValueError:
        raise ValueError(f"labels must be an array, got {labels!r:.200}.") from None


def _format(values: Float[np.ndarray, " n *label"]) -> str:
    """Names the way in which the labels are written."""
    if values.ndim > 2:
        return "map"
    if values.ndim == 1 or values.shape[1] == 1:
        finite = values[np.isfinite(values)]
        return "integer" if np.all(finite == np.round(finite)) else "scaled"
    return _row_format(values)


def _row_format(rows: Float[np.ndarray, "n classes"]) -> str:
    """Names the format of labels that are rows with one entry per class."""
    single = np.all(np.sum(rows != 0, axis=1) == 1)
    sums_to_one = np.all(np.abs(rows.sum(axis=1) - 1) < 1e-3)
    if np.all((rows == 0) | (rows == 1)):
        return "one-hot" if single else "multi-hot"
    if np.all(np.abs(rows) == 1) and np.all(np.sum(rows > 0, axis=1) == 1):
        return "signed"
    if sums_to_one and np.all(rows >= 0):
        return "soft"
    return "scaled" if single else "other"


def _guessed_num_classes(values: Float[np.ndarray, " n *label"], ids: Int[np.ndarray, " n"] | None) -> int:
    """The number of classes that the labels themselves suggest."""
    if values.ndim == 2 and values.shape[1] > 1:
        return values.shape[1]
    return max(1, len(np.unique(values if ids is None else ids)))


def _counts(ids: Int[np.ndarray, " n"] | None, num_classes: int) -> Int[np.ndarray, " classes"]:
    """Images per class, without those out of range."""
    known = np.zeros(0, np.int64) if ids is None else ids[(ids >= 0) & (ids < num_classes)]
    return np.bincount(known, minlength=num_classes)


def _out_of_range_share(
    values: Float[np.ndarray, " n *label"], ids: Int[np.ndarray, " n"] | None, num_classes: int
) -> float:
    """Share of images whose class does not exist; numbers between the classes are in range, NaN is not."""
    classes = values if ids is None else ids
    return float(np.mean(~((classes >= 0) & (classes < num_classes))))


def _row_sum_error(values: Float[np.ndarray, " n *label"]) -> float:
    """Largest distance of a row's sum from 1."""
    if values.ndim != 2 or values.shape[1] == 1:
        return 0.0
    return float(np.max(np.abs(values.sum(axis=1) - 1)))


def _unreadable_stats(name: str, num_distinct: int) -> LabelStats:
    """The record of labels that are no numbers."""
    nan = float("nan")
    return LabelStats(name, nan, nan, num_distinct, 0, 1.0, 1.0, 0.0, nan, nan, np.zeros(num_distinct, np.int64))
