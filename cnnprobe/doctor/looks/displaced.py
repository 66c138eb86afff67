"""Labels that fit the images in another order than the one they are stored in."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cnnprobe.data.sampling import sampled_rows
from cnnprobe.doctor.bench import Bench, Sample, most_images
from cnnprobe.probes.features import random_features
from cnnprobe.probes.inputs import Consistency, ridge_readings
from cnnprobe.probes.labels import class_ids
from cnnprobe.types import Dataset, Source

ORDERS: tuple[tuple[str, int | tuple[int, bool] | None], ...] = (  # where the label of an image is, and the rule
    ("1 place later", 1),
    ("1 place before", -1),
    ("2 places later", 2),
    ("2 places before", -2),
    ("3 places later", 3),
    ("3 places before", -3),
    ("as far from the other end", None),
    ("of its number, with images listed as texts (0, 1, 10, 11, ...)", (0, False)),
    ("of its number, with images listed as texts (1, 10, 11, ...)", (1, False)),
    ("of its number, with labels listed as texts (0, 1, 10, 11, ...)", (0, True)),
    ("of its number, with labels listed as texts (1, 10, 11, ...)", (1, True)),
)
IN_ORDER, AS_STORED = "labels told in that order", "labels told as stored"
Z, FIRST = "z of the order that fits", "first place out of order"
MENDED = 0.1  # share of the labels that another order must mend to be thought of
NUM_SHIFTS = 7  # of `ORDERS`, which come first
MOST_LISTED = 1_000_000  # labels that are sorted as texts, which takes a second or so
QUICK = 2  # permutations, where only the accuracy is read
FEWEST = 60  # images, below which features tell nothing


class Displaced(NamedTuple):
    """An order of the labels, and from which place on it holds."""

    order: int  # which of `ORDERS`
    first: int  # place of the first image whose label lies elsewhere


def places_of_labels(moved: Displaced, num: int) -> Int[np.ndarray, " num"]:
    """The place of the label that belongs to each of `num` images; past the end the places begin anew."""
    places = np.arange(num)
    return np.where(places >= moved.first, _order(ORDERS[moved.order][1], num), places)


def _order(rule: int | tuple[int, bool] | None, num: int) -> Int[np.ndarray, " num"]:
    """The place of the label of each image, by one rule."""
    places = np.arange(num)
    if rule is None:
        return places[::-1]
    if isinstance(rule, int):
        return (places + rule) % num
    begin, is_inverse = rule
    among_texts = np.argsort((places + begin).astype(str), kind="stable")
    return np.argsort(among_texts) if is_inverse else among_texts


def look_at_displaced(bench: Bench, features: Float[np.ndarray, "n d"]) -> dict[str, float]:
    """The order in which labels fit the images of the sample best, beside their own; and in validation the same order.

    Nothing where a loader pairs the two, or where labels are no array or no classes.
    """
    read = _read(bench, bench.problem.train, bench.train, features)
    if bench.problem.batches is not None or read is None:
        return {}
    order = _best_order(read, bench.problem.seed)
    facts = {"order that fits the labels": float(order)} | _beside_own(read, order)
    valid = _read(bench, bench.problem.valid, bench.valid) if facts[IN_ORDER] - facts[AS_STORED] > MENDED else None
    beside = {} if valid is None else _beside_own(valid, order)
    return facts | {f"{name}, validation": value for name, value in beside.items()}


class _Read(NamedTuple):
    """A sample of stored images with all labels of its split."""

    features: Float[np.ndarray, "n d"]
    labels: Int[np.ndarray, " num"]  # of the whole split, as ranks of the classes
    rows: Int[np.ndarray, " n"]  # where the images are stored

    def there(self, order: int) -> Int[np.ndarray, " n"]:
        """The labels of the images in one of `ORDERS`."""
        return self.labels[_order(ORDERS[order][1], len(self.labels))[self.rows]]


def _read(
    bench: Bench, source: Dataset | Source | None, sample: Sample, features: Float[np.ndarray, "n d"] | None = None
) -> _Read | None:
    """The sample of one split; None where its labels are no array or no classes, or too few."""
    ids = class_ids(np.asarray(source.labels), bench.num_classes) if isinstance(source, Dataset) else None
    if ids is None or len(sample.images) < FEWEST:
        return None
    seed = bench.problem.seed
    rows = sampled_rows(len(ids), most_images(bench.train.images[:1]), seed=seed)[: len(sample.images)]
    found = random_features(np.asarray(sample.images, np.float32), seed=seed) if features is None else features
    return _Read(found, np.unique(ids, return_inverse=True)[1], rows)


def _best_order(read: _Read, seed: int) -> int:
    """The order in which features tell most labels."""
    num_orders = len(ORDERS) if len(read.labels) <= MOST_LISTED else NUM_SHIFTS
    labels = [read.there(order) for order in range(num_orders)]
    quick = [ridge_readings(read.features, each, num_permutations=QUICK, seed=seed)[0].accuracy for each in labels]
    return int(np.argmax(quick))


def _beside_own(read: _Read, order: int) -> dict[str, float]:
    """How many labels the images tell as they are stored, and with those of another order from some place on."""
    here, there = read.labels[read.rows], read.there(order)
    num_classes = 1 + int(read.labels.max())
    (reading, scores), (_, own) = (_scores(read.features, labels, num_classes) for labels in (there, here))
    first = _first_place(read.rows, scores, here, there)
    told = scores.argmax(axis=1)
    return {
        FIRST: float(first),
        Z: float(reading.z),
        IN_ORDER: float(np.mean(told == np.where(read.rows >= first, there, here))),
        AS_STORED: float(max(np.mean(told == here), np.mean(own.argmax(axis=1) == here))),
    }


def _scores(
    features: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], num_classes: int
) -> tuple[Consistency, Float[np.ndarray, "n classes"]]:
    """The reading of the sample with these labels, and held-out scores; 0 for a class that it lacks."""
    reading, found = ridge_readings(features, labels)
    scores = np.zeros((len(labels), num_classes))
    scores[:, np.unique(labels)] = found
    return reading, scores


def _first_place(
    rows: Int[np.ndarray, " n"],
    scores: Float[np.ndarray, "n classes"],
    here: Int[np.ndarray, " n"],
    there: Int[np.ndarray, " n"],
) -> int:
    """The place from which on labels of the other order have the better scores, in the sum over images."""
    each, by_place = np.arange(len(rows)), np.argsort(rows)
    lead = (scores[each, there] - scores[each, here])[by_place]
    gained = np.append(np.cumsum(lead[::-1])[::-1], 0.0)
    places = np.concatenate([[0], rows[by_place][1:], [rows.max() + 1]])
    return int(places[np.argmax(gained)])
