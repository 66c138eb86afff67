import numpy as np
import pytest

from cnnprobe.probes.scaling import SMALLEST_ERROR, expected_accuracy


def slow(sizes, accuracy, factor):
    """One line at a time."""
    found = []
    for run in accuracy:
        slope, level = np.polyfit(np.log(sizes), np.log(1 - run), 1)
        slope, at = min(slope, 0.0), np.mean(np.log(sizes))
        level = np.mean(np.log(1 - run)) if slope == 0 else level + slope * at
        found.append(1 - np.exp(level + slope * (np.log(factor * max(sizes)) - at)))
    return found


def test_matches_definition():
    sizes, accuracy = np.array([50, 100, 400]), np.random.default_rng(0).uniform(0.2, 0.9, (6, 3))
    np.testing.assert_allclose(expected_accuracy(sizes, accuracy, factor=3.0), slow(sizes, accuracy, 3.0), rtol=1e-9)


def test_a_power_law_is_prolonged_exactly():
    sizes = np.array([100.0, 200.0, 400.0])
    found = expected_accuracy(sizes, 1 - 2 * sizes[None] ** -0.5)
    np.testing.assert_allclose(found, 1 - 2 * 800**-0.5)


def test_more_images_are_never_expected_to_harm():
    assert expected_accuracy(np.array([10, 20]), np.array([[0.6, 0.4]]))[0] == pytest.approx(0.51, abs=0.01)


def test_a_run_without_errors_stays_a_number():
    assert expected_accuracy(np.array([10, 20]), np.ones((1, 2)))[0] == pytest.approx(1 - SMALLEST_ERROR)


@pytest.mark.parametrize(
    ("sizes", "accuracy", "options", "message"),
    [
        ([10], np.ones((1, 1)), {}, r"sizes must be two or more different numbers above 0, got \[10.0\]"),
        ([0, 10], np.ones((1, 2)), {}, r"sizes must be two or more .* got \[0.0, 10.0\]"),
        ([10, 20], np.ones((1, 3)), {}, r"accuracy must have a column for each of 2 sizes, got shape \(1, 3\)"),
        ([10, 20], np.ones(2), {}, r"accuracy must have 2 axes, got shape \(2,\)"),
        ([10, 20], np.ones((1, 2)), {"factor": 0.5}, "factor must be a number of at least 1.0, got 0.5"),
    ],
)
def test_bad_arguments_are_refused(sizes, accuracy, options, message):
    with pytest.raises(ValueError, match=message):
        expected_accuracy(np.array(sizes), accuracy, **options)
