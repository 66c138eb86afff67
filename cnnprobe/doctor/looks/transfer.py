"""Whether what features learn from training images holds for validation images, and what would make it hold."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cnnprobe.doctor.bench import Bench
from cnnprobe.doctor.looks.layout import FEW_CHANNELS
from cnnprobe.probes.features import random_features
from cnnprobe.probes.inputs import ridge_readings, ridge_smoother
from cnnprobe.types import Images

GAP = 0.1  # of accuracy between training and validation images, below which nothing is to be explained
LOST_Z = 3.0  # standard errors of accuracy lost across the splits, below which no other way to read them is tried
TINY = 1e-30


class Recall(NamedTuple):
    """Balanced accuracy of some answers."""

    mean: float
    error: float  # its standard error


def ways(bench: Bench) -> Mapping[str, Callable[[Images], Images]]:
    """How programs that read images twice read them differently: the undoing of each, by name."""
    shape = bench.train.images.shape
    channels = 1 if shape[1] in FEW_CHANNELS and shape[-1] not in FEW_CHANNELS else 3
    rows, columns = (axis for axis in (1, 2, 3) if axis != channels)
    total = float(np.min(bench.train.images)) + float(np.max(bench.train.images))
    found = {
        "with their channels in reverse order": lambda images: np.flip(np.asarray(images), channels),
        "upside down": lambda images: np.flip(np.asarray(images), rows),
        "mirrored": lambda images: np.flip(np.asarray(images), columns),
        "as negatives": lambda images: (total - np.asarray(images, np.float32)).astype(images.dtype),
    }
    turned = {"with rows and columns exchanged": lambda images: np.swapaxes(np.asarray(images), rows, columns)}
    return found | (turned if shape[rows] == shape[columns] else {})


def look_across_splits(bench: Bench, gap: float) -> tuple[dict[str, float], dict[str, str]]:
    """What features that are fitted on training images tell of validation images, as they are and read otherwise.

    It is looked at where `gap`, the network's own, asks for it; classes that training lacks are left out.
    """
    if not gap > GAP or not _is_comparable(bench):
        return {}, {}
    train, valid = bench.train, bench.valid
    assert train.ids is not None
    assert valid.ids is not None
    classes = np.unique(train.ids)
    is_known = np.isin(valid.ids, classes)
    ids, images = valid.ids[is_known], valid.images[is_known]
    fit, targets = _features(bench, train.images), (train.ids[:, None] == classes).astype(float)
    _, held_out = ridge_readings(fit, train.ids, num_permutations=2, seed=bench.problem.seed)

    def recalls(parts: Sequence[Images]) -> list[Recall]:
        """Of each of several readings of the validation images, from all training images."""
        rows = np.concatenate([_features(bench, part) for part in parts])
        said = classes[np.argmax(ridge_smoother(fit, rows, targets) @ targets, axis=1)]
        return [_recall(answers, ids) for answers in np.split(said, len(parts))]

    within, (across,) = _recall(classes[np.argmax(held_out, axis=1)], train.ids), recalls([images])
    facts = {
        "accuracy of features within training": within.mean,
        "accuracy of features across the splits": across.mean,
        "z of the accuracy lost across the splits": _z(within, across),
    }
    if _z(within, across) < LOST_Z:
        return facts, {}
    redone = dict(zip(ways(bench), recalls([way(images) for way in ways(bench).values()]), strict=True))
    best = max(redone, key=lambda name: redone[name].mean)
    facts |= {
        "accuracy of features across the splits, redone": redone[best].mean,
        "z of the accuracy of redone images": _z(redone[best], across),
    }
    return facts, {"validation images redone": best}


def _is_comparable(bench: Bench) -> bool:
    """Whether both splits hold images of one shape, with ids, some of which they share."""
    train, valid = bench.train, bench.valid
    if not bench.has_valid or train.ids is None or valid.ids is None or train.images.ndim != 4:
        return False
    is_alike = train.images.shape[1:] == valid.images.shape[1:]
    return is_alike and len(np.unique(train.ids)) > 1 and bool(np.isin(valid.ids, train.ids).any())


def _features(bench: Bench, images: Images) -> Float[np.ndarray, "n d"]:
    """Random features in the precision of the fit."""
    rows = random_features(images, seed=bench.problem.seed).astype(np.float64)
    return np.nan_to_num(rows, posinf=0, neginf=0)


def _recall(said: Int[np.ndarray, " n"], ids: Int[np.ndarray, " n"]) -> Recall:
    """Mean over classes of the share that is answered right."""
    right = [said[ids == which] == which for which in np.unique(ids)]
    shares: Float[np.ndarray, " classes"] = np.asarray([np.mean(each) for each in right])
    # One answer more of each kind, so that a class that is always right is not held to be so without error.
    padded = [(share * len(each) + 1) / (len(each) + 2) for share, each in zip(shares, right, strict=True)]
    variances = [share * (1 - share) / len(each) for share, each in zip(padded, right, strict=True)]
    return Recall(float(shares.mean()), float(np.sqrt(np.sum(variances))) / len(right))


def _z(better: Recall, worse: Recall) -> float:
    """How far two accuracies are apart, in standard errors of their difference."""
    return (better.mean - worse.mean) / max(float(np.hypot(better.error, worse.error)), TINY)
