"""A training spread over devices: the state whole on each of them, the rows of every batch dealt out."""

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cnnprobe.types import Batch

T = TypeVar("T")

AXIS = "batch"  # of the mesh


def data_mesh(devices: Sequence[jax.Device] | None) -> Mesh | None:
    """The devices in a row; None for the default device alone.

    Raises:
      ValueError: there is no device, or one stands twice.
    """
    if devices is None:
        return None
    if not len(devices) or len(set(devices)) < len(devices) or not all(isinstance(d, jax.Device) for d in devices):
        raise ValueError(f"devices must be different devices of jax, one or more, got {devices!r}.")
    return Mesh(np.array(devices), AXIS)


def local_mesh(devices: Sequence[jax.Device] | None) -> Mesh | None:
    """The same of devices that this process has to itself.

    Raises:
      ValueError: there is no device, one stands twice, or one belongs to another process.
    """
    mesh = data_mesh(devices)
    if mesh is not None and not all(device.process_index == jax.process_index() for device in mesh.devices):
        raise ValueError(f"devices must belong to this process, got {devices!r}.")
    return mesh


def whole(mesh: Mesh) -> NamedSharding:
    """Every device holds all of an array."""
    return NamedSharding(mesh, PartitionSpec())


def spread_state(state: T, mesh: Mesh | None) -> T:
    """A copy of a state for every device; each process gives the same one."""
    return state if mesh is None else jax.tree.map(lambda leaf: _everywhere(leaf, whole(mesh)), state)


def spread_batch(batch: Batch, mesh: Mesh | None) -> Batch:
    """A batch with its rows dealt out; each process gives the whole batch and keeps the rows of its own devices.

    Raises:
      ValueError: the rows cannot be dealt out evenly.
    """
    if mesh is None:
        return batch
    num = len(batch.images)
    if num % mesh.size:
        raise ValueError(f"batches must have a multiple of {mesh.size} images, one share for each device, got {num}.")
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    images, labels = (_deal(np.asarray(array), sharding) for array in batch)
    return Batch(images, labels)


def share_batch(batch: Batch, mesh: Mesh | None) -> Batch:
    """A batch with its rows dealt out; where they do not come out even, every device gets all of them."""
    if mesh is None or len(batch.images) % mesh.size == 0:
        return spread_batch(batch, mesh)
    return Batch(*(_deal(np.asarray(array), whole(mesh)) for array in batch))


def _everywhere(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
    """One array, or key, on all devices."""
    if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return _deal(np.asarray(leaf), sharding)
    data = _deal(np.asarray(jax.random.key_data(leaf)), sharding)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))


def _deal(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """The part of one array that each device of this process holds."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def local_copy(tree: T, mesh: Mesh | None) -> T:
    """What one device of this process holds of a state that is whole on each."""

    def take(leaf: Any) -> Any:
        """One array."""
        return leaf.addressable_data(0)

    return tree if mesh is None else jax.tree.map(take, tree)
