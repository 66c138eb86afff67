"""What a run leaves on the disk: one line of readings for each step, and checkpoints to go on from.

The checkpoint is what counts: lines of steps that come after it are cut off when the run goes on, and the same steps
write them anew. So each step stands in the log once, whenever a run was stopped.
"""

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax
import numpy as np
from jax.experimental import multihost_utils

from cnnprobe.training.locks import hold_folder
from cnnprobe.training.step import TrainState
from cnnprobe.trees import leaf_name

READINGS_FILE = "readings.jsonl"
CHECKPOINT_FOLDER = "checkpoints"
NUM_KEPT = 3  # checkpoints, the newest ones

Record = dict[str, Any]  # one line of the log


class Position(NamedTuple):
    """What a run does next."""

    epoch: int
    batch: int  # of the epoch


class Journal(NamedTuple):
    """A run as the disk knows it, and how to add to it."""

    state: TrainState
    position: Position
    records: list[Record]  # of the steps and epochs before `position`
    append: Callable[[Record], None]  # writes a line at once
    save: Callable[[TrainState, Position], None]  # writes a checkpoint whole or not at all


@contextmanager
def open_journal(
    directory: str | os.PathLike | None, state: TrainState, *, resume: bool, header: Record
) -> Iterator[Journal]:
    """The run in `directory` as it was left, or a new one that begins with `state`; None: a run that leaves nothing.

    Of several processes, which share the directory, the first one writes the log.

    Raises:
      ValueError: `directory` holds a run that is not to be resumed, one with other arrays than `state`, or one that is
        still going.
    """
    if directory is None:
        yield Journal(state, Position(0, 0), [], _nothing, _nothing)
        return
    folder = Path(directory).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / READINGS_FILE
    if not resume and path.exists():
        raise ValueError(f"directory must hold no run yet where resume is False, got {folder}.")
    multihost_utils.sync_global_devices(READINGS_FILE)  # nobody writes before all have looked
    is_writer = jax.process_index() == 0
    lock = hold_folder(folder) if is_writer else None
    manager = _checkpoint_manager(folder / CHECKPOINT_FOLDER)
    try:
        state, position = _restored(manager, state, folder)
        records = [record for record in read_log(path) if _is_before(record, int(state.step), position)]
        if is_writer:
            _rewrite(path, [{"kind": "run", **header}, *records])
        with (path if is_writer else Path(os.devnull)).open("a", encoding="utf-8") as file:
            yield Journal(state, position, records, lambda record: _append(file, record), _saver(manager))
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


def _append(file: TextIO, record: Record) -> None:
    """Writes one line and hands it to the system."""
    file.write(json.dumps(to_json(record), allow_nan=False) + "\n")
    file.flush()


def _rewrite(path: Path, records: list[Record]) -> None:
    """Replaces the log in one go."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for record in records:
            _append(file, record)
    temporary.replace(path)


def _is_before(record: Record, num_steps: int, position: Position) -> bool:
    """Whether the checkpoint knows of what the record tells."""
    if record["kind"] == "step":
        return record["step"] < num_steps
    return record["kind"] == "epoch" and record["epoch"] < position.epoch


def _checkpoint_manager(folder: Path) -> Any:
    """The keeper of the newest checkpoints."""
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(max_to_keep=NUM_KEPT, enable_async_checkpointing=False)
    return ocp.CheckpointManager(folder, item_handlers=ocp.StandardCheckpointHandler(), options=options)


def _saver(manager: Any) -> Callable[[TrainState, Position], None]:
    """The function that writes a checkpoint of a state, once for each step."""
    import orbax.checkpoint as ocp

    def save(state: TrainState, position: Position) -> None:
        """Writes the arrays and the position."""
        if int(state.step) != manager.latest_step():
            tree = {**_named_arrays(state), "position": np.array(position)}
            manager.save(int(state.step), args=ocp.args.StandardSave(tree))

    return save


def _restored(manager: Any, fresh: TrainState, folder: Path) -> tuple[TrainState, Position]:
    """The newest checkpoint in the place of `fresh`; `fresh` itself where there is none."""
    import orbax.checkpoint as ocp

    step = manager.latest_step()
    if step is None:
        return fresh, Position(0, 0)
    arrays = _named_arrays(fresh)
    stored = {name: tuple(each.shape) for name, each in manager.item_metadata(step).tree.items() if name != "position"}
    expected = {name: array.shape for name, array in arrays.items()}
    if stored != expected:
        name = min(name for name in stored | expected if stored.get(name) != expected.get(name))
        raise ValueError(
            f"directory must hold a run of the same problem, got {folder}, where {name} has shape {stored.get(name)} "
            f"and not {expected.get(name)}."
        )
    target = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for name, x in arrays.items()}
    tree = manager.restore(step, args=ocp.args.StandardRestore(target | {"position": np.zeros(2, np.int64)}))
    epoch, batch = np.asarray(tree.pop("position")).tolist()
    return _with_arrays(fresh, tree), Position(epoch, batch)


def _named_arrays(state: TrainState) -> dict[str, jax.Array]:
    """The arrays of a state by name, keys as their data; an array without entries cannot be stored and is left out."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    # The number keeps apart paths that read alike, such as those of the keys 0 and "0".
    return {f"{i:04d}/{leaf_name(path)}": _key_data(leaf) for i, (path, leaf) in enumerate(leaves) if leaf.size}


def _with_arrays(state: TrainState, arrays: dict[str, jax.Array]) -> TrainState:
    """The state with other arrays, named as `_named_arrays` names them."""
    leaves, structure = jax.tree.flatten(state)
    by_place = {int(name.split("/")[0]): array for name, array in arrays.items()}
    return jax.tree.unflatten(structure, [_like(leaf, by_place.get(i, leaf)) for i, leaf in enumerate(leaves)])


def _like(leaf: jax.Array, new: jax.Array) -> jax.Array:
    """The new array, as a key if the old one is."""
    return jax.random.wrap_key_data(new, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else new


def _is_key(leaf: jax.Array) -> bool:
    """Whether the array is one of `jax.random.key`."""
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_data(leaf: jax.Array) -> jax.Array:
    """The array as numbers."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf
