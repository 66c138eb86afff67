import math

import numpy as np
import pytest

from cnnprobe.doctor.run import FEWEST_STEPS, MAX_STEPS
from cnnprobe.reporting.follow import Growth
from cnnprobe.reporting.live import MOST_POINTS, Live, Series, extended, grown, raised, spread

RNG = np.random.default_rng(0)
HEADER = {"kind": "run", "parameters": ["conv/bias", "conv/kernel"], "layers": ["gradient_norm", "ratio"]}


def steps(losses, *, start=0):
    """Lines of a run whose labels and predictions are drawn at random."""
    for index, loss in enumerate(losses, start):
        counts, labels = (np.bincount(RNG.integers(0, 4, 32), minlength=4).tolist() for _ in range(2))
        row = {"kind": "step", "step": index, "loss": loss, "accuracy": 0.5}
        yield row | {"prediction_counts": counts, "label_counts": labels, "probes": {}, "taps": {}}


def read(records, live=None, *, reading="ratio"):
    return grown(live or Live(), Growth(tuple(records), is_anew=False), reading=reading)


def open_causes(live):
    return [alarm.finding.cause for alarm in live.alarms if alarm.until is None]


@pytest.mark.parametrize("stride", [1, 7, 300])
def test_a_curve_is_the_mean_of_neighbours_and_never_long(stride):
    values = RNG.normal(size=5000).tolist()
    series = Series()
    for start in range(0, 5000, stride):
        series = extended(series, values[start : start + stride])
    assert MOST_POINTS / 2 <= len(series.points) <= MOST_POINTS
    whole = len(series.points) * series.stride
    means = np.mean(np.reshape(values[:whole], (-1, series.stride)), axis=1)
    np.testing.assert_allclose(series.points, means, rtol=1e-9, atol=1e-12)
    assert whole + len(series.rest) == 5000
    assert series.last == values[-1]


def test_gaps_and_infinities_pass_through_a_curve():
    series = extended(Series(), [math.nan, 1.0, math.inf])
    assert np.isnan(series.points[0])
    assert series.points[1:] == (1.0, math.inf)


@pytest.mark.parametrize(("counts", "expected"), [([8, 0], 0), ([4, 4], 1), ([0, 0], math.nan), ([5], math.nan)])
def test_spread_is_the_share_of_the_largest_entropy(counts, expected):
    np.testing.assert_allclose(spread(counts), expected, atol=1e-12)


def test_a_run_that_learns_raises_no_alarm_at_any_time():
    live = Live()
    for part in np.array_split(np.linspace(1.4, 0.1, 1500), 40):
        live = read(steps(part.tolist(), start=live.num_steps), live)
        assert live.alarms == ()
    assert (live.num_steps, len(live.first), len(live.latest)) == (1500, MAX_STEPS, MAX_STEPS)


def test_a_jump_of_the_loss_is_an_alarm_that_ends_when_the_run_learns():
    live = read(steps([1.4] * 20 + [60.0] * 30))
    assert open_causes(live) == ["learning-rate-too-high"]
    live = read(steps([1.3] * 50 + [0.2] * 300, start=50), live)
    assert open_causes(live) == []
    assert (live.alarms[0].since, live.alarms[0].until) == (50, 100)


def test_a_jump_in_the_middle_is_not_passed_over_when_a_long_log_is_read_at_once():
    live = read(steps([1.4] * 900 + [99.0] * 30 + [1.4] * 2000))
    assert [alarm.finding.cause for alarm in live.alarms] == ["learning-rate-too-high"]


def test_a_young_run_is_not_judged():
    assert read(steps([1.4] * 10 + [500.0] * (FEWEST_STEPS - 11))).diagnosis is None


def test_a_loss_that_is_no_number_is_told_before_that():
    live = read(steps([1.4, 1.3, None, None, None]))
    assert open_causes(live) == ["non-finite-loss"]


def test_a_loss_that_ceases_to_be_a_number_is_told_at_once_though_the_run_had_learnt():
    live = read(steps(np.linspace(1.4, 0.1, 1000).tolist()))
    assert open_causes(live) == []
    live = read(steps([None], start=1000), live)
    assert open_causes(live) == ["non-finite-loss"]
    live = read(steps([0.1] * 400, start=1001), live)
    assert open_causes(live) == []


def test_the_end_of_an_epoch_makes_the_doctor_look():
    live = read(steps([1.4] * 60))
    assert live.epoch == {}
    epoch = {"kind": "epoch", "epoch": 0, "num_steps": 60, "train": {"loss": 1.0, "accuracy": 0.25}}
    assert read([epoch], live).diagnosis.facts["training accuracy"] == 0.25


def test_sorted_batches_are_not_taken_for_a_class_that_outweighs_the_others():
    rows = [row | {"label_counts": [32, 0, 0, 0] if row["step"] < 45 else [0, 32, 0, 0]} for row in steps([1.4] * 60)]
    assert "batches-not-shuffled" in open_causes(read(rows))
    assert "class-imbalance" not in open_causes(read(rows))


def test_one_class_that_outweighs_the_others_is_an_alarm():
    rows = [row | {"label_counts": [30, 1, 1, 0]} for row in steps([1.4] * 60)]
    assert open_causes(read(rows)) == ["class-imbalance"]


def test_a_reading_is_followed_layer_by_layer():
    rows = [{**step, "probes": {"layers": [[1.0, 2.0], ["-inf", -3.0]]}} for step in steps([1.0, 0.9])]
    live = read([HEADER, *rows])
    assert {name: series.points for name, series in live.layers.items()} == {
        "conv/bias": (-math.inf, -math.inf),
        "conv/kernel": (-3.0, -3.0),
    }


def test_a_reading_of_activations_is_followed_where_it_was_taken():
    first, second = steps([1.0, 0.9])
    first["taps"] = {"conv": {"kind": "conv", "dead_share": 0.25}, "head": {"kind": "dense", "dead_share": None}}
    live = read([HEADER, first, second], reading="dead_share")
    assert {name: series.points for name, series in live.layers.items()} == {"conv": (0.25,)}


def test_losses_alone_can_be_followed():
    live = read([{"loss": 1.4 - 0.01 * step} for step in range(60)])
    assert (live.num_steps, live.alarms) == (60, ())


def test_a_log_that_begins_anew_is_forgotten():
    live = read(steps([1.4] * 20 + [60.0] * 40))
    assert grown(live, Growth(tuple(steps([1.4])), is_anew=True), reading="ratio").num_steps == 1


def test_an_alarm_that_comes_back_is_a_new_one():
    finding = read(steps([1.4] * 20 + [60.0] * 40)).alarms[0].finding
    alarms = raised(raised(raised((), [finding], 1), [], 2), [finding], 3)
    assert [(alarm.since, alarm.until) for alarm in alarms] == [(1, 2), (3, None)]
