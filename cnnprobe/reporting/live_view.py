"""A run that is still training, as it is shown in the terminal, and as lines of plain text for a pipe."""

import math
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cnnprobe.doctor.bands import healthy_band
from cnnprobe.reporting.formats import capitalised, is_healthy, number_text, range_text
from cnnprobe.reporting.live import Alarm, Live, Series, known_mean
from cnnprobe.types import Reading

BARS = "▁▂▃▄▅▆▇█"
WORDS = {"loss": "loss", "accuracy": "accuracy", "spread": "prediction spread"}
SIZE = "log10 of update over parameter"  # too small is as bad as too large
HELD = ("collapse index", "largest loss ratio", "last zero gradient share", SIZE)  # the others are never too small
WIDEST = 60  # columns of a curve
LONGEST_NAME = 32  # columns of what it is called
VALUE = 9  # columns of a number
AROUND = 14  # lines of the view that are not layers


def sparkline(values: Sequence[float], width: int) -> str:
    """Values as bars from the lowest to the highest of them; a gap for NaN, the outermost bars for infinities.

    More values than `width` are averaged; equal ones are half as high.

    >>> sparkline([0, 1, 2, 3, float("nan"), 7], 20), sparkline([5, 5], 20), sparkline([], 20)
    ('▁▂▃▄ █', '▄▄', '')
    """
    shown = [known_mean(values[start:stop]) for start, stop in _buckets(len(values), width)]
    finite = [value for value in shown if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    return "".join(_bar(value, low, high) for value in shown)


def view(live: Live, title: str, *, reading: str, layer: str | None = None, width: int = 80, height: int = 40) -> Group:
    """The curves, the reading of each layer, what the doctor holds against healthy runs, and the alarms.

    Args:
      live: the run.
      title: what it is called.
      reading: what `live.layers` holds.
      layer: shows the layers whose name holds this text; None: all.
      width: columns.
      height: lines; layers that do not fit are counted.
    """
    names = [name for name in live.layers if layer is None or layer in name]
    room = max(height - AROUND - 3 * len(live.alarms), 4)
    parts: list[RenderableType] = [Text(_headline(live, title), style="bold"), _curves(live, width)]
    if names:
        parts += [
            Text(f"\n{reading}, layer by layer", style="bold"),
            _table([(name, live.layers[name], "") for name in names[:room]], width),
        ]
    if len(names) > room:
        parts.append(Text(f"and {len(names) - room} more; --layer=TEXT picks some", style="dim"))
    return Group(*parts, *_doctor(live))


def status_line(live: Live, title: str) -> str:
    """The run in one line of plain text."""
    words = [_headline(live, title)]
    words += [f"{WORDS[name]} {number_text(series.last)}" for name, series in live.curves.items() if _is_known(series)]
    open_alarms = [alarm.finding.cause for alarm in live.alarms if alarm.until is None]
    return "  ".join([*words, f"alarms {', '.join(open_alarms) or 'none'}"])


def alarm_lines(before: Sequence[Alarm], after: Sequence[Alarm]) -> Iterator[str]:
    """What to say of alarms that came and went between two looks."""
    known = {(alarm.finding.cause, alarm.since): alarm for alarm in before}
    for alarm in after:
        old = known.get((alarm.finding.cause, alarm.since))
        if old is None:
            yield f"step {alarm.since}: ALARM {alarm.finding.cause}: {alarm.finding.evidence.sentence}"
        if alarm.until is not None and (old is None or old.until is None):
            yield f"step {alarm.until}: {alarm.finding.cause} is read no more"


def _headline(live: Live, title: str) -> str:
    """Which run, and how far it is."""
    epoch = f"epoch {live.epoch['epoch'] + 1} done, " if live.epoch else ""
    return f"{title}  {epoch}{live.num_steps} steps"


def _curves(live: Live, width: int) -> Table:
    """Loss, accuracy and spread of the predictions, from the first step to now."""
    known = {name: series for name, series in live.curves.items() if _is_known(series)}
    return _table([(WORDS[name], series, _beside(live, name)) for name, series in known.items()], width)


def _beside(live: Live, name: str) -> str:
    """The score of the last epoch on the validation images."""
    value = live.epoch.get("valid", {}).get(name)
    return "" if value is None else f"validation {number_text(float(value))}"


def _table(rows: Sequence[tuple[str, Series, str]], width: int) -> Table:
    """Name, curve, value and note of each row; the curves get what columns are left."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, max_width=LONGEST_NAME, overflow="ellipsis")
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True, style="dim")
    taken = min(max((len(name) for name, _, _ in rows), default=0), LONGEST_NAME)
    taken += max((len(note) for _, _, note in rows), default=0) + VALUE + 8  # and the gaps
    columns = min(max(width - taken, 8), WIDEST)
    for name, series, note in rows:
        table.add_row(Text(name), sparkline(series.points, columns), _value(series.last), Text(note))
    return table


def _value(value: float) -> Text:
    """A number; one that is none stands out."""
    return Text(number_text(value), style="bold" if math.isfinite(value) else "bold red")


def _is_known(series: Series) -> bool:
    """Whether a curve was recorded, and not only NaN in its place."""
    return any(not math.isnan(value) for value in (*series.points, series.last))


def _doctor(live: Live) -> Iterator[RenderableType]:
    """What the doctor holds against healthy runs, and the alarms."""
    if live.diagnosis is None:
        yield Text("\nThe doctor has not looked yet: healthy networks are as blind in their first steps.", style="dim")
        return
    facts = live.diagnosis.facts
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("reading", "measured", "healthy", ""):
        table.add_column(title, no_wrap=title != "reading", overflow="fold")
    for name in (name for name in HELD if name in facts):
        low, high = healthy_band(name)
        each = Reading(name, facts[name], (low if name == SIZE else None, high))
        mark = Text("" if is_healthy(each) else "outside", style="bold")
        table.add_row(each.name, number_text(each.value), range_text(each.healthy), mark)
    yield Text()
    yield table
    if not live.alarms:
        yield Text(f"\nno alarms up to step {live.looked_at}", style="green")
    for alarm in live.alarms:
        yield _alarm(alarm)


def _alarm(alarm: Alarm) -> Text:
    """One alarm: whether it is still read, since when, and why."""
    if alarm.until is not None:
        return Text(f"\n{alarm.finding.cause}: read from step {alarm.since} to {alarm.until}, and no more", style="dim")
    head = (f" ALARM since step {alarm.since} ", "bold white on red")
    return Text.assemble("\n", head, f" {capitalised(alarm.finding.title)}. {alarm.finding.evidence.sentence}")


def _buckets(num: int, width: int) -> list[tuple[int, int]]:
    """Where to cut `num` values into at most `width` runs of about one length."""
    count = min(num, width)
    return [(index * num // count, (index + 1) * num // count) for index in range(count)]


def _bar(value: float, low: float, high: float) -> str:
    """One bar."""
    if math.isnan(value):
        return " "
    if math.isinf(value):
        return BARS[-1] if value > 0 else BARS[0]
    if low == high:
        return BARS[len(BARS) // 2 - 1]
    return BARS[min(int((value - low) / (high - low) * len(BARS)), len(BARS) - 1)]
