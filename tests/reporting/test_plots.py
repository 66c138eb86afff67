import re
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure

from cnnprobe.reporting import plots
from cnnprobe.types import LayerRow, Reading


def svg_of(figure):
    return plots.figure_to_svg(figure, name="here", label='loss of "a" & b')


def figures(diagnosis):
    curve = diagnosis.curve
    yield plots.loss_figure({"as it is": curve})
    yield plots.accuracy_figure({"as it is": curve, "remedied": curve})
    yield plots.batch_figure(curve, diagnosis.class_names)
    yield plots.gradient_figure(diagnosis.layers)
    yield plots.evidence_figure([r for finding in diagnosis.findings for r in finding.evidence.readings])


@pytest.mark.parametrize("name", ["faulty", "healthy", "all_nan"])
def test_every_figure_of_every_diagnosis_is_xml(name, request):
    for figure in figures(request.getfixturevalue(name)):
        assert isinstance(figure, Figure)
        assert ET.fromstring(svg_of(figure)).tag.endswith("svg")


def test_figures_leave_no_global_state(faulty):
    list(figures(faulty))
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_svg_asks_for_nothing_from_the_network(faulty):
    svg = "".join(svg_of(figure) for figure in figures(faulty))
    links = re.findall(r"(?:href=|url\()[\"']?([^\"')]*)", svg)
    assert links
    assert all(link.startswith(("#", "data:image/png")) for link in links)


def test_svg_takes_size_and_colours_from_the_page(faulty):
    svg = svg_of(plots.loss_figure({"as it is": faulty.curve}))
    opening = svg[: svg.index(">")]
    assert "currentColor" in svg
    assert plots.INK not in svg
    assert " width=" not in opening
    assert 'aria-label="loss of &quot;a&quot; &amp; b"' in opening


def test_ids_carry_the_name_so_that_figures_can_share_a_page(faulty):
    svg = svg_of(plots.batch_figure(faulty.curve))
    ids = re.findall(r'\bid="([^"]*)"', svg)
    assert len(ids) == len(set(ids))
    assert all(name.startswith("here-") for name in ids)
    assert all(f'id="{target}"' in svg for target in re.findall(r'(?:href="#|url\(#)([^")]*)', svg))


def test_the_same_figure_gives_the_same_text(faulty):
    first, second = (svg_of(plots.batch_figure(faulty.curve)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "$\\frac{", "a\nb", "&amp;", "x" * 300])
def test_hostile_names_are_only_text(name, faulty):
    layers = [faulty.layers[0]._replace(name=name)]
    svg = svg_of(plots.gradient_figure(layers)) + svg_of(plots.batch_figure(faulty.curve, [name] * 10))
    assert "<script" not in svg


@pytest.mark.parametrize(
    ("losses", "scale"),
    [([1, 2], "linear"), ([0.1, 5], "log"), ([-1, 1], "linear"), ([-500, 1], "symlog"), ([np.nan, np.inf], "linear")],
)
def test_the_loss_axis_shows_the_whole_range(losses, scale, curve_of):
    curve = curve_of(final_accuracy=0.5)._replace(loss=np.array(losses, dtype=float))
    assert plots.loss_figure({"run": curve}).axes[0].get_yscale() == scale


def test_running_mean_is_over_the_finite_values_only():
    values = np.concatenate([np.full(50, 2.0), [np.nan], np.full(49, 4.0)])
    window = 5
    expected = [np.nanmean(values[max(0, i - window // 2) : i + window // 2 + 1]) for i in range(100)]
    expected[50] = np.nan
    np.testing.assert_allclose(plots._running_mean(values), expected)


def test_columns_of_a_long_run_are_averages_over_blocks_of_steps():
    counts = np.random.default_rng(0).integers(1, 9, size=(1300, 3))
    shares = plots._column_shares(counts)
    assert shares.shape == (3, 434)
    np.testing.assert_allclose(shares[:, 1], counts[3:6].sum(0) / counts[3:6].sum())


def test_a_batch_without_predictions_has_no_share():
    assert plots._column_shares(np.zeros((2, 3), int)).sum() == 0


def test_a_layer_without_gradient_is_marked():
    layer = LayerRow("conv", "conv", "relu", 1.0, 0.5, 0.0, 0.0, float("nan"), -3.0)
    crosses = [line for line in plots.gradient_figure([layer]).axes[0].lines if line.get_marker() == "x"]
    assert [len(line.get_xdata()) for line in crosses] == [1, 1]


def test_many_layers_have_room(faulty):
    figure = plots.gradient_figure([faulty.layers[0]] * 200)
    assert figure.get_figheight() < 12
    assert len(figure.axes[0].get_yticks()) <= plots.MAX_NAMES


def test_evidence_outside_the_band_has_another_shape():
    readings = [
        Reading("inside", 1.0, (0.0, 2.0)),
        Reading("outside", 3.0, (0.0, 2.0)),
        Reading("", np.nan, (0.0, 2.0)),
    ]
    markers = [line.get_marker() for line in plots.evidence_figure(readings).axes[0].lines]
    assert markers == ["o", "D"]


def test_a_run_of_no_steps_can_be_drawn(curve_of):
    empty = curve_of(final_accuracy=0.5, num_steps=0)
    for figure in (plots.loss_figure({"run": empty}), plots.accuracy_figure({"run": empty}), plots.batch_figure(empty)):
        assert svg_of(figure)
