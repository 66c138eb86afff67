"""Labels that fit the images in another order than the one they are stored in."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cnnprobe.data.sampling import sampled_rows
from cnnprobe.doctor.bench import Bench, most_images
from cnnprobe.probes.inputs import Consistency, ridge_readings
from cnnprobe.probes.labels import class_ids
from cnnprobe.types import Dataset

ORDERS: tuple[tuple[str, int | tuple[int, bool] | None], ...] = (  # where the label of an image is, and the rule
    ("1 place later", 1),
    ("1 place before", -1),
    ("2 places later", 2),
    ("2 places before", -2),
    ("3 places later", 3),
    ("3 places before", -3),
    ("as far from the other end", None),
    ("by number, where images are listed as texts: 0, 1, 10, 11, ...", (0, False)),
    ("by number, where images are listed as texts: 1, 10, 11, ...", (1, False)),
    ("listed as texts: 0, 1, 10, 11, ..., where images are listed by number", (0, True)),
    ("listed as texts: 1, 10, 11, ..., where images are listed by number", (1, True)),
)
QUICK = 2  # permutations, where only the accuracy is read


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
    """The order in which labels fit the images of the sample best, beside their own.

    Nothing where a loader pairs the two, or where labels are no array or no classes.
    """
    problem = bench.problem
    if problem.batches is not None or not isinstance(problem.train, Dataset):
        return {}
    ids = class_ids(np.asarray(problem.train.labels), bench.num_classes)
    if ids is None:
        return {}
    total, labels = len(ids), np.unique(ids, return_inverse=True)[1]
    rows = sampled_rows(total, most_images(bench.train.images[:1]), seed=problem.seed)[: len(features)]
    elsewhere = [labels[_order(rule, total)[rows]] for _, rule in ORDERS]
    quick = [ridge_readings(features, each, num_permutations=QUICK, seed=problem.seed)[0] for each in elsewhere]
    order = int(np.argmax([reading.accuracy for reading in quick]))
    return {"order that fits the labels": float(order)} | _beside_own(features, rows, labels[rows], elsewhere[order])


def _beside_own(
    features: Float[np.ndarray, "n d"],
    rows: Int[np.ndarray, " n"],
    here: Int[np.ndarray, " n"],
    there: Int[np.ndarray, " n"],
) -> dict[str, float]:
    """How many labels the images tell as they are stored, and with those of another order from some place on."""
    num_classes = 1 + int(max(here.max(), there.max()))
    (reading, scores), (_, own) = (_scores(features, labels, num_classes) for labels in (there, here))
    first = _first_place(rows, scores, here, there)
    told = scores.argmax(axis=1)
    return {
        "first place out of order": float(first),
        "z of the order that fits": float(reading.z),
        "labels told in that order": float(np.mean(told == np.where(rows >= first, there, here))),
        "labels told as stored": float(max(np.mean(told == here), np.mean(own.argmax(axis=1) == here))),
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
