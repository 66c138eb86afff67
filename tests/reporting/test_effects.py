import io
import json

import numpy as np
import pytest
from rich.console import Console

from cnnprobe.doctor.checklist import Line
from cnnprobe.reporting.effects import effects_figure, print_checklist, write_checklist

NONE = np.zeros(0)
LINES = (
    Line("Is there a validation set?", "yes, [red]100[/red] images", NONE, NONE),
    Line("Steps ten times as long?", "20% without, 80% with", np.array([0.2, 0.2]), np.array([0.7, 0.9])),
    Line("Augment by flips?", "not tested: no time was left", NONE, NONE),
    Line("Adam, 0.001?", "20% without, 10% with", np.array([0.2]), np.array([0.1])),
)


def test_every_line_is_printed_and_none_of_it_is_markup():
    console = Console(file=io.StringIO(), width=100)
    print_checklist(LINES, console=console)
    text = console.file.getvalue()
    assert all(line.question in text for line in LINES)
    assert "[red]100[/red]" in text


def test_bars_are_the_measured_effects_in_order():
    axes = effects_figure(LINES).axes[0]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [-10, 60])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Adam, 0.001", "Steps ten times as long"]


def test_nothing_tested_is_an_empty_picture():
    assert not effects_figure(LINES[:1]).axes[0].patches


def test_picture_and_numbers_are_written(tmp_path):
    picture = write_checklist(LINES, tmp_path / "new")
    content = json.loads((tmp_path / "new" / "checklist.json").read_text())
    assert picture.stat().st_size > 1000
    assert content[1]["effect"] == pytest.approx(0.6)
