import numpy as np
import pytest

from cnnprobe.doctor.bench import make_bench
from cnnprobe.doctor.causes import CAUSES
from cnnprobe.doctor.looks.data import look_at_pairing
from cnnprobe.doctor.looks.displaced import ORDERS, Displaced, places_of_labels
from cnnprobe.types import Dataset

UNRELATED = next(cause for cause in CAUSES if cause.id == "labels-unrelated-to-images")
NUM, CLASSES = 600, 4
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, CLASSES, NUM)
WAVES = np.sin(np.arange(12)[:, None] * (LABELS[:, None, None] + 1) / 2) * np.ones((NUM, 12, 12))
IMAGES = (WAVES + RNG.normal(0, 0.3, WAVES.shape))[..., None].astype(np.float32)


def stored(labels, problem, images=IMAGES):
    return problem._replace(train=Dataset(images, labels), num_classes=CLASSES)


def displaced(moved, labels=LABELS):
    """The labels so that `places_of_labels` puts them right; what runs off the end stays."""
    wrong = labels.copy()
    wrong[places_of_labels(moved, len(labels))] = labels
    return wrong


def seen_of(problem, healthy):
    bench = make_bench(problem)
    facts = {name: value for name, value in healthy.facts.items() if not name.startswith("stored ")}
    return healthy._replace(bench=bench, facts={**facts, "validation accuracy": 0.25, **look_at_pairing(bench)})


@pytest.mark.parametrize("order", range(len(ORDERS)))
def test_every_order_is_found_and_put_right(order, healthy, tiny_bench):
    problem = stored(displaced(Displaced(order, 0)), tiny_bench.problem)
    seen = seen_of(problem, healthy)
    evidence = UNRELATED.evidence(seen)
    assert evidence.strength == 1
    assert ORDERS[order][0] in evidence.sentence
    assert ORDERS[order][0] in UNRELATED.advice(seen).text
    (remedy,) = UNRELATED.remedies(seen)
    assert np.mean(remedy(problem).train.labels == LABELS) > 0.99
    assert remedy(problem).valid is problem.valid


def test_validation_in_the_same_wrong_order_is_put_right_too(healthy, tiny_bench):
    wrong = displaced(Displaced(8, 0))
    fresh = RNG.permutation(NUM)
    valid = Dataset(IMAGES[fresh], displaced(Displaced(8, 0), LABELS[fresh]))
    problem = stored(wrong, tiny_bench.problem)._replace(valid=valid)
    (remedy,) = UNRELATED.remedies(seen_of(problem, healthy))
    assert np.mean(remedy(problem).train.labels == LABELS) > 0.99
    assert np.mean(remedy(problem).valid.labels == LABELS[fresh]) > 0.99


def test_validation_that_is_right_stays(healthy, tiny_bench):
    problem = stored(displaced(Displaced(8, 0)), tiny_bench.problem)._replace(valid=Dataset(IMAGES, LABELS))
    (remedy,) = UNRELATED.remedies(seen_of(problem, healthy))
    assert remedy(problem).valid is problem.valid


@pytest.mark.parametrize("first", [30, 300, 400])
def test_the_place_is_told_from_which_labels_are_displaced(first, healthy, tiny_bench):
    problem = stored(displaced(Displaced(0, first)), tiny_bench.problem)
    seen = seen_of(problem, healthy)
    assert f"from image {int(seen.facts['first place out of order'])} on" in UNRELATED.evidence(seen).sentence
    assert abs(seen.facts["first place out of order"] - first) <= 5
    assert np.mean(UNRELATED.remedies(seen)[0](problem).train.labels == LABELS) > 0.98


def test_labels_of_nothing_fit_in_no_order(healthy, tiny_bench):
    seen = seen_of(stored(RNG.integers(0, CLASSES, NUM), tiny_bench.problem), healthy)
    assert "order that fits the labels" in seen.facts
    assert "shuffled ones" in UNRELATED.evidence(seen).sentence
    assert UNRELATED.remedies(seen) == ()


def test_noisy_labels_in_the_order_of_the_classes_fit_as_they_are(healthy, tiny_bench):
    by_class = np.argsort(LABELS, kind="stable")
    noisy = np.where(RNG.random(NUM) < 0.5, RNG.integers(0, CLASSES, NUM), LABELS[by_class])
    seen = seen_of(stored(noisy, tiny_bench.problem, IMAGES[by_class]), healthy)
    assert seen.facts["order that fits the labels"] >= 0
    assert UNRELATED.evidence(seen) is None


def test_labels_that_fit_are_held_against_no_order(tiny_bench):
    assert "order that fits the labels" not in look_at_pairing(make_bench(stored(LABELS, tiny_bench.problem)))


def test_loader_is_held_against_no_order(tiny_bench):
    wrong = stored(np.roll(LABELS, 1), tiny_bench.problem)
    loaded = wrong._replace(batches=lambda epoch: [(wrong.train.images, wrong.train.labels)])
    assert "order that fits the labels" not in look_at_pairing(make_bench(loaded))


def test_classes_that_the_sample_lacks_stand_in_nobodys_way(healthy, tiny_bench):
    rare = LABELS.copy()
    rare[7] = CLASSES + 3
    problem = stored(np.roll(rare, 1), tiny_bench.problem)._replace(num_classes=CLASSES + 4)
    assert UNRELATED.evidence(seen_of(problem, healthy)).strength == 1
