import xml.etree.ElementTree as ET

import numpy as np
import pytest

from cnnprobe.reporting import story_plots
from cnnprobe.reporting.plots import figure_to_svg
from cnnprobe.reporting.story_plots import Answers, Flow
from cnnprobe.types import History

NAMES = tuple("abcdefghij")
SCORES = {"accuracy": np.array([0.2, 0.5, 0.7])}
HISTORY = History({}, {}, SCORES, SCORES, 30)
SIZES, ACCURACY = np.array([10, 20, 40]), np.array([[0.3, 0.4, 0.5], [0.2, 0.4, 0.6]])


def answers(num_steps=200):
    rng = np.random.default_rng(0)
    return Answers(rng.integers(10, size=(num_steps, 8)), rng.integers(10, size=(num_steps, 8)))


def figures():
    yield story_plots.answers_figure({"as it is": answers(), "mended": answers(3)}, NAMES)
    yield story_plots.histories_figure({"as it is": HISTORY, "mended": HISTORY}, chance=0.1, marks={"stop": 2})
    yield story_plots.bars_figure({"majority": (10.0, float("nan")), "own": (-3.0, 2.0)}, unit="points", own=("own",))
    flows = {"conv": Flow(1e-3, 0.2), "dense": Flow(0.0, float("nan"))}
    yield story_plots.flow_figure({"A": flows, "B": {"conv": Flow(float("nan"), 1.0)}})
    yield story_plots.scaling_figure(SIZES, ACCURACY, np.array([0.6, 0.7]))


def test_every_figure_is_xml():
    for figure in figures():
        assert ET.fromstring(figure_to_svg(figure, name="here", label="a & b")).tag.endswith("svg")


def test_answers_are_sorted_by_label_within_their_batch():
    run = Answers(np.array([[0, 1, 2]]), np.array([[2, 0, 1]]))
    image = story_plots.answers_figure({"": run}, ("a", "b", "c")).axes[0].images[0]
    np.testing.assert_array_equal(image.get_array()[:, 0], [1, 2, 0])


def test_the_last_batches_are_shown_in_their_place():
    image = story_plots.answers_figure({"": answers(400)}, NAMES).axes[0].images[0]
    assert image.get_array().shape == (8, story_plots.MAX_BATCHES)
    assert image.get_extent()[:2] == [400 - story_plots.MAX_BATCHES - 0.5, 399.5]


def test_every_class_has_a_colour_of_its_own():
    assert len({story_plots._class_colour(index) for index in range(16)}) == 16


def test_bars_stand_in_order_with_their_values():
    axes = story_plots.bars_figure({"first": (10.0, 1.0), "second": (20.0, 1.0)}, unit="%").axes[0]
    assert [bar.get_width() for bar in axes.patches] == [10.0, 20.0]
    assert axes.yaxis_inverted()


def test_expected_accuracy_stands_at_twice_the_images():
    axes = story_plots.scaling_figure(SIZES, ACCURACY, np.array([0.6, 0.7])).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "20", "40", "80"]
    assert any(line.get_xdata()[-1] == 80 and line.get_ydata()[-1] == pytest.approx(0.65) for line in axes.lines)
