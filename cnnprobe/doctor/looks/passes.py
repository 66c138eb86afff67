"""Two passes over the training data: whether an image keeps its label, and whether a loader keeps the stored pairs."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Shaped

from cnnprobe.data.batching import epoch_batches
from cnnprobe.data.sampling import in_time, num_examples, sample, take
from cnnprobe.doctor.bench import Bench
from cnnprobe.doctor.looks.splits import fingerprints
from cnnprobe.probes.features import random_features
from cnnprobe.probes.inputs import Consistency, knn_consistency, pixel_features, ridge_accuracy
from cnnprobe.probes.labels import class_ids
from cnnprobe.types import Batch, Dataset

MAX_READ = 1000  # images of each pass through a loader
MAX_READ_AGAIN = 200  # examples of a source, which may be slow
MAX_VALUES = 1024  # of an image that stand for it
PAIRED_Z = 4.0  # standard deviations of the permutation null that only paired labels reach
FEWEST_FOR_PAIRING = 300  # images, below which neighbours miss much
TOLD_Z = 6.0  # the same of stored images, where those that the model is fed do not reach it
UNSURE_Z = 10.0  # standard deviations of the permutation null below which what is fed is held against what is stored


def look_at_passes(bench: Bench) -> dict[str, float]:
    """Share of the images that come with another label the second time; nothing for arrays, which cannot do that."""
    if bench.problem.batches is None and isinstance(bench.problem.train, Dataset):
        return {}
    first, second = (_pass(bench, number) for number in range(2))
    pairs = [(label, second[image]) for image, label in first.items() if image in second]
    facts = _served(bench) | {"images seen twice": float(len(pairs))}
    if pairs:
        facts["label conflict share"] = float(np.mean([one != other for one, other in pairs]))
    return facts


def _served(bench: Bench) -> dict[str, float]:
    """How many different images a loader hands out among the first ones, beside as many draws from those stored."""
    problem = bench.problem
    if problem.batches is None:
        return {}
    stored = sample(problem.train, len(bench.train.images), seed=problem.seed, seconds=bench.read_seconds)
    served, drawn = (len(set(fingerprints(_thinned(np.asarray(x))))) for x in (bench.train.images, stored.images))
    return {"different images served": float(served), "different images stored": float(drawn)}


def _pass(bench: Bench, number: int) -> dict[bytes, int]:
    """The label of each image that one pass shows once."""
    problem = bench.problem
    if problem.batches is not None:
        batches = in_time(epoch_batches(problem, number % problem.num_epochs), bench.read_seconds)
        return labels_by_image(_up_to(MAX_READ, batches), bench.num_classes)
    rows = np.arange(min(MAX_READ_AGAIN, num_examples(problem.train)))
    return labels_by_image([take(problem.train, rows, seconds=bench.read_seconds)], bench.num_classes)


def _up_to(num: int, batches: Iterable[Batch]) -> Iterable[Batch]:
    """Batches until so many images are read."""
    read = 0
    for batch in batches:
        yield batch
        read += len(batch.images)
        if read >= num:
            return


def labels_by_image(batches: Iterable[Batch], num_classes: int) -> dict[bytes, int]:
    """The class of each image by its fingerprint; images that come twice or are of one single value are left out."""
    seen: dict[bytes, int] = {}
    twice: set[bytes] = set()
    for batch in batches:
        ids = class_ids(batch.labels, num_classes)
        if ids is None:
            return {}
        thinned = _thinned(np.asarray(batch.images))
        for image, label, values in zip(fingerprints(thinned), ids, thinned, strict=True):
            if image in seen or values.min() == values.max():
                twice.add(image)
            seen[image] = int(label)
    return {image: label for image, label in seen.items() if image not in twice}


def _thinned(images: Shaped[np.ndarray, " n *image"]) -> Shaped[np.ndarray, "n values"]:
    """Evenly spaced values of each image."""
    rows = images.reshape(len(images), -1)
    return rows[:, :: -(-rows.shape[1] // MAX_VALUES)]


def look_at_stored_pairs(bench: Bench, consistency: dict[str, float]) -> dict[str, float]:
    """Consistency of the pairs in `train` that `preprocess` changes, or where a loader's leave room for doubt."""
    z = max(consistency.get("pixel neighbours z", -np.inf), consistency.get("random features z", -np.inf))
    problem, num = bench.problem, len(bench.train.images)
    is_own = problem.preprocess is None if problem.batches is None else not z < UNSURE_Z
    if is_own:
        return {}
    stored = sample(problem.train, num, seed=problem.seed, seconds=bench.read_seconds)
    ids, images = class_ids(stored.labels, bench.num_classes), np.asarray(stored.images)
    if ids is None or len(np.unique(ids)) < 2 or images.ndim not in (3, 4):
        return {}
    pixels, features = consistencies(images, ids, seed=bench.problem.seed)
    return {
        "stored pixel neighbours z": pixels.z,
        "stored random features z": features.z,
        "stored random features accuracy": features.accuracy,
    }


def consistencies(images: np.ndarray, ids: np.ndarray, *, seed: int) -> tuple[Consistency, Consistency]:
    """How well labels can be told from neighbours on pixels, and from random features."""
    pixels = knn_consistency(pixel_features(images), ids, seed=seed)
    return pixels, ridge_accuracy(random_features(images, seed=seed), ids, seed=seed)
