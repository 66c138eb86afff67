"""Images: their scale and defects, and whether their labels belong to them at all.

The consistency probes answer without training: nearest neighbours on pixels, and ridge regression on random convolution
features, which also reads textures, where no two pixels correspond. Both are held against permuted labels.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from threadpoolctl import threadpool_limits

from cnnprobe.checks import check_integer, check_numbers, check_rank, check_same_length
from cnnprobe.probes.features import image_rows, pixel_features, random_features
from cnnprobe.probes.nulls import z_score
from cnnprobe.types import AnyArray

__all__ = [
    "Consistency",
    "ImageStats",
    "image_stats",
    "knn_consistency",
    "pixel_features",
    "random_features",
    "ridge_accuracy",
    "ridge_readings",
    "split_overlap",
]

# These matrices are too small to gain by threads, which wait for each other in a loop: .2 s become 8 where other
# programs use the cores.
_in_one_thread = threadpool_limits.wrap(limits=1, user_api="blas")
_RIDGES = np.logspace(-4, 1, 6)  # in units of the mean eigenvalue of the Gram matrix


class ImageStats(NamedTuple):
    """Scale and defects of a set of images; moments are over all finite entries."""

    mean: float  # NaN without a finite entry, like the next four
    std: float
    min: float
    max: float
    max_abs: float
    offset_ratio: float  # |mean| / std; infinite where all entries equal one number other than 0
    num_nonfinite_images: int  # images with a NaN or infinite entry
    blank_share: float  # images all of whose entries are equal
    constant_pixel_share: float  # entries of an image that are the same in every image
    distinct_share: float  # distinct images / images; 1: no duplicates


class Consistency(NamedTuple):
    """How well labels can be told from features, beside what permuted labels give."""

    accuracy: float  # of the held-out predictions
    majority: float  # share of the most frequent class: what a constant guess gives
    null_mean: float  # accuracy on permuted labels
    null_std: float
    z: float  # (accuracy - null_mean) / null_std; below about 3: nothing links labels and features


def image_stats(images: Shaped[AnyArray, " n *image"]) -> ImageStats:
    """Describes a set of images of any numeric type as float32.

    Raises:
      ValueError: there is no image, or images are single numbers.
    """
    rows = image_rows("images", images)
    finite = np.isfinite(rows)
    values = rows[finite].astype(np.float64)
    low, high = (values.min(), values.max()) if values.size else (np.nan, np.nan)
    mean, std = (values.mean(), values.std()) if values.size else (np.nan, np.nan)
    return ImageStats(
        mean=float(mean),
        std=float(std),
        min=float(low),
        max=float(high),
        max_abs=float(max(abs(low), abs(high))),
        offset_ratio=_ratio(abs(float(mean)), float(std)),
        num_nonfinite_images=int(np.sum(~np.all(finite, axis=1))),
        blank_share=float(np.mean(rows.max(axis=1) == rows.min(axis=1))),
        constant_pixel_share=float(np.mean(rows.max(axis=0) == rows.min(axis=0))),
        distinct_share=len(set(_hashes(rows))) / len(rows),
    )


def split_overlap(images: Shaped[AnyArray, " n *image"], other_images: Shaped[AnyArray, " m *image"]) -> float:
    """Share of `other_images` that occur in `images`, entry for entry after conversion to float32.

    Raises:
      ValueError: one of the two holds no image.
    """
    known = set(_hashes(image_rows("images", images)))
    others = _hashes(image_rows("other_images", other_images))
    return float(np.mean([image in known for image in others]))


@_in_one_thread
def knn_consistency(
    features: Shaped[AnyArray, " n *features"],
    ids: Int[AnyArray, " n"],
    *,
    k: int = 5,
    num_permutations: int = 20,
    seed: int = 0,
) -> Consistency:
    """Leave-one-out accuracy of the k nearest neighbours, by cosine similarity of the centred rows.

    Images are reduced by `pixel_features` first. Take some 500 to 1000 examples drawn from the whole set: the reading
    rises with their number (on MNIST .67 with 128, .89 with 512).

    Raises:
      ValueError: fewer than two rows, another number of ids than rows, or `k` below 1.
    """
    check_integer("k", k, 1)
    _check_pairs(features, ids)
    rng = np.random.default_rng(seed)
    # The order is random so that ties, as between equal images, do not follow the order of the data.
    order = rng.permutation(len(ids))
    classes, ids = np.unique(np.asarray(ids)[order], return_inverse=True)
    neighbours = _neighbours(pixel_features(features)[order], min(k, len(ids) - 1))

    def accuracy(labels: Int[np.ndarray, " n"]) -> float:
        """Share of examples that these labels predict right."""
        return float(np.mean(votes(labels[neighbours], len(classes)) == labels))

    return _against_permutations(accuracy, ids, rng, num_permutations)


def ridge_accuracy(
    features: Float[AnyArray, "n d"], ids: Int[AnyArray, " n"], *, num_permutations: int = 20, seed: int = 0
) -> Consistency:
    """Accuracy of ridge regression onto one-hot labels: each random half predicted from the other.

    Features are standardised by the half that is fitted; the ridge is the one of least leave-one-out error there.

    Raises:
      ValueError: fewer than two rows, or another number of ids than rows.
    """
    return ridge_readings(features, ids, num_permutations=num_permutations, seed=seed)[0]


@_in_one_thread
def ridge_readings(
    features: Float[AnyArray, "n d"], ids: Int[AnyArray, " n"], *, num_permutations: int = 20, seed: int = 0
) -> tuple[Consistency, Float[np.ndarray, "n classes"]]:
    """What `ridge_accuracy` gives, and the held-out scores that it is made of, one column for each class that occurs.

    Raises:
      ValueError: fewer than two rows, or another number of ids than rows.
    """
    check_rank("features", features, 2)
    _check_pairs(features, ids)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(ids))
    classes, ids = np.unique(np.asarray(ids)[order], return_inverse=True)
    rows = np.nan_to_num(np.asarray(features, np.float64)[order], posinf=0, neginf=0)
    half = len(ids) // 2
    fits = [(slice(half), slice(half, None)), (slice(half, None), slice(half))]
    targets = np.eye(len(classes))
    smoothers = [ridge_smoother(rows[fit], rows[test], targets[ids[fit]]) for fit, test in fits]

    def scores(labels: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n classes"]:
        """Scores of every row from the labels of the other half."""
        pairs = zip(smoothers, fits, strict=True)
        held_out = [smoother @ targets[labels[fit]] for smoother, (fit, _) in pairs]
        return np.concatenate(held_out[::-1])

    def accuracy(labels: Int[np.ndarray, " n"]) -> float:
        """Share of examples that these labels predict right."""
        return float(np.mean(np.argmax(scores(labels), axis=1) == labels))

    reading = _against_permutations(accuracy, ids, rng, num_permutations)
    return reading, scores(ids)[np.argsort(order)]


def _hashes(rows: Float[np.ndarray, "n d"]) -> list[bytes]:
    """A fingerprint of each row; adding 0 makes -0 and 0 one number."""
    return [hashlib.blake2b((row + np.float32(0)).tobytes(), digest_size=16).digest() for row in rows]


def _ratio(numerator: float, denominator: float) -> float:
    """Quotient of two numbers that are not negative; x/0 is infinite and 0/0 is 0."""
    if denominator == 0:
        return float("inf") if numerator > 0 else 0.0
    return numerator / denominator


def _check_pairs(features: Shaped[AnyArray, " n *features"], ids: Int[AnyArray, " n"]) -> None:
    """Raises unless there are at least two rows, each with an id."""
    check_numbers("features", features)
    check_rank("ids", ids, 1)
    check_same_length("features", features, "ids", ids)
    check_integer("number of rows of features", len(ids), 2)


def _neighbours(rows: Float[np.ndarray, "n d"], k: int) -> Int[np.ndarray, "n k"]:
    """The k most similar other rows of each row, most similar first."""
    similarity = cosine_similarity(rows, rows)
    np.fill_diagonal(similarity, -np.inf)
    return most_similar(similarity, k)


@_in_one_thread
def cosine_similarity(rows: Float[np.ndarray, "m d"], others: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "m n"]:
    """Cosine between each row and each of the others, both centred on the mean of the others; 0 for a row of zeros."""
    mean = others.mean(axis=0)
    return _unit(rows - mean) @ _unit(others - mean).T


def _unit(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows of length 1."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def most_similar(similarity: Float[np.ndarray, "m n"], k: int) -> Int[np.ndarray, "m k"]:
    """Columns of the k largest entries of each row, the largest first."""
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(similarity, nearest, axis=1), axis=1, kind="stable")
    return np.take_along_axis(nearest, order, axis=1)


def votes(labels: Int[np.ndarray, "n k"], num_classes: int) -> Int[np.ndarray, " n"]:
    """The most frequent label of each row; among equals, the nearest neighbour's."""
    cells = np.arange(len(labels))[:, None] * num_classes + labels
    counts = np.bincount(cells.ravel(), minlength=len(labels) * num_classes).reshape(-1, num_classes).astype(float)
    counts[np.arange(len(labels)), labels[:, 0]] += 0.5
    return np.argmax(counts, axis=1)


def _against_permutations(
    accuracy: Callable[[Int[np.ndarray, " n"]], float], ids: Int[np.ndarray, " n"], rng: np.random.Generator, num: int
) -> Consistency:
    """The accuracy on `ids` beside that on permutations of them."""
    check_integer("num_permutations", num, 2)
    null = np.array([accuracy(rng.permutation(ids)) for _ in range(num)])
    value = accuracy(ids)
    return Consistency(
        accuracy=value,
        majority=float(np.bincount(ids).max() / len(ids)),
        null_mean=float(null.mean()),
        null_std=float(null.std(ddof=1)),
        z=z_score(value, null),
    )


@_in_one_thread
def ridge_smoother(
    fit: Float[np.ndarray, "n d"], test: Float[np.ndarray, "m d"], targets: Float[np.ndarray, "n classes"]
) -> Float[np.ndarray, "m n"]:
    """The matrix that takes the targets of the fitted rows to the predictions for the others."""
    mean, std = fit.mean(axis=0), fit.std(axis=0)
    scale = np.where(std > 1e-6 * (np.abs(mean) + 1e-6), std, np.inf)
    fit, test = (fit - mean) / scale, (test - mean) / scale
    values, vectors = np.linalg.eigh(fit @ fit.T)
    values = np.maximum(values, 0)
    ridges = _RIDGES * max(float(values.mean()), 1e-12)
    inverses = [vectors / (values + ridge) @ vectors.T for ridge in ridges]
    # Leave-one-out residuals in closed form: (inverse @ y) / diag(inverse), without the constant mode, which centred
    # rows leave to the mean: it would make the smallest ridge look best.
    centred = targets - targets.mean(axis=0)
    leverages = [np.diag(inverse) - 1 / (len(fit) * ridge) for inverse, ridge in zip(inverses, ridges, strict=True)]
    errors = [
        np.sum(np.square(inverse @ centred / np.maximum(rest, 1e-30)[:, None]))
        for inverse, rest in zip(inverses, leverages, strict=True)
    ]
    return test @ fit.T @ inverses[int(np.argmin(errors))] + 1 / len(fit)
