"""Readings as words and as places on a line: how the terminal and the page both show a number."""

import math
from typing import NamedTuple

import numpy as np

from cnnprobe.types import Reading, Trial


class Strip(NamedTuple):
    """A reading and its healthy band as places on a line from 0 (left) to 1 (right)."""

    low: float  # left end of the healthy band
    high: float  # right end
    dot: float | None  # where the reading lies; None: it is not a number


def number_text(value: float) -> str:
    """A number in three significant digits, short enough for a table.

    >>> [number_text(x) for x in (0.0, 72.123, 50186, 3.2e-9, float("nan"), float("-inf"))]
    ['0', '72.1', '50186', '3.2e-09', 'NaN', '-inf']
    """
    if math.isnan(value):
        return "NaN"
    if math.isfinite(value) and 999.5 <= abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.3g}"


def range_text(healthy: tuple[float | None, float | None]) -> str:
    """A healthy range in words; a dash where none is known.

    >>> [range_text(r) for r in ((0.05, 5.0), (None, 1.2), (0.1, None), (1.0, 1.0), (None, None))]
    ['0.05 to 5', 'at most 1.2', 'at least 0.1', '1', '-']
    """
    low, high = healthy
    if low is None:
        return "-" if high is None else f"at most {number_text(high)}"
    if high is None:
        return f"at least {number_text(low)}"
    return number_text(low) if low == high else f"{number_text(low)} to {number_text(high)}"


def is_healthy(reading: Reading) -> bool:
    """Whether the value lies in the healthy range; NaN lies in none."""
    low, high = reading.healthy
    above = low is None or reading.value >= low
    below = high is None or reading.value <= high
    return above and below and not math.isnan(reading.value)


def place_on_strip(reading: Reading) -> Strip:
    """Where to draw a reading beside its healthy band.

    The line is an inverse hyperbolic sine of the smallest magnitude in play: linear near zero, logarithmic far from
    it, so that 72 beside a band of 0.05 to 5 and 0 beside one of 1e-6 to 1 can both be seen. An open end of the band
    reaches the end of the line, and so does an infinite reading.
    """
    anchors = [x for x in (*reading.healthy, reading.value) if x is not None and math.isfinite(x)]
    sizes = [abs(x) for x in anchors if x] or [1.0]
    scale = max(min(sizes), 1e-30 * max(sizes))  # thirty decades at most, so that no quotient overflows
    places = [math.asinh(x / scale) for x in anchors] or [0.0]
    margin = 0.15 * (max(places) - min(places)) or 1.0
    start, end = min(places) - margin, max(places) + margin

    def place(x: float) -> float:
        """The place of one number on the strip."""
        if math.isinf(x):
            return float(x > 0)
        return (math.asinh(x / scale) - start) / (end - start)

    low, high = reading.healthy
    return Strip(
        low=0.0 if low is None else place(low),
        high=1.0 if high is None else place(high),
        dot=None if math.isnan(reading.value) else place(reading.value),
    )


def percent_text(share: float) -> str:
    """A fraction in whole percent.

    >>> percent_text(0.797), percent_text(float("nan"))
    ('80 %', 'NaN')
    """
    return f"{100 * share:.0f} %" if math.isfinite(share) else number_text(share)


def gain_text(trial: Trial) -> str:
    """The measured gain of a remedy with its spread: `+69 ± 3 points`, or `no number` where a run gave none."""
    if not math.isfinite(trial.gain):
        return "no number"
    spread = f" ± {100 * trial.spread:.0f}" if math.isfinite(trial.spread) else ""
    return f"{100 * trial.gain:+.0f}{spread} points"


def trial_text(trial: Trial) -> str:
    """What was measured, from what to what, and how: `accuracy, from 11 % to 80 % (3 seeds of 150 steps)`."""
    seeds = f"{len(trial.control)} seed{'' if len(trial.control) == 1 else 's'}"
    before, after = (percent_text(float(np.mean(shares))) for shares in (trial.control, trial.remedied))
    return f"{trial.metric}, from {before} to {after} ({seeds} of {trial.num_steps} steps)"


def capitalised(text: str) -> str:
    """Text as the beginning of a line; only its first letter changes.

    >>> capitalised("the CNN is sick"), capitalised("")
    ('The CNN is sick', '')
    """
    return text[:1].upper() + text[1:]


def fact_text(value: object) -> str:
    """A fact of any kind in one line: long lists keep their first eight entries and say how many there are."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | float | np.number):
        return number_text(float(value))
    if isinstance(value, list | tuple | np.ndarray):
        shown = ", ".join(fact_text(item) for item in list(value)[:8])
        return shown if len(value) <= 8 else f"{shown}, ... ({len(value)} in all)"
    return str(value)
