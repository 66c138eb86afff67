import time

import numpy as np
import pytest

from cnnprobe.doctor.conclude import conclude
from cnnprobe.doctor.run import Run
from cnnprobe.doctor.trial import Plan
from cnnprobe.types import Curve

CURVE = Curve(np.ones(100), np.zeros(100), np.zeros((100, 10), int), np.zeros((100, 10), int))
RUN = Run(CURVE, ({}, {}), ({}, {}), np.zeros((100, 5, 0)), (), (), 1.0, is_complete=True)


def concluded(healthy, bench, *, reached, run=RUN, seconds=0.0):
    facts = {"validation accuracy": reached, "random features accuracy": 0.8, "number of updates": 100.0}
    seen = healthy._replace(run=run, facts={**healthy.facts, **facts, "number of steps": 100.0})
    return conclude(Plan(bench, 100, 1.0, 1.0, 0, time.monotonic() + seconds, {}), seen, (), (), time.monotonic())


@pytest.mark.parametrize(("reached", "verdict"), [(0.8, "healthy"), (0.5, "cannot-tell")])
def test_far_below_what_needs_no_training_is_not_called_healthy(healthy, tiny_bench, reached, verdict):
    diagnosis = concluded(healthy, tiny_bench, reached=reached)
    assert diagnosis.verdict == verdict
    assert ("fixed random network reaches 80%" in diagnosis.summary) is (verdict == "cannot-tell")


def test_a_run_that_the_budget_cut_is_not_said_to_be_held_back(healthy, tiny_bench):
    diagnosis = concluded(healthy, tiny_bench, reached=0.5, run=RUN._replace(is_complete=False))
    assert diagnosis.verdict == "cannot-tell"
    assert "Give it more seconds" in diagnosis.summary
