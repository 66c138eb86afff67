import json

import numpy as np
import pytest

from cnnprobe.reporting.rate_plots import rates_figure, write_learning_rate_range
from cnnprobe.training.rates import LearningRateRange

RATES = np.geomspace(0.01, 100, 5)
LOSSES = np.array([2.0, 2.0, 1.0, 0.5, 900.0])
SMOOTHED = np.array([np.nan, 1.9, 1.1, 0.6, np.nan])
FOUND = LearningRateRange(RATES, LOSSES, SMOOTHED, float(RATES[2]), float(RATES[3]), "It falls.")


def test_the_suggestion_lies_on_the_smoothed_curve():
    dot = next(line for line in rates_figure(FOUND).axes[0].lines if line.get_marker() == "o")
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (RATES[2], 1.1)


def test_an_explosion_does_not_flatten_the_rest():
    low, high = rates_figure(FOUND).axes[0].get_ylim()
    assert low < 0.5 < 2.0 < high < 4.0


@pytest.mark.parametrize("losses", [np.full(5, np.nan), np.array([1.0, np.inf, 1.0, 1.0, 1.0]), np.ones(5)])
def test_without_a_suggestion_there_is_no_dot(losses):
    axes = rates_figure(FOUND._replace(losses=losses, suggestion=float("nan"), upper=float("nan"))).axes[0]
    assert not [line for line in axes.lines if line.get_marker() == "o"]


def test_picture_and_numbers_are_written(tmp_path):
    picture = write_learning_rate_range(FOUND, tmp_path / "new")
    content = json.loads((tmp_path / "new" / "learning_rate_range.json").read_text())
    assert picture.stat().st_size > 1000
    assert (content["suggestion"], content["smoothed"][0]) == (1.0, None)
