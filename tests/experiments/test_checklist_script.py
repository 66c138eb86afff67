import importlib
import json

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from cnnprobe.doctor.checklist import Line
from experiments import checklist

LINES = (
    Line("Are the inputs scaled?", "yes", np.zeros(0), np.zeros(0)),
    Line("Smaller steps?", "no", np.array([0.6]), np.array([0.5])),
    Line("Augmentation?", "it gains 10 points", np.array([0.6]), np.array([0.7])),
)


@pytest.fixture
def printed(monkeypatch, capsys):
    """`printed("--json")` is what the script prints with these flags."""
    monkeypatch.setattr(importlib.import_module("cnnprobe.doctor.checklist"), "checklist", lambda *_, **__: LINES)

    def run(*arguments):
        with flagsaver.flagsaver():
            flags.FLAGS(["test", "--num_images=30", *arguments])
            checklist.main(["checklist"])
        return capsys.readouterr().out

    return run


def test_json_holds_every_line_with_its_effect(printed):
    rows = json.loads(printed("--json"))
    assert [row["effect"] for row in rows] == [None, pytest.approx(-0.1), pytest.approx(0.1)]


def test_quiet_is_the_line_that_gains_most(printed):
    assert printed("--quiet") == "Augmentation? it gains 10 points\n"


def test_without_flags_it_is_a_table(printed):
    assert all(line.question in printed() for line in LINES)
