"""The picture of the network: its boxes, the lines of its branches, and its marks."""

import math
import re

import pytest

from cnnprobe.doctor.bands import healthy_band
from cnnprobe.reporting.html import render_html
from cnnprobe.reporting.picture import branch_lanes, draw_nodes
from cnnprobe.types import GraphRow


def rows(*branches):
    return [GraphRow(f"layer{i}", "conv", "", "", "", 0, 0, (), ends) for i, ends in enumerate(branches)]


def boxes(diagnosis):
    """The text of each box."""
    items = render_html(diagnosis).split('<ol class="network"')[1].split("</ol>")[0].split("<li")[1:]
    return [" ".join(re.sub(r"<[^>]*>", " ", item.split(">", 1)[1]).split()) for item in items]


def with_layer(diagnosis, number, **changes):
    layers = list(diagnosis.layers)
    layers[number] = layers[number]._replace(**changes)
    return diagnosis._replace(layers=tuple(layers))


def test_boxes_stand_from_the_input_to_the_output(healthy):
    names = [box.split()[0] for box in boxes(healthy)]
    assert names == ["input", "Conv_0", "Conv_1", "Dense_0", "Dense_1"]


def test_a_box_says_what_its_layer_is(healthy):
    expected = "Conv_1 conv 3x3 same 28x28x8 2,468 parameters · 5,678 multiply-adds · sees 3x3 add relu"
    assert boxes(healthy)[2].replace("&middot;", "·") == expected


def test_a_healthy_network_has_no_marks(healthy):
    assert [node.marks for node in draw_nodes(healthy)] == [()] * 5


@pytest.mark.parametrize(
    ("changes", "mark"),
    [
        ({"gradient_rms": 0.0}, "no gradient"),
        ({"gradient_rms": math.nan, "activation_gradient_rms": math.nan}, "gradient is not a number"),
        ({"log10_update_ratio": float("-inf")}, "does not move"),
        ({"dead_share": 1.0}, "100 % dead units"),
    ],
)
def test_what_no_healthy_layer_has_is_marked_in_words(changes, mark, healthy):
    sick = with_layer(healthy, 1, **changes)
    assert [node.marks for node in draw_nodes(sick)] == [(), (), (mark,), (), ()]


def test_marks_are_words_on_the_page(healthy):
    sick = with_layer(healthy, 1, gradient_rms=0.0, dead_share=1.0)
    assert boxes(sick)[2].replace("&middot;", "·").endswith("▲ no gradient · 100 % dead units")


def test_a_gradient_that_was_not_measured_is_not_marked(healthy):
    assert draw_nodes(with_layer(healthy, 1, gradient_rms=math.nan))[2].marks == ()


def test_dead_units_within_the_healthy_band_are_not_marked(healthy):
    assert draw_nodes(with_layer(healthy, 1, dead_share=healthy_band("dead unit share")[1]))[2].marks == ()


@pytest.mark.parametrize(
    ("sentence", "marked"),
    [
        ("All units of Dense_0 are copies.", [False, False, False, True, False]),
        ("Conv_0/kernel, Conv_1/kernel do not move.", [False, True, True, False, False]),
        ("Conv_01 is another layer.", [False] * 5),
    ],
)
def test_layers_that_evidence_names_are_marked(sentence, marked, faulty):
    finding = faulty.findings[0]
    finding = finding._replace(evidence=finding.evidence._replace(sentence=sentence))
    marks = [node.marks for node in draw_nodes(faulty._replace(findings=(finding,)))]
    assert marks == [("named by inputs-not-scaled",) if is_marked else () for is_marked in marked]


def test_a_branch_runs_beside_the_rows_it_passes():
    beside = branch_lanes(rows((), (), (), (0,)))
    assert [[(lane.is_start, lane.is_end) for lane in lanes] for lanes in beside] == [
        [],
        [(True, False)],
        [(False, False)],
        [(False, True)],
    ]


def test_branches_that_overlap_keep_to_lanes_of_their_own():
    beside = branch_lanes(rows((), (), (1, 0), (), (2,)))
    assert [[lane.number for lane in lanes] for lanes in beside] == [[], [0], [0, 1], [0], [0]]


def test_more_branches_than_lanes_are_left_out():
    assert max(map(len, branch_lanes(rows((), *(tuple(range(i)) for i in range(1, 9)))))) == 4


def test_the_largest_share_of_parameters_is_that_of_the_largest_layer(healthy):
    shares = [node.share for node in draw_nodes(healthy)]
    assert shares == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
