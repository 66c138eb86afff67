"""What cheap rules reach on the same images: a network that stays below them has not begun to learn."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from cnnprobe.checks import check_integer, check_same_length
from cnnprobe.probes.features import pixel_features, random_features
from cnnprobe.probes.inputs import cosine_similarity, most_similar, ridge_smoother, votes
from cnnprobe.types import AnyArray

NUM_NEIGHBOURS = 5


class Score(NamedTuple):
    """How often a rule is right."""

    accuracy: float  # share of images, in [0, 1]
    balanced_accuracy: float  # mean over the classes that occur of the share of their images, in [0, 1]


def score_baselines(
    train_images: Shaped[AnyArray, "n height width channels"],
    train_ids: Int[AnyArray, " n"],
    images: Shaped[AnyArray, "m height width channels"],
    ids: Int[AnyArray, " m"],
    *,
    num_classes: int,
) -> dict[str, Score]:
    """Fits five rules on the training images and scores them on the others.

    A uniform guess; the most frequent class; the five nearest neighbours by cosine similarity of coarse pixels; ridge
    regression on coarse pixels; ridge regression on the features of a fixed random convolutional network.

    Raises:
      ValueError: images and ids differ in number, or there are fewer than two classes.
    """
    check_same_length("train_images", train_images, "train_ids", train_ids)
    check_same_length("images", images, "ids", ids)
    check_integer("num_classes", num_classes, 2)
    train_ids, ids = np.asarray(train_ids), np.asarray(ids)
    majority = np.full(len(ids), np.bincount(train_ids).argmax())
    pixels, features = ([read(x) for x in (train_images, images)] for read in (pixel_features, random_features))
    predictions = {
        "majority class": majority,
        "nearest neighbours": _nearest(pixels[0], train_ids, pixels[1]),
        "linear on pixels": _ridge(pixels[0], train_ids, pixels[1], num_classes),
        "random convolutions": _ridge(features[0], train_ids, features[1], num_classes),
    }
    uniform = Score(1 / num_classes, 1 / num_classes)
    return {"uniform guess": uniform, **{name: _score(found, ids) for name, found in predictions.items()}}


def _score(predicted: Int[np.ndarray, " m"], ids: Int[np.ndarray, " m"]) -> Score:
    """Share of right predictions, over images and over classes."""
    hits = predicted == ids
    return Score(float(hits.mean()), float(np.mean([hits[ids == class_id].mean() for class_id in np.unique(ids)])))


def _nearest(
    rows: Float[np.ndarray, "n d"], ids: Int[np.ndarray, " n"], others: Float[np.ndarray, "m d"]
) -> Int[np.ndarray, " m"]:
    """The vote of the most similar training rows."""
    nearest = most_similar(cosine_similarity(others, rows), min(NUM_NEIGHBOURS, len(rows)))
    return votes(ids[nearest], int(ids.max()) + 1)


def _ridge(
    rows: Float[np.ndarray, "n d"], ids: Int[np.ndarray, " n"], others: Float[np.ndarray, "m d"], num_classes: int
) -> Int[np.ndarray, " m"]:
    """Ridge regression onto one-hot labels, the ridge chosen by leave-one-out error on the training rows."""
    targets = np.eye(num_classes)[ids]
    rows, others = (np.nan_to_num(x.astype(np.float64), posinf=0, neginf=0) for x in (rows, others))
    return np.argmax(ridge_smoother(rows, others, targets) @ targets, axis=1)
