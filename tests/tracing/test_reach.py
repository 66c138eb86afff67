"""The arithmetic of receptive fields against loops over every position and tap."""

import numpy as np
import pytest

from cnnprobe.tracing.reach import Reach, Sliding, axis_reach, join, pick, reshape, slide, tap_sources, whole

SLIDINGS = [
    Sliding(10),
    Sliding(8, size=3),
    Sliding(5, size=3, stride=2, padding=1),
    Sliding(10, size=3, dilation=2, padding=2),
    Sliding(21, size=3, base_dilation=2, padding=2),
    Sliding(9, size=3, stride=2, dilation=3, base_dilation=2, padding=4),
    Sliding(6, padding=-2),
]


def naive_taps(sliding, num_inputs):
    rows = []
    for output in range(sliding.num_outputs):
        steps = [output * sliding.stride + tap * sliding.dilation - sliding.padding for tap in range(sliding.size)]
        base = sliding.base_dilation
        rows.append([step // base if step % base == 0 and 0 <= step // base < num_inputs else -1 for step in steps])
    return rows


@pytest.mark.parametrize("sliding", SLIDINGS)
def test_taps_by_a_loop(sliding):
    np.testing.assert_array_equal(tap_sources(sliding, 10), naive_taps(sliding, 10))


@pytest.mark.parametrize("sliding", SLIDINGS)
def test_two_windows_by_a_loop(sliding):
    reach = slide(slide(axis_reach(0, 12), Sliding(10, size=3)), sliding)
    seen = [[entry + tap for entry in row if entry >= 0 for tap in range(3)] for row in naive_taps(sliding, 10)]
    bounds = [(min(places), max(places)) for places in seen if places]
    is_seeing = reach.high >= reach.low
    np.testing.assert_array_equal(np.stack([reach.low, reach.high], 1)[is_seeing], bounds)


def test_what_sees_nothing_has_no_size():
    assert slide(axis_reach(0, 4), Sliding(2, padding=10)).size == 0


def test_statistics_do_not_widen_what_is_local_but_mixtures_do():
    local, everything = axis_reach(1, 6), whole(axis_reach(1, 6))
    assert join([local, everything._replace(is_mixed=False)]).size == 1
    assert join([everything, local]).size == 6
    assert join([everything, local]).axis == 1


def test_reaches_along_two_axes_see_everything():
    assert join([axis_reach(0, 6), axis_reach(1, 6)])[0] == 0
    assert join([axis_reach(0, 6), axis_reach(1, 6)]).size == 6


def test_picking_every_other_position():
    reach = pick(axis_reach(0, 9), slice(1, 9, 3))
    assert (reach.low.tolist(), reach.stride) == ([1, 4, 7], 3)


@pytest.mark.parametrize(
    ("axis", "before", "after", "expected"),
    [
        (1, (2, 6, 4), (2, 24), (1, np.repeat(range(6), 4), np.repeat(range(6), 4))),
        (1, (2, 6), (2, 3, 2), (1, [0, 2, 4], [1, 3, 5])),
        (2, (2, 6, 4), (2, 24), (1, np.tile(range(4), 6), np.tile(range(4), 6))),
        (0, (2, 6, 4), (2, 24), (0, [0, 1], [0, 1])),
    ],
)
def test_reshape(axis, before, after, expected):
    reach = reshape(axis_reach(axis, before[axis]), before, after)
    assert (reach.axis, reach.low.tolist(), reach.high.tolist()) == (expected[0], list(expected[1]), list(expected[2]))


def test_a_reach_along_no_axis_stays_so():
    reach = reshape(Reach(None, np.zeros(1, int), np.ones(1, int), 0.0), (2, 6), (12,))
    assert (reach.axis, reach.size) == (None, 2)
