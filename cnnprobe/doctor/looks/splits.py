"""How training and validation images are divided: classes that one of the two lacks, and images that both hold."""

import hashlib
import math

import numpy as np
from jaxtyping import Bool, Int

from cnnprobe.data.sampling import num_examples, sample
from cnnprobe.doctor.bench import Bench, decide, most_images
from cnnprobe.probes.features import image_rows
from cnnprobe.probes.labels import class_ids
from cnnprobe.types import Dataset, Images, Outputs, Source

MAX_BYTES, MAX_IMAGES = 1e8, 60_000  # of training images that are compared with the validation images
CHANCE = 1e-3  # that a fair division leaves any class out as clean as this


def look_at_splits(bench: Bench) -> tuple[dict[str, float], dict[str, str]]:
    """Classes that a split lacks beyond chance, by share of the images concerned, and overlap of the two splits."""
    if not bench.has_valid:
        return {}, {}
    facts, names = _missing(bench)
    is_leaked, coverage = leaked(bench)
    return {**facts, "validation overlap share": min(float(np.mean(is_leaked)) / coverage, 1.0)}, names


def _missing(bench: Bench) -> tuple[dict[str, float], dict[str, str]]:
    """Both ways of missing classes."""
    train, valid = training_ids(bench), _all_ids(bench, bench.problem.valid, bench.valid.ids)
    if train is None or valid is None:
        return {}, {}
    facts, names = {}, {}
    for split, (ids, others) in {"training": (train, valid), "validation": (valid, train)}.items():
        lost = unfairly_missing(ids, others, bench.num_classes)
        facts[f"classes missing from {split}"] = float(len(lost))
        names[f"classes missing from {split}"] = ", ".join(map(str, lost[:5])) + (", ..." if len(lost) > 5 else "")
        if split == "training":
            facts["validation share in missing classes"] = float(np.mean(np.isin(others, lost)))
    return facts, names


def _all_ids(bench: Bench, data: Dataset | Source | None, sampled: np.ndarray | None) -> np.ndarray | None:
    """Every class id of a split that is held as arrays; those of the sample of one that is not."""
    return class_ids(np.asarray(data.labels), bench.num_classes) if isinstance(data, Dataset) else sampled


def training_ids(bench: Bench) -> Int[np.ndarray, " n"] | None:
    """Classes that the network is trained on; a loader's first batches may be of one class, so they do not count."""
    problem = bench.problem
    if problem.batches is None:
        return _all_ids(bench, problem.train, bench.train.ids)
    if bench.steps_per_epoch is not None:  # the sample is one whole epoch
        return bench.train.ids
    drawn = sample(problem.train, len(bench.train.images), seed=problem.seed, seconds=bench.read_seconds)
    return _all_ids(bench, problem.train, class_ids(drawn.labels, bench.num_classes))


def unfairly_missing(
    ids: Int[np.ndarray, " n"], others: Int[np.ndarray, " m"], num_classes: int
) -> Int[np.ndarray, " missing"]:
    """Classes of `others` that `ids` lacks although a random division would have given it some.

    Of k images of a class in all, m held out and n not, none falls among the n by chance with probability
    `(m / (n + m)) ** k` at most; all classes are tested at once.
    """
    classes, counts = np.unique(others, return_counts=True)
    fewest = math.log(CHANCE / max(num_classes, 1)) / math.log(len(others) / (len(others) + len(ids)))
    return classes[~np.isin(classes, ids) & (counts >= fewest)]


def leaked(bench: Bench) -> tuple[Bool[np.ndarray, " valid"], float]:
    """Which images of the validation sample are training images too, and the share of those that was compared."""
    problem = bench.problem
    assert problem.valid is not None
    num, drawn = num_examples(problem.train), len(bench.train.images)
    if not (isinstance(problem.train, Dataset) and isinstance(problem.valid, Dataset)):
        return occurs_in(bench.train.images, bench.valid.images), min(drawn / num, 1.0)
    held_out = sample(problem.valid, most_images(bench.train.images[0]), seed=problem.seed)  # as the bench drew them
    valid = held_out.images[: len(bench.valid.images)]
    most = max(drawn, min(MAX_IMAGES, int(MAX_BYTES / max(valid[0].nbytes, 1))))
    train = problem.train.images if num <= most else sample(problem.train, most, seed=problem.seed).images
    return occurs_in(np.asarray(train), valid), min(most / num, 1.0)


def occurs_in(images: Images, others: Images) -> Bool[np.ndarray, " m"]:
    """Which of `others` occur among `images`, entry for entry; images of one single value do not count."""
    if np.shape(images)[1:] != np.shape(others)[1:]:
        return np.zeros(len(others), bool)
    known = set(fingerprints(images))
    rows = image_rows("others", others)
    is_blank = rows.max(axis=1) == rows.min(axis=1)
    return ~is_blank & np.array([print_ in known for print_ in fingerprints(others)])


def fingerprints(images: Images) -> list[bytes]:
    """A hash of each image as float32, the same whatever type it is stored in."""
    rows = (np.ascontiguousarray(image, np.float32) + np.float32(0) for image in np.asarray(images))  # -0 becomes 0
    with np.errstate(over="ignore"):  # what no float32 holds becomes infinite
        return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


def look_at_leak(bench: Bench, outputs: Outputs) -> dict[str, float]:
    """How much the images that both splits hold add to the accuracy on validation images, by outputs for these."""
    if not bench.has_valid or bench.valid.ids is None:
        return {}
    is_leaked, _ = leaked(bench)
    if not 0 < is_leaked.sum() < len(is_leaked):
        return {}
    is_right = decide(outputs, bench.num_classes) == bench.valid.ids
    known, fresh = is_right[is_leaked], is_right[~is_leaked]
    error = math.sqrt(np.var(known) / len(known) + np.var(fresh) / len(fresh))
    return {
        "accuracy on leaked images": float(known.mean()),
        "accuracy on fresh images": float(fresh.mean()),
        "accuracy owed to the leak": float(is_right.mean() - fresh.mean()),
        "error of the accuracy owed to the leak": float(is_leaked.mean() * error),
    }
