"""Rows of a long experiment, a line of JSON each: what was measured survives a kill, and several processes may add."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; what a killed process left of one is left out. No file: no rows."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [row for row in map(_row, lines) if row is not None]


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Adds a row on a line of its own, whatever a killed process has left before it."""
    line = json.dumps(row).encode() + b"\n"
    with path.open("ab+") as file, _alone(file):
        file.write(line if _ends_with_newline(file) else b"\n" + line)
        file.flush()


def _row(line: bytes) -> dict[str, Any] | None:
    """One line; None where it is not a whole row."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _ends_with_newline(file: BinaryIO) -> bool:
    """Whether the next line would begin on its own; an empty file does so, too."""
    if not file.seek(0, 2):
        return True
    file.seek(-1, 2)
    return file.read(1) == b"\n"


@contextmanager
def _alone(file: BinaryIO) -> Iterator[None]:
    """Waits until no other process adds a row; the system takes the lock back when the file is closed."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    fcntl.flock(file, fcntl.LOCK_EX)
    yield
