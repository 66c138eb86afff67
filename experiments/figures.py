"""The table of a benchmark: on the terminal, in markdown, and as JSON with the machine that it was measured on."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from cnnprobe.reporting.jsonfile import write_atomically
from cnnprobe.reporting.page import Grid, grid_markdown


class Figures(NamedTuple):
    """What a benchmark found."""

    grid: Grid  # as people read it
    rows: Sequence[Mapping[str, Any]]  # as programs read it
    machine: Mapping[str, Any]


def print_figures(figures: Figures) -> None:
    """Prints the table."""
    table = Table(*figures.grid.header)
    for cells in figures.grid.rows:
        table.add_row(*cells)
    Console().print(table)


def write_figures(figures: Figures, directory: str | Path, name: str) -> Path:
    """Writes `name.json` and `name.md` into a folder, which is made if need be, and gives the folder."""
    folder = Path(directory)
    content = {"machine": figures.machine, "rows": list(figures.rows)}
    write_atomically(folder / f"{name}.json", json.dumps(content, indent=1) + "\n")
    write_atomically(folder / f"{name}.md", grid_markdown(figures.grid) + "\n")
    return folder
