"""The state of a run on the disk: arrays by name, and what comes next."""

import warnings
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cnnprobe.training.step import TrainState
from cnnprobe.trees import leaf_name


class Position(NamedTuple):
    """What a run does next."""

    epoch: int
    batch: int  # of the epoch


def checkpoint_manager(folder: Path, num_kept: int) -> Any:
    """The keeper of the newest checkpoints."""
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(max_to_keep=num_kept, enable_async_checkpointing=False)
    return ocp.CheckpointManager(folder, item_handlers=ocp.StandardCheckpointHandler(), options=options)


def save_checkpoint(manager: Any, state: TrainState, position: Position) -> None:
    """Writes the arrays and the position, whole or not at all, once for each step."""
    import orbax.checkpoint as ocp

    if int(state.step) != manager.latest_step():
        tree = {**_named_arrays(state), "position": np.array(position)}
        manager.save(int(state.step), args=ocp.args.StandardSave(tree))


def save_best(folder: Path, state: TrainState, position: Position) -> None:
    """Writes the checkpoint of the best epoch so far."""
    with closing(checkpoint_manager(folder, 1)) as manager:
        save_checkpoint(manager, state, position)


def load_best(folder: Path, step: int, like: TrainState) -> TrainState | None:
    """The checkpoint of the best epoch; a warning and None if it is not there or broken."""
    try:
        with closing(checkpoint_manager(folder, 1)) as manager:
            return _read(manager, step, like)[0]
    except Exception as error:  # whatever a damaged file makes orbax raise must not lose the training
        message = f"the parameters of the best epoch cannot be read from {folder}, those of the last are returned"
        warnings.warn(f"{message}: {error!r:.200}", stacklevel=2)
        return None


def restored(manager: Any, fresh: TrainState, folder: Path) -> tuple[TrainState, Position]:
    """The newest checkpoint that can be read in the place of `fresh`; `fresh` itself where there is none.

    Raises:
      ValueError: it is one of another problem, or there are some and none can be read.
    """
    broken: dict[int, Exception] = {}
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            stored = _stored_shapes(manager, step)
            found = _read(manager, step, fresh) if stored == _shapes(fresh) else None
        except Exception as error:  # a damaged file makes orbax raise nearly anything
            broken[step] = error
            continue
        if found is None:
            raise ValueError(_mismatch(folder, stored, _shapes(fresh)))
        for number, why in broken.items():  # else the steps that come anew could not be written there
            warnings.warn(
                f"the checkpoint of step {number} in {folder} cannot be read and is removed, the run goes on from step"
                f" {step}: {why!r:.200}",
                stacklevel=2,
            )
            manager.delete(number)
        return found
    if broken:
        newest = max(broken)
        raise ValueError(
            f"directory must hold a checkpoint that can be read, got {folder}, where none of {len(broken)} can"
            f" (step {newest}: {broken[newest]!r:.200}); begin anew in an empty one."
        )
    return fresh, Position(0, 0)


def _stored_shapes(manager: Any, step: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of a checkpoint by name."""
    tree = manager.item_metadata(step).tree
    return {name: tuple(each.shape) for name, each in tree.items() if name != "position"}


def _shapes(state: TrainState) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of a state by the names that they are stored under."""
    return {name: array.shape for name, array in _named_arrays(state).items()}


def _mismatch(folder: Path, stored: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> str:
    """What is wrong with a run of another problem."""
    name = min(name for name in stored | expected if stored.get(name) != expected.get(name))
    return (
        f"directory must hold a run of the same problem, got {folder}, where {name} has shape {stored.get(name)} "
        f"and not {expected.get(name)}."
    )


def _read(manager: Any, step: int, fresh: TrainState) -> tuple[TrainState, Position]:
    """One checkpoint, with its arrays laid out as those of `fresh` are."""
    import orbax.checkpoint as ocp

    arrays = _named_arrays(fresh)
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
