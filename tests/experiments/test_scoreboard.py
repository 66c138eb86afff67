import math

import numpy as np
import pytest

from experiments.faults import EXPECTED, FAULTS, OWN_NETWORK, TWINS
from experiments.healthy import HEALTHY
from experiments.scoreboard import HEALTHY_TWIN, confusion, is_held_against, judge, score_rows, write_scores


def row(case, *, causes=(), warnings=(), accuracy=0.8, remedied=None, seconds=10.0):
    return {
        "case": f"textures, plain, {case}",
        "verdict": "faulty" if causes else "healthy",
        "causes": list(causes),
        "warnings": list(warnings),
        "accuracy": [accuracy] * 2,
        "remedied": None if remedied is None else [remedied] * 2,
        "seconds": seconds,
    }


TWIN = row("healthy, adam")
SGD_TWIN = row("healthy, momentum")
RIGHT = row("fault, sum_loss", causes=["loss-summed-not-averaged"], accuracy=0.2, remedied=0.79)
WRONG = row("fault, raw_pixels", causes=["learning-rate-too-high", "inputs-not-scaled"], accuracy=0.2, remedied=0.5)
SILENT = row("fault, tiny_clip", accuracy=0.3)
BENIGN = row("fault, softmax_twice", warnings=["softmax-applied-twice"], accuracy=0.78)
ALARM = row("healthy, sgd", causes=["updates-too-small"], seconds=50.0)


def test_every_fault_says_what_it_is():
    assert set(EXPECTED) == set(FAULTS)
    assert set(FAULTS) >= OWN_NETWORK


def test_twins_are_healthy_problems():
    assert set(TWINS) <= set(FAULTS)
    assert {HEALTHY_TWIN, *TWINS.values()} <= set(HEALTHY)


def test_faults_and_their_twins_are_trained_to_the_end():
    assert is_held_against("fault", "sum_loss")
    assert [name for name in HEALTHY if is_held_against("healthy", name)] == [
        name for name in HEALTHY if name in {HEALTHY_TWIN, *TWINS.values()}
    ]


def test_a_fault_with_an_optimizer_of_its_own_is_held_against_a_twin_with_the_same():
    slow = row("healthy, momentum", accuracy=0.5)
    assert [round(item.harm, 3) for item in judge([TWIN, slow, RIGHT])] == [0.3]


def test_harm_is_measured_against_the_healthy_twin():
    assert [round(item.harm, 3) for item in judge([TWIN, SGD_TWIN, RIGHT, BENIGN])] == [0.6, 0.02]


def test_harm_that_one_seed_does_not_show_is_none():
    lucky = TWIN | {"accuracy": [0.8, 0.3]}
    unsure = row("fault, softmax_twice", accuracy=0.3)
    scores = score_rows([lucky, unsure])
    assert (scores.num_harmful, scores.num_benign) == (0, 1)


def test_shares_count_what_they_say():
    scores = score_rows([TWIN, SGD_TWIN, RIGHT, WRONG, SILENT, BENIGN, ALARM])
    found = (scores.detected, scores.first, scores.among_three)
    np.testing.assert_allclose(found, (2 / 3, 1 / 3, 2 / 3))
    assert (scores.num_harmful, scores.num_benign, scores.num_healthy) == (3, 1, 3)


def test_false_alarms_are_causes_and_not_warnings():
    scores = score_rows([TWIN, SGD_TWIN, RIGHT, BENIGN, ALARM, row("healthy, focal", warnings=["inputs-offset"])])
    np.testing.assert_allclose((scores.false_alarms, scores.warned, scores.blamed), (1 / 4, 1 / 4, 0))


def test_a_verdict_of_noise_names_it_in_sick_and_healthy_problems():
    noisy, healthy = (
        row(name, accuracy=0.3) | {"verdict": "noise-limited"} for name in ("fault, noisy_labels", "healthy, sgd")
    )
    scores = score_rows([TWIN, noisy, healthy])
    assert (scores.detected, scores.first, scores.false_alarms) == (1, 1, 1 / 2)


@pytest.mark.parametrize(("accuracy", "remedied", "unfounded"), [(0.3, 0.9, 0), (0.84, 0.92, 1), (0.5, None, 1)])
def test_alarm_is_founded_where_whole_trainings_bear_it_out(accuracy, remedied, unfounded):
    alarm = row("healthy, sgd", causes=["learning-rate-too-high"], accuracy=accuracy, remedied=remedied)
    scores = score_rows([TWIN, alarm])
    assert (scores.false_alarms, scores.unfounded) == (1 / 2, unfounded / 2)


def test_remedies_count_where_the_cause_is_right():
    scores = score_rows([TWIN, SGD_TWIN, RIGHT, WRONG])
    assert (scores.num_remedied, scores.restored) == (1, 1.0)


def test_nothing_to_count_is_unknown():
    assert math.isnan(score_rows([TWIN]).detected)


def test_confusion_has_a_row_for_each_planted_cause():
    counts = confusion(judge([TWIN, SGD_TWIN, WRONG, SILENT]))
    assert counts == {"inputs-not-scaled": {"learning-rate-too-high": 1}, "updates-too-small": {"no cause": 1}}


@pytest.mark.parametrize("name", ["scores.json", "confusion.png"])
def test_scores_are_written(name, tmp_path):
    rows = [TWIN, SGD_TWIN, RIGHT, WRONG]
    write_scores(score_rows(rows), rows, str(tmp_path))
    assert (tmp_path / name).stat().st_size > 100
