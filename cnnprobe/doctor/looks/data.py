"""Static looks at the data: no model, no training."""

from collections.abc import Sequence
from itertools import islice

import numpy as np
from jaxtyping import Float, Int

from cnnprobe.data.batching import endless_batches
from cnnprobe.data.sampling import in_time, sample
from cnnprobe.doctor.bench import Bench
from cnnprobe.doctor.looks.displaced import look_at_displaced
from cnnprobe.doctor.looks.passes import look_at_stored_pairs
from cnnprobe.probes.inputs import (
    Consistency,
    image_stats,
    knn_consistency,
    pixel_features,
    random_features,
    ridge_readings,
)
from cnnprobe.probes.labels import class_ids, label_stats
from cnnprobe.probes.noise import label_noise
from cnnprobe.probes.nulls import entropy

WORDS = {
    "std": "standard deviation",
    "max_abs": "largest absolute value",
    "offset_ratio": "mean over standard deviation",
}
BATCHES_READ = 40  # for the order of the labels
NUM_DRAWS = 10  # random batches for each that is read
MIN_FOR_NEIGHBOURS = 60  # images, below which neighbours tell nothing
MANY_WRONG = 0.2  # share of the labels that images contradict, from which they are held against other orders


def look_at_images(bench: Bench) -> dict[str, float]:
    """Scale, offset and defects of the images as the model gets them."""
    stats = image_stats(bench.train.images)
    facts = {f"input {WORDS.get(name, name.replace('_', ' '))}": float(x) for name, x in stats._asdict().items()}
    facts["input nonfinite share"] = facts.pop("input num nonfinite images") / len(bench.train.images)
    facts["images read"] = float(len(bench.train.images))
    if bench.has_valid and stats.std > 0:
        valid, scale = image_stats(bench.valid.images), float(stats.std)
        facts["validation input mean shift"] = abs(float(valid.mean) - float(stats.mean)) / scale
        facts["validation input std ratio"] = float(valid.std) / scale
    return facts


def look_at_labels(bench: Bench) -> dict[str, float]:
    """Encoding and balance of the labels; rows of shares may be fractions, so their share of those tells nothing."""
    stats = label_stats(bench.train.labels, bench.num_classes)
    are_rows = bench.train.labels.size > len(bench.train.labels)
    left_out = {"format", "class_counts", *(["non_integer_share"] if are_rows else [])}
    return {
        f"label {name.replace('_', ' ')}": float(value)
        for name, value in stats._asdict().items()
        if name not in left_out
    }


def look_at_order(bench: Bench) -> dict[str, float]:
    """How mixed the classes are inside the batches that the loader hands out, beside random draws of the labels."""
    pool = _label_pool(bench)
    if pool is None:
        return {}
    read = in_time(islice(endless_batches(bench.problem), BATCHES_READ), bench.read_seconds)
    batches = [class_ids(batch.labels, bench.num_classes) for batch in read]
    seen = [ids for ids in batches if ids is not None]
    return order_facts(seen, pool, num_classes=bench.num_classes, seed=bench.problem.seed)


def order_facts(
    batches: Sequence[Int[np.ndarray, " batch"]], pool: Int[np.ndarray, " n"], *, num_classes: int, seed: int
) -> dict[str, float]:
    """Label entropy of batches beside that of batches of the same sizes drawn from the pool."""
    rng = np.random.default_rng(seed)
    random = [rng.choice(pool, len(ids)) for _ in range(NUM_DRAWS) for ids in batches]
    found, drawn = _entropies(batches, num_classes), _entropies(random, num_classes)
    error = max(float(np.std(drawn)) / np.sqrt(len(found)), 1e-9)
    return {
        "batch label entropy ratio": float(np.mean(found)) / max(float(np.mean(drawn)), 1e-9),
        "batch label entropy z": (float(np.mean(found)) - float(np.mean(drawn))) / error,
    }


def _label_pool(bench: Bench) -> Int[np.ndarray, " n"] | None:
    """Class ids at random over the whole training set; what a loader yields first may be of one class."""
    problem = bench.problem
    if problem.batches is None:
        return bench.train.ids
    drawn = sample(problem.train, len(bench.train.images), seed=problem.seed, seconds=bench.read_seconds)
    return class_ids(drawn.labels, bench.num_classes)


def _entropies(batches: Sequence[np.ndarray], num_classes: int) -> Float[np.ndarray, " batches"]:
    """Label entropy of each batch, in nats."""
    counts = np.stack([np.bincount(np.clip(ids, 0, num_classes - 1), minlength=num_classes) for ids in batches])
    return np.asarray(entropy(counts))


def look_at_pairing(bench: Bench) -> dict[str, float]:
    """Whether images that look alike carry like labels, against a permutation null."""
    ids, images = bench.train.ids, np.asarray(bench.train.images, np.float32)
    if ids is None or len(ids) < MIN_FOR_NEIGHBOURS or len(np.unique(ids)) < 2 or images.ndim != 4:
        return {}
    seed = bench.problem.seed
    pixels = knn_consistency(pixel_features(images), ids, seed=seed)
    features = random_features(images, seed=seed)
    reading, scores = ridge_readings(features, ids, seed=seed)
    wrong = label_noise(scores, ids).share
    facts = {**_consistency("pixel neighbours", pixels), **_consistency("random features", reading)}
    moved = look_at_displaced(bench, features) if wrong > MANY_WRONG else {}
    return facts | {"contradicted label share": wrong} | moved | look_at_stored_pairs(bench, facts)


def _consistency(name: str, reading: Consistency) -> dict[str, float]:
    """The facts of one consistency reading."""
    return {f"{name} accuracy": float(reading.accuracy), f"{name} z": float(reading.z)}
