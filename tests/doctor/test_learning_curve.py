import time

import numpy as np
import pytest

from cnnprobe.doctor import learning_curve
from cnnprobe.doctor.run import Run
from cnnprobe.doctor.trial import Plan, Scored
from cnnprobe.types import Curve
from tests.doctor.test_network_causes import evidence

NOTHING = Curve(np.zeros(0), np.zeros(0), np.zeros((0, 10), int), np.zeros((0, 10), int))
OVERFIT = {"generalisation_gap": 0.6, "training_accuracy": 1.0, "validation_accuracy": 0.4}


def curve_of(healthy, monkeypatch, *, whole, halves, seconds=100.0, training_accuracy=1.0):
    """The facts where runs on all images and on half of them reach the given accuracies, seed by seed."""
    drawn = []

    def run_twin(plan, problem, seed):
        drawn.append(problem.train.labels)
        return Scored(halves[seed], NOTHING)

    monkeypatch.setattr(learning_curve, "run_twin", run_twin)
    controls = {seed: Scored(accuracy, NOTHING) for seed, accuracy in enumerate(whole)}
    plan = Plan(healthy.bench, 10, 1.0, 1.0, 0, time.monotonic() + seconds, controls)
    run = Run(NOTHING, ({}, {}), ({}, {}), np.zeros((0, 5, 0)), (), (), 1.0, True)
    facts = {**healthy.facts, "generalisation gap": 0.6, "training accuracy": training_accuracy}
    return learning_curve.with_learning_curve(plan, healthy._replace(run=run, facts=facts)).facts, drawn


def test_gain_is_the_mean_over_seeds_with_its_error(healthy, monkeypatch):
    facts, drawn = curve_of(healthy, monkeypatch, whole=(0.6, 0.65, 0.7), halves=(0.4, 0.4, 0.4))
    assert facts["gain from doubling the images"] == pytest.approx(0.25)
    assert facts["error of the gain from doubling"] == pytest.approx(0.05 / 3**0.5)
    assert [len(labels) for labels in drawn] == [10, 10, 10]
    assert not np.array_equal(drawn[0], drawn[1])


@pytest.mark.parametrize(
    ("gains", "num_seeds"),
    [((0.2, 0.21, 0.19), 3), ((0.0, 0.01, 0.0), 3), ((0.0, 0.1, 0.05, 0.2, 0.2, 0.21), 6), ((0.0, 0.1) * 4, 8)],
    ids=["worth it", "not worth it", "worth it after six", "never decided"],
)
def test_seeds_are_run_until_chance_has_no_part_in_it(gains, num_seeds, healthy, monkeypatch):
    whole = (0.5,) * 8
    halves = [0.5 - gain for gain in (*gains, *(0.2,) * 8)]
    facts, drawn = curve_of(healthy, monkeypatch, whole=whole, halves=halves)
    assert len(drawn) == num_seeds
    assert facts["gain from doubling the images"] == pytest.approx(np.mean(gains[:num_seeds]))


@pytest.mark.parametrize("changes", [{"training_accuracy": 0.5}, {"seconds": 1.0}])
def test_nothing_is_measured_where_it_is_not_asked_or_there_is_no_time(changes, healthy, monkeypatch):
    facts, drawn = curve_of(healthy, monkeypatch, whole=(0.5,), halves=(0.4,), **changes)
    assert "gain from doubling the images" not in facts
    assert drawn == []


@pytest.mark.parametrize(("error", "is_named"), [(0.02, True), (float("nan"), True), (0.1, False)])
def test_a_gain_counts_beyond_its_error(error, is_named, healthy):
    found = evidence(
        "too-little-data", healthy, **OVERFIT, gain_from_doubling_the_images=0.08, error_of_the_gain_from_doubling=error
    )
    assert (found is not None) == is_named
