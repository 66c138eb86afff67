"""A log that is read while it is written: only what was added since the last look, whole lines only."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

Record = dict[str, Any]


class Growth(NamedTuple):
    """What a look at a file found."""

    records: tuple[Record, ...]  # of the lines that were added
    is_anew: bool  # the file is another one, or was cut: what was read before counts no more


def follow(path: str | os.PathLike[str]) -> Callable[[], Growth | None]:
    """The function that looks: each call gives what was added since the one before; None while there is no file.

    A line that is still being written waits for its end. A run that goes on from a checkpoint replaces its log, which
    is then read from its beginning. What is no JSON object is left out.
    """
    place, offset, inode = Path(path), 0, -1

    def look() -> Growth | None:
        """One look."""
        nonlocal offset, inode
        try:
            with place.open("rb") as file:
                status = os.fstat(file.fileno())
                is_anew = status.st_ino != inode or status.st_size < offset
                offset, inode = 0 if is_anew else offset, status.st_ino
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            return None
        whole = data[: data.rfind(b"\n") + 1]
        offset += len(whole)
        records = map(_record, whole.splitlines())
        return Growth(tuple(record for record in records if record is not None), is_anew)

    return look


def _record(line: bytes) -> Record | None:
    """A line as an object; None where it is none."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
