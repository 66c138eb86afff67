"""The checklist as a table, a bar chart and a file."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnnprobe.doctor.checklist import Line
from cnnprobe.reporting.jsonfile import to_json, write_atomically
from cnnprobe.reporting.plots import INK, SICK, WELL, new_figure, write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BAR = 0.22  # inches of height for each bar


def print_checklist(lines: Sequence[Line], *, console: Console | None = None) -> None:
    """Prints every question with what was measured; on standard output where no console is given."""
    table = Table("question", "measured", title="Checklist", title_justify="left", show_lines=False)
    for line in lines:
        table.add_row(Text(line.question), Text(line.answer))
    (console or Console(highlight=False)).print(table)


def effects_figure(lines: Sequence[Line]) -> "Figure":
    """The effect of each change that was run, in points, the best first, with its spread over seeds."""
    run = sorted((line for line in lines if len(line.before)), key=lambda line: line.effect)
    effects = np.array([100 * line.effect for line in run])
    figure, axes = new_figure(0.8 + BAR * max(len(run), 1))
    spreads = np.nan_to_num([100 * line.spread for line in run])
    colours = [WELL if effect >= 0 else SICK for effect in effects]
    axes.barh(range(len(run)), effects, xerr=spreads, color=colours, ecolor=INK, height=0.7)
    axes.set_yticks(range(len(run)), [line.question.rstrip("?") for line in run], fontsize=8, parse_math=False)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_xlabel("gain, in points")
    return figure


def write_checklist(lines: Sequence[Line], directory: str | os.PathLike[str]) -> Path:
    """Writes `checklist.json` and `checklist.png`, and gives the path of the picture.

    Raises:
      OSError: `directory` cannot be written.
      ImportError: matplotlib is missing.
    """
    content = [line._asdict() | {"effect": line.effect, "spread": line.spread} for line in lines]
    folder = write_atomically(Path(directory) / "checklist.json", json.dumps(to_json(content), indent=1)).parent
    return write_figure(effects_figure(lines), folder / "checklist.png", dpi=150)
