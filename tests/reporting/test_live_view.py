import io
import math

import pytest
from rich.console import Console

from cnnprobe.reporting.live import Alarm, Live, Series, extended
from cnnprobe.reporting.live_view import BARS, alarm_lines, sparkline, status_line, view
from cnnprobe.types import Diagnosis, Evidence, Finding

FINDING = Finding(
    "learning-rate-too-high",
    "the steps are too large",
    "cause",
    0.5,
    Evidence("The [loss] jumps 12-fold.", (), 1.0),
    None,
    "",
    "",
    None,
    "",
    (),
)
FACTS = {"collapse index": 0.9, "largest loss ratio": 0.2, "log10 of update over parameter": -9.0}
DIAGNOSIS = Diagnosis("faulty", "", (FINDING,), None, (), (), FACTS, (), 0.0)


def curve(*values):
    return extended(Series(), values)


LIVE = Live(
    num_steps=60,
    epoch={"epoch": 1, "valid": {"loss": 0.75, "accuracy": 0.5}},
    curves={"loss": curve(2.0, 1.0), "accuracy": curve(0.25, 0.5), "spread": curve(math.nan, math.nan)},
    layers={f"conv{i}/kernel": curve(-3.0, -2.5) for i in range(40)} | {"head/bias": curve(0.0, -math.inf)},
)
JUDGED = LIVE._replace(diagnosis=DIAGNOSIS, looked_at=60)


def text(live, *, width=100, height=200, **options):
    """What a terminal without colours shows."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(view(live, "runs/a", reading="log10_update_ratio", width=width, height=height, **options))
    return console.file.getvalue()


def test_bars_reach_from_the_lowest_to_the_highest():
    assert sparkline(range(8), 8) == BARS
    assert sparkline([x / 4 for x in range(8) for _ in range(10)], 8) == BARS


def test_what_is_no_number_has_a_bar_of_its_own():
    assert sparkline([math.nan, -math.inf, 0.0, 1.0, math.inf], 9) == " ▁▁██"
    assert sparkline([math.nan] * 3, 9) == "   "


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("live", [Live(), LIVE, JUDGED, JUDGED._replace(alarms=(Alarm(FINDING, 50),))])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(live, width):
    lines = text(live, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)


def test_curves_have_their_last_value_and_what_validation_says():
    line = next(line for line in text(LIVE).splitlines() if line.startswith("accuracy"))
    assert line.split() == ["accuracy", "▁█", "0.5", "validation", "0.5"]


def test_a_curve_that_was_not_recorded_is_not_shown():
    assert "prediction spread" not in text(LIVE)


def test_layers_that_do_not_fit_are_counted():
    shown = text(LIVE, height=24)
    assert shown.count("/kernel") == 10
    assert "and 31 more; --layer=TEXT picks some" in shown
    assert len(shown.splitlines()) <= 24


def test_layers_can_be_picked():
    shown = text(LIVE, layer="head")
    assert "kernel" not in shown
    assert "head/bias" in shown
    assert "-inf" in shown


def test_readings_stand_beside_what_healthy_runs_keep():
    lines = text(JUDGED).splitlines()
    assert next(line for line in lines if line.startswith("collapse index")).endswith("outside")
    assert next(line for line in lines if line.startswith("log10 of update")).endswith("outside")
    assert "outside" not in next(line for line in lines if line.startswith("largest loss ratio"))


def test_a_run_that_was_not_judged_says_so():
    assert "The doctor has not looked yet" in text(LIVE)
    assert "no alarms up to step 60" in text(JUDGED)


def test_an_alarm_says_since_when_and_why():
    shown = text(JUDGED._replace(alarms=(Alarm(FINDING, 50),)))
    assert "ALARM since step 50  The steps are too large. The [loss] jumps 12-fold." in shown


def test_an_alarm_that_ended_is_no_alarm():
    shown = text(JUDGED._replace(alarms=(Alarm(FINDING, 50, 100),)))
    assert "learning-rate-too-high: read from step 50 to 100, and no more" in shown
    assert "ALARM" not in shown


def test_one_line_says_how_far_the_run_is():
    assert status_line(LIVE, "runs/a") == "runs/a  epoch 2 done, 60 steps  loss 1  accuracy 0.5  alarms none"
    alarms = (Alarm(FINDING, 10, 20), Alarm(FINDING._replace(cause="non-finite-loss"), 50))
    assert status_line(LIVE._replace(alarms=alarms), "runs/a").endswith("alarms non-finite-loss")


def test_alarms_are_told_when_they_come_and_when_they_go():
    came, gone = (Alarm(FINDING, 50),), (Alarm(FINDING, 50, 100),)
    assert list(alarm_lines((), came)) == ["step 50: ALARM learning-rate-too-high: The [loss] jumps 12-fold."]
    assert list(alarm_lines(came, gone)) == ["step 100: learning-rate-too-high is read no more"]
    assert list(alarm_lines(gone, gone)) == []
    assert len(list(alarm_lines((), gone))) == 2


def test_alarms_of_a_log_that_began_anew_are_told_anew():
    before, after = (Alarm(FINDING, 50, 100),), (Alarm(FINDING, 60),)
    assert list(alarm_lines(before, after)) == ["step 60: ALARM learning-rate-too-high: The [loss] jumps 12-fold."]
