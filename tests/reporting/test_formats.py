import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnprobe.reporting import formats
from cnnprobe.types import Reading

finite = st.floats(-1e9, 1e9)
thousandths = st.integers(-(10**6), 10**6).map(lambda number: number / 1000)
bounds = st.tuples(thousandths, thousandths).map(sorted).map(tuple)


@pytest.mark.parametrize(("value", "text"), [(999.9, "1000"), (1e6, "1e+06"), (0.12345, "0.123"), (1, "1")])
def test_number_text(value, text):
    assert formats.number_text(value) == text


@pytest.mark.parametrize(
    ("value", "healthy", "expected"),
    [(1.0, (1.0, None), True), (0.9, (1.0, None), False), (2.0, (None, 1.0), False), (math.nan, (None, None), False)],
)
def test_is_healthy_at_the_borders(value, healthy, expected):
    assert formats.is_healthy(Reading("", value, healthy)) is expected


@given(value=thousandths, healthy=bounds)
def test_the_dot_is_in_the_band_exactly_when_the_reading_is_healthy(value, healthy):
    reading = Reading("", value, healthy)
    strip = formats.place_on_strip(reading)
    assert (strip.low <= strip.dot <= strip.high) == formats.is_healthy(reading)


@given(value=st.floats(), low=st.none() | finite, high=st.none() | finite)
def test_every_place_is_on_the_strip(value, low, high):
    places = formats.place_on_strip(Reading("", value, (low, high)))
    assert all(0 <= place <= 1 for place in places if place is not None)


def test_open_ends_and_infinite_readings_reach_the_ends():
    assert formats.place_on_strip(Reading("", math.inf, (None, None))) == (0.0, 1.0, 1.0)
    assert formats.place_on_strip(Reading("", math.nan, (1.0, 2.0))).dot is None


def test_gain_has_its_spread_only_over_several_seeds(trial_of):
    assert formats.gain_text(trial_of(control=(0.1, 0.2), remedied=(0.6, 0.5))) == "+40 ± 14 points"
    assert formats.gain_text(trial_of(control=(0.5,), remedied=(0.4,))) == "-10 points"


def test_gain_of_a_run_without_a_number(trial_of):
    assert formats.gain_text(trial_of(control=(math.nan,), remedied=(0.4,))) == "no number"


def test_trial_text_names_seeds_and_steps(trial_of):
    text = "balanced accuracy on 500 held-out images, from 11 % to 80 % (3 seeds of 150 steps)"
    assert formats.trial_text(trial_of()) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "yes"), ([1, 2.5], "1, 2.5"), ("sgd", "sgd"), (list(range(9)), "0, 1, 2, 3, 4, 5, 6, 7, ... (9 in all)")],
)
def test_fact_text(value, text):
    assert formats.fact_text(value) == text
