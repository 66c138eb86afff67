"""The numbers of a run as text files that can be read while it runs: JSON lines and CSV.

A line is with the system when its step is written. A run that goes on from a checkpoint cuts off what comes after it,
so each step stands in the file once, as in the log of `fit`.
"""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from cnnprobe.reporting.jsonfile import to_json, write_atomically
from cnnprobe.training.journal import append_bytes
from cnnprobe.types import Writer


def jsonl_writer(path: str | os.PathLike[str]) -> Writer:
    """Writes each call as one line of strict JSON: `{"step": 0, "loss": 2.3, ...}`; NaN as null.

    Its functions raise `OSError` where the file cannot be written, and `ValueError` where it is some other file; the
    message names it.
    """
    path, held = Path(path), list[FileIO]()

    def begin(step: int) -> None:
        """Keeps the whole lines of earlier steps."""
        lines = _lines(path)
        _check_ours(path, not lines or lines[0].startswith('{"step": '))
        _reopen(held, path, [line for line in lines if _json_step(line) < step])

    def write_scalars(step: int, scalars: Mapping[str, Any]) -> None:
        """One line; a file that was not begun begins here."""
        if not held:
            begin(step)
        _append(held[0], json.dumps(to_json(_cells(step, scalars)), allow_nan=False))

    return Writer(os.fspath(path), begin, write_scalars, lambda: close_held(held))


def csv_writer(path: str | os.PathLike[str]) -> Writer:
    """Writes each call as one row under a header; the first column is the step.

    A name that was not there before becomes a new column: the file is replaced as a whole, with empty cells in the rows
    above. NaN is `nan`. Its functions raise `OSError` where the file cannot be written and `ValueError` where it is
    another file; the message names it.
    """
    path, held, columns = Path(path), list[FileIO](), list[str]()

    def begin(step: int) -> None:
        """Keeps the whole rows of earlier steps."""
        rows = _rows(path)
        columns[:] = rows[0] if rows else ["step"]
        _check_ours(path, columns[:1] == ["step"])
        kept = [row for row in rows[1:] if len(row) == len(columns) and _csv_step(row) < step]
        _reopen(held, path, map(_csv_line, [columns, *kept]))

    def widen(names: Sequence[str]) -> None:
        """Adds columns to the file."""
        rows = [row + [""] * len(names) for row in _rows(path)[1:]]
        columns.extend(names)
        _reopen(held, path, map(_csv_line, [columns, *rows]))

    def write_scalars(step: int, scalars: Mapping[str, Any]) -> None:
        """One row; a file that was not begun begins here."""
        if not held:
            begin(step)
        cells = _cells(step, scalars)
        if new := [name for name in cells if name not in columns]:
            widen(new)
        _append(held[0], _csv_line([cells.get(name, "") for name in columns]))

    return Writer(os.fspath(path), begin, write_scalars, lambda: close_held(held))


def _cells(step: int, scalars: Mapping[str, Any]) -> dict[str, float]:
    """A line by name, the step first; a line break within a name would end the line early."""
    numbers = {" ".join(str(name).splitlines()): float(value) for name, value in scalars.items() if name != "step"}
    return {"step": int(step), **numbers}


def _check_ours(path: Path, is_ours: bool) -> None:
    """Raises `ValueError` for a file that would be spoilt."""
    if not is_ours:
        raise ValueError(f"path must name no file yet or one of this writer's own, got {path}.")


def _reopen(held: list[FileIO], path: Path, lines: Any) -> None:
    """Replaces the file in one go and opens it for more."""
    close_held(held)
    write_atomically(path, "".join(f"{line}\n" for line in lines))
    held.append(_open_end(path))


def _open_end(path: Path) -> FileIO:
    """The file, to add to it, without a buffer."""
    return path.open("ab", buffering=0)


def _append(file: FileIO, line: str) -> None:
    """Adds one line."""
    append_bytes(file, f"{line}\n".encode())


def close_held(held: list[FileIO]) -> None:
    """Closes the file, if it is open."""
    while held:
        held.pop().close()


def _lines(path: Path) -> list[str]:
    """The lines of a file without their ends; one that was cut off is left out. No file: no lines."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return text.split("\n")[:-1]


def _json_step(line: str) -> float:
    """The step of a line; infinite, so that it is not kept, where it is none of ours."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _rows(path: Path) -> list[list[str]]:
    """The rows of a file; no file: no rows."""
    return list(csv.reader(_lines(path)))


def _csv_step(row: Sequence[str]) -> float:
    """The step of a row; infinite where it is none of ours."""
    try:
        return float(row[0])
    except (ValueError, IndexError):
        return float("inf")


def _csv_line(cells: Sequence[Any]) -> str:
    """A row as text, without its end."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()
