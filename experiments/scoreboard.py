"""Scores of the diagnosis benchmark: rows of cases in; figures, table and confusion matrix out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from cnnprobe.reporting.jsonfile import write_atomically
from cnnprobe.reporting.plots import write_figure
from experiments.faults import EXPECTED, TWINS

HARM = 0.1  # of accuracy, from every fresh seed, that a fault must cost to be a cause
RESTORED = 0.95  # of the healthy twin's accuracy
NOTHING = "no cause"
SAID = {"noise-limited": ["label-noise"]}  # verdicts that name what is wrong, where no remedy proves it
HEALTHY_TWIN = "adam"  # the healthy variant that changes nothing

Row: TypeAlias = Mapping[str, Any]


def is_held_against(kind: str, variant: str) -> bool:
    """Whether a case's own accuracy is needed: that of every fault, and of what is the twin of one."""
    return kind == "fault" or variant in {HEALTHY_TWIN, *TWINS.values()}


class Judged(NamedTuple):
    """A planted fault with what became of it."""

    row: Row
    expected: str
    healthy: float  # balanced accuracy of the healthy twin after the whole training, mean over seeds
    harm: float  # what the fault costs of it, from the seed where that is least: some twins do not learn from each one


class Scores(NamedTuple):
    """The figures of one benchmark; shares are of the cases counted beside them, NaN where there are none."""

    num_harmful: int  # planted faults that cost at least `HARM`
    detected: float  # share of those with any cause found, or with a verdict that names one
    proved: float  # share of those with any cause found, whatever the verdict says
    first: float  # with the planted cause first
    among_three: float  # with it among the first three
    num_remedied: int  # of those named first, the ones whose finding has a measured remedy
    restored: float  # of those, the share that reaches `RESTORED` of the twin
    num_benign: int  # planted faults that cost less, from some seed at least
    blamed: float  # of those, the share with another cause found than the planted one
    num_healthy: int
    false_alarms: float  # share with a finding of severity "cause", or with a verdict that names one
    unfounded: float  # share with one whose remedy, trained to the end, gains less than `HARM`
    warned: float  # share with a warning
    median_seconds: float
    worst_seconds: float


def _parts(row: Row) -> list[str]:
    """Data set, network, kind and variant."""
    return row["case"].split(", ", 3)


def judge(rows: Sequence[Row]) -> list[Judged]:
    """The planted faults, each beside the accuracy of its healthy twin, both trained to the end."""
    reached = {row["case"]: row["accuracy"] for row in rows}
    return [_judged(row, reached[twin_of(row["case"])]) for row in rows if _parts(row)[2] == "fault"]


def _judged(row: Row, twin: Sequence[float]) -> Judged:
    """One fault, pair by pair of seeds; it has no accuracy of its own where it leaves no held-out images."""
    own = row["accuracy"] or np.zeros(len(twin))
    return Judged(row, EXPECTED[_parts(row)[3]], float(np.mean(twin)), float(np.min(np.subtract(twin, own))))


def twin_of(case: str) -> str:
    """The name of the healthy case that a faulty one is held against."""
    dataset, network, _, fault = case.split(", ", 3)
    return ", ".join((dataset, network, "healthy", TWINS.get(fault, HEALTHY_TWIN)))


def _share(hits: Sequence[bool]) -> float:
    """Fraction that is true; NaN of nothing."""
    return float(np.mean(hits)) if len(hits) else float("nan")


def causes_of(row: Row) -> list[str]:
    """The causes found; where there are none, what the verdict says is wrong."""
    return list(row["causes"]) or SAID.get(row["verdict"], [])


def _findings(row: Row) -> list[str]:
    """The causes, then the warnings, each once."""
    return list(dict.fromkeys([*causes_of(row), *row["warnings"]]))


def _is_unfounded(row: Row) -> bool:
    """Whether a cause was found in a healthy problem, and whole trainings do not bear it out."""
    is_tried = bool(row["causes"]) and row["remedied"] is not None
    is_borne_out = is_tried and np.mean(row["remedied"]) - np.mean(row["accuracy"]) >= HARM
    return bool(causes_of(row)) and not is_borne_out


def _restores(judged: Judged) -> bool:
    """Whether the remedy reaches nearly what the healthy twin did."""
    return bool(np.mean(judged.row["remedied"]) >= RESTORED * judged.healthy)


def score_rows(rows: Sequence[Row]) -> Scores:
    """All figures of a benchmark."""
    faults = judge(rows)
    harmful, benign = ([f for f in faults if (f.harm >= HARM) == kind] for kind in (True, False))
    healthy = [row for row in rows if _parts(row)[2] == "healthy"]
    named = [f for f in harmful if causes_of(f.row)[:1] == [f.expected]]
    remedied = [f for f in named if f.row["causes"] and f.row["remedied"] is not None]
    seconds = [row["seconds"] for row in rows]
    return Scores(
        num_harmful=len(harmful),
        detected=_share([bool(causes_of(f.row)) for f in harmful]),
        proved=_share([bool(f.row["causes"]) for f in harmful]),
        first=_share([f in named for f in harmful]),
        among_three=_share([f.expected in _findings(f.row)[:3] for f in harmful]),
        num_remedied=len(remedied),
        restored=_share([_restores(f) for f in remedied]),
        num_benign=len(benign),
        blamed=_share([bool(set(causes_of(f.row)) - {f.expected}) for f in benign]),
        num_healthy=len(healthy),
        false_alarms=_share([bool(causes_of(row)) for row in healthy]),
        unfounded=_share([_is_unfounded(row) for row in healthy]),
        warned=_share([bool(row["warnings"]) for row in healthy]),
        median_seconds=float(np.median(seconds)),
        worst_seconds=float(np.max(seconds)),
    )


def print_scores(scores: Scores) -> None:
    """Prints the figures as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "value")
    for name, value in scores._asdict().items():
        is_share = isinstance(value, float) and not name.endswith("seconds")
        table.add_row(name.replace("_", " "), f"{value:.1%}" if is_share else f"{value:g}")
    Console().print(table)


def confusion(judged: Sequence[Judged]) -> dict[str, dict[str, int]]:
    """How often each planted cause (row) was answered by each first cause."""
    counts: dict[str, dict[str, int]] = {}
    for item in judged:
        first = next(iter(causes_of(item.row)), NOTHING)
        row = counts.setdefault(item.expected, {})
        row[first] = row.get(first, 0) + 1
    return counts


def write_scores(scores: Scores, rows: Sequence[Row], directory: str) -> Path:
    """Writes `scores.json` and `confusion.png`, and gives the folder."""
    folder = Path(directory)
    counts = confusion([item for item in judge(rows) if item.harm >= HARM])
    content = {"scores": scores._asdict(), "confusion": counts}
    write_atomically(folder / "scores.json", json.dumps(content, indent=1) + "\n")
    if counts:
        draw_confusion(counts, folder / "confusion.png")
    return folder


def draw_confusion(counts: Mapping[str, Mapping[str, int]], path: Path) -> None:
    """The matrix as a picture: planted causes down, named causes across."""
    from matplotlib.figure import Figure

    planted = sorted(counts)
    named = sorted({name for row in counts.values() for name in row} | set(planted))
    values = np.array([[counts[row].get(column, 0) for column in named] for row in planted])
    figure = Figure(figsize=(2.5 + 0.32 * len(named), 2.5 + 0.3 * len(planted)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(values / values.sum(axis=1, keepdims=True), cmap="Blues", vmin=0, vmax=1.4)
    axes.set_xticks(range(len(named)), named, rotation=90)
    axes.set_yticks(range(len(planted)), planted)
    axes.set_xlabel("first cause named")
    axes.set_ylabel("cause planted, where it costs 10 points or more")
    for (row, column), value in np.ndenumerate(values):
        if value:
            axes.text(column, row, str(value), ha="center", va="center", fontsize=8)
    write_figure(figure, path, dpi=120)
