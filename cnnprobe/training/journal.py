"""What a run leaves on the disk: one line of readings for each step, and checkpoints to go on from.

The checkpoint is what counts: lines of steps that come after it are cut off when the run goes on, and the same steps
write them anew. So each step stands in the log once, whenever a run was stopped.
"""

import functools
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from cnnprobe.training.checkpoints import Position, checkpoint_manager, load_best, restored, save_best, save_checkpoint
from cnnprobe.training.locks import hold_folder
from cnnprobe.training.step import TrainState

READINGS_FILE = "readings.jsonl"
CHECKPOINT_FOLDER = "checkpoints"
BEST_FOLDER = "best"  # the checkpoint of the epoch with the lowest validation loss
NUM_KEPT = 3  # checkpoints, the newest ones

Record = dict[str, Any]  # one line of the log


class Journal(NamedTuple):
    """A run as the disk knows it, and how to add to it."""

    state: TrainState
    position: Position
    records: list[Record]  # of the steps and epochs before `position`
    append: Callable[[Record], None]  # writes a line at once
    save: Callable[[TrainState, Position], None]  # writes a checkpoint whole or not at all
    save_best: Callable[[TrainState, Position], None]  # the same in a place of its own, instead of the one before
    # Of so many steps, laid out like another; None: it is lost.
    load_best: Callable[[int, TrainState], TrainState | None]


@contextmanager
def open_journal(
    directory: str | os.PathLike | None, state: TrainState, *, resume: bool, header: Record
) -> Iterator[Journal]:
    """The run in `directory` as it was left, or a new one that begins with `state`; None: a run that leaves nothing.

    Of several processes, which share the directory, the first one writes the log.

    A checkpoint that cannot be read is named in a warning and removed, and the one before it is taken.

    Raises:
      ValueError: `directory` cannot be written, or holds a run that is not to be resumed, one with other arrays than
        `state`, one of which no checkpoint can be read, or one that is still going.
    """
    if directory is None:
        yield Journal(state, Position(0, 0), [], _nothing, _nothing, _nothing, _nothing)
        return
    folder = _writable(directory)
    path = folder / READINGS_FILE
    if not resume and path.exists():
        raise ValueError(f"directory must hold no run yet where resume is False, got {folder}.")
    multihost_utils.sync_global_devices(READINGS_FILE)  # nobody writes before all have looked
    is_writer = jax.process_index() == 0
    lock = hold_folder(folder) if is_writer else None
    manager = checkpoint_manager(folder / CHECKPOINT_FOLDER, NUM_KEPT)
    try:
        state, position = restored(manager, state, folder)
        records = [record for record in read_log(path) if _is_before(record, int(state.step), position)]
        if is_writer:
            _rewrite(path, [{"kind": "run", **header}, *records])
        with (path if is_writer else Path(os.devnull)).open("ab", buffering=0) as file:
            best = folder / BEST_FOLDER
            yield Journal(
                state,
                position,
                records,
                append=functools.partial(_append, file),
                save=functools.partial(save_checkpoint, manager),
                save_best=functools.partial(save_best, best),
                load_best=functools.partial(load_best, best),
            )
    finally:
        manager.close()
        if lock is not None:
            lock.close()


def read_log(path: Path) -> list[Record]:
    """The records of a log; a line that was cut short by the end of a run ends it. No file: no records."""
    records: list[Record] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(record, dict):
            break
        records.append(record)
    return records


def to_json(value: Any) -> Any:
    """Arrays as lists; NaN as null, infinities as "inf" and "-inf", which strict JSON has no numbers for."""
    if isinstance(value, dict):
        return {name: to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return to_json(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def to_number(value: float | str | None) -> float:
    """A number as `to_json` wrote it."""
    return math.nan if value is None else float(value)


def _nothing(*_: Any) -> None:
    """Writes nothing."""


def _writable(directory: str | os.PathLike) -> Path:
    """The folder, made if there is none, with a file written to it for a trial."""
    folder = Path(directory).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ValueError(f"directory must be a folder that can be written, got {folder}: {error}.") from error


def append_bytes(file: FileIO, data: bytes) -> None:
    """Adds data to an unbuffered file: what is written is with the system at once, and nothing waits to fail again.

    Raises:
      OSError: it cannot be written, as on a full disk; the message names the file.
    """
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise OSError(f"{file.name} cannot be written: {error.strerror}.") from error


def _append(file: FileIO, record: Record) -> None:
    """Writes one line of the log."""
    append_bytes(file, json.dumps(to_json(record), allow_nan=False).encode() + b"\n")


def _rewrite(path: Path, records: list[Record]) -> None:
    """Replaces the log in one go."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb", buffering=0) as file:
        for record in records:
            _append(file, record)
    temporary.replace(path)


def _is_before(record: Record, num_steps: int, position: Position) -> bool:
    """Whether the checkpoint knows of what the record tells."""
    if record["kind"] == "step":
        return record["step"] < num_steps
    return record["kind"] == "epoch" and record["epoch"] < position.epoch
