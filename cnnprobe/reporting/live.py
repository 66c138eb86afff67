"""A run that is still training: its curves in a size that does not grow, and alarms as the doctor raises them.

An alarm is a cause that the doctor reads from a record, held against the healthy bands: nothing here has a threshold
of its own. The bands were measured on runs of at most `MAX_STEPS` steps, so the doctor gets the first and the latest
steps, so many of each, and first when a healthy run would have left its beginning behind.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cnnprobe.doctor.recorded import diagnose_records
from cnnprobe.doctor.run import FEWEST_STEPS, MAX_STEPS
from cnnprobe.reporting.follow import Growth, Record
from cnnprobe.training.journal import to_number
from cnnprobe.types import Diagnosis, Finding

MOST_POINTS = 256  # of a curve, from which neighbours are averaged


class Series(NamedTuple):
    """A curve of bounded length."""

    points: tuple[float, ...] = ()  # each the mean of `stride` values
    stride: int = 1
    rest: tuple[float, ...] = ()  # the newest values, too few for a point
    last: float = math.nan


class Alarm(NamedTuple):
    """A cause that was read from the record."""

    finding: Finding
    since: int  # steps of the record when it was first read
    until: int | None = None  # when it was read no more; None: it still is


class Live(NamedTuple):
    """What is known of a run so far."""

    header: Mapping[str, Any] = {}  # of the record; empty where it has none
    num_steps: int = 0
    first: tuple[Record, ...] = ()  # steps, `MAX_STEPS` at most
    latest: tuple[Record, ...] = ()  # the steps after those, as many
    epoch: Mapping[str, Any] = {}  # the last one that ended; empty before
    curves: Mapping[str, Series] = {}  # "loss", "accuracy", "spread": of predictions over classes, in [0, 1]
    layers: Mapping[str, Series] = {}  # the chosen reading of each layer
    diagnosis: Diagnosis | None = None  # what the doctor read last; None: it has not looked yet
    looked_at: int = 0  # steps of the record when it did
    alarms: tuple[Alarm, ...] = ()  # in the order in which they came


def grown(live: Live, growth: Growth, *, reading: str) -> Live:
    """The run with what was added to its record; the doctor looks as often as `num_looks` says."""
    live = Live() if growth.is_anew else live
    for part in _parts(growth.records, live.num_steps):
        before, live = live, _with_part(live, part, reading)
        has_ended = live.epoch is not before.epoch and live.num_steps >= FEWEST_STEPS
        if has_ended or num_looks(live.num_steps) > num_looks(before.num_steps) or _is_broken(live):
            live = examined(live)
    return live


def num_looks(num_steps: int) -> int:
    """How often the doctor has looked after so many steps: at `FEWEST_STEPS`, at each doubling, then steadily.

    >>> [num_looks(steps) for steps in (49, 50, 99, 100, 400, 799, 800, 1200)]
    [0, 1, 1, 2, 4, 4, 5, 6]
    """
    if num_steps < FEWEST_STEPS:
        return 0
    doublings = int(math.log2(min(num_steps, MAX_STEPS) / FEWEST_STEPS))
    return 1 + doublings + max(num_steps - MAX_STEPS, 0) // MAX_STEPS


def examined(live: Live) -> Live:
    """The run with what the doctor reads from its first and latest steps."""
    epochs = (dict(live.epoch),) if live.epoch else ()
    diagnosis = diagnose_records([dict(live.header), *live.first, *live.latest, *epochs])
    alarming = [finding for finding in diagnosis.findings if _is_alarming(live, finding)]
    if any(finding.cause == "batches-not-shuffled" for finding in alarming):
        # Any part of a sorted set looks as if one class outweighed the others.
        alarming = [finding for finding in alarming if finding.cause != "class-imbalance"]
    alarms = raised(live.alarms, alarming, live.num_steps)
    return live._replace(diagnosis=diagnosis, looked_at=live.num_steps, alarms=alarms)


def _is_alarming(live: Live, finding: Finding) -> bool:
    """Whether a finding is the cause of a run that learns nothing, or of one whose loss is no number any more."""
    if finding.cause == "non-finite-loss" and _is_broken(live):
        return True
    # A younger run names one class for everything, healthy or not.
    return finding.severity == "cause" and live.num_steps >= FEWEST_STEPS


def raised(alarms: Sequence[Alarm], findings: Sequence[Finding], num_steps: int) -> tuple[Alarm, ...]:
    """The alarms after one more look: those that are read no more have an end, those that are new begin."""
    found = {finding.cause: finding for finding in findings}
    kept = [
        alarm
        if alarm.until is not None
        else alarm._replace(finding=found.pop(alarm.finding.cause))
        if alarm.finding.cause in found
        else alarm._replace(until=num_steps)
        for alarm in alarms
    ]
    return (*kept, *(Alarm(finding, num_steps) for finding in found.values()))


def extended(series: Series, values: Sequence[float]) -> Series:
    """A curve with more values; where it becomes too long, each two points become one."""
    if not values:
        return series
    points, stride, rest = list(series.points), series.stride, [*series.rest, *values]
    whole = len(rest) // stride * stride
    points += [known_mean(rest[start : start + stride]) for start in range(0, whole, stride)]
    rest = rest[whole:]
    while len(points) > MOST_POINTS:
        if len(points) % 2:
            rest = [points.pop()] * stride + rest
        points = [known_mean(points[index : index + 2]) for index in range(0, len(points), 2)]
        stride *= 2
    return Series(tuple(points), stride, tuple(rest), values[-1])


def spread(counts: Sequence[float]) -> float:
    """Entropy of counts over the most that so many classes allow: 0 for a single class, 1 for all alike."""
    shares = np.asarray(counts, float)
    if len(shares) < 2 or not shares.sum() > 0:
        return math.nan
    shares = shares[shares > 0] / shares.sum()
    return max(0.0, float(-(shares * np.log(shares)).sum() / math.log(len(counts))))


def _parts(records: Sequence[Record], num_steps: int) -> Iterator[list[Record]]:
    """The records up to each place where the doctor may look, so that a long log is read as if it were followed."""
    part: list[Record] = []
    for record in records:
        part.append(record)
        num_steps += _is_step(record)
        if record.get("kind") == "epoch" or (_is_step(record) and num_steps % FEWEST_STEPS == 0):
            yield part
            part = []
    if part:
        yield part


def _is_step(record: Record) -> bool:
    """Whether a line tells of a step."""
    return "loss" in record and record.get("kind", "step") == "step"


def _with_part(live: Live, records: Sequence[Record], reading: str) -> Live:
    """The run with some more lines of its record."""
    headers = [record for record in records if record.get("kind") == "run"]
    header = headers[-1] if headers else live.header
    steps = tuple(filter(_is_step, records))
    epochs = [record for record in records if record.get("kind") == "epoch"]
    room = MAX_STEPS - len(live.first)
    rows = [layer_values(header, step, reading) for step in steps]
    names = dict.fromkeys([*live.layers, *(name for row in rows for name in row)])
    return live._replace(
        header=header,
        num_steps=live.num_steps + len(steps),
        first=live.first + steps[:room],
        latest=(live.latest + steps[room:])[-MAX_STEPS:],
        epoch=epochs[-1] if epochs else live.epoch,
        curves={name: extended(live.curves.get(name, Series()), values) for name, values in _curves(steps).items()},
        layers={
            name: extended(live.layers.get(name, Series()), [row[name] for row in rows if name in row])
            for name in names
        },
    )


def layer_values(header: Mapping[str, Any], step: Record, reading: str) -> dict[str, float]:
    """A reading of every layer, or of every parameter, in one step; none where the step does not hold it."""
    table = step.get("probes", {}).get("layers", [])
    if reading in header.get("layers", ()) and table:
        row = table[header["layers"].index(reading)]
        return {name: to_number(value) for name, value in zip(header["parameters"], row, strict=True)}
    taps: dict[str, dict[str, Any]] = step.get("taps", {})
    return {name: to_number(stats[reading]) for name, stats in taps.items() if stats.get(reading) is not None}


def _curves(steps: Sequence[Record]) -> dict[str, list[float]]:
    """The values of each curve in some steps."""
    return {
        "loss": [to_number(step["loss"]) for step in steps],
        "accuracy": [to_number(step.get("accuracy")) for step in steps],
        "spread": [spread(step.get("prediction_counts", ())) for step in steps],
    }


def _is_broken(live: Live) -> bool:
    """Whether the newest loss is no number: then the doctor looks whenever something is added."""
    return live.num_steps > 0 and not math.isfinite(live.curves["loss"].last)


def known_mean(values: Sequence[float]) -> float:
    """Mean of the values that are numbers; NaN where none is, and of infinities of both signs."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
