"""The table of a benchmark: on the terminal, in markdown, and as JSON with the machine that it was measured on."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rich.console import Console
from rich.table import Table

from cnnprobe.reporting.jsonfile import write_atomically
from cnnprobe.reporting.page import Grid, grid_markdown

R = TypeVar("R", bound=NamedTuple)


class Figures(NamedTuple):
    """What a benchmark found."""

    grid: Grid  # as people read it
    rows: Sequence[Mapping[str, Any]]  # as programs read it
    machine: Mapping[str, Any]


def make_figures(
    header: tuple[str, ...], cells: Callable[[R], tuple[str, ...]], rows: Sequence[R], machine: Mapping[str, Any]
) -> Figures:
    """The rows of a benchmark, each of which `cells` writes out under the header."""
    return Figures(Grid(header, tuple(map(cells, rows))), [row._asdict() for row in rows], machine)


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
