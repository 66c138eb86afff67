"""Reading examples by index, from arrays in memory, arrays on the disk and random-access sources alike.

Only the rows asked for are ever read: a memory-mapped array or a source of any size costs what its batch costs.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Int

from cnnprobe.checks import check_integer
from cnnprobe.types import AnyArray, Batch, Dataset, Source

T = TypeVar("T")


class Subset:
    """Some examples of a data set or source, in an order of their own, read when asked for."""

    def __init__(self, source: Dataset | Source, indices: Int[np.ndarray, " num"]) -> None:
        self.source = source
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        images, labels = take(self.source, [int(self.indices[index])])
        return {"image": images[0], "label": labels[0]}


def num_examples(source: Dataset | Source) -> int:
    """Number of examples.

    Raises:
      ValueError: `source` is neither a `Dataset` nor has a length, or its images and labels differ in number.
    """
    if not isinstance(source, Dataset):
        if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
            raise ValueError(f"source must be a Dataset or have len() and [index], got {type(source).__name__}.")
        return len(source)
    num_images, num_labels = _num_rows("images", source.images), _num_rows("labels", source.labels)
    if num_images != num_labels:
        raise ValueError(f"images and labels must be as many, got {num_images} images and {num_labels} labels.")
    return num_images


def take(
    source: Dataset | Source, indices: Int[AnyArray, " num"] | Sequence[int], *, seconds: float = math.inf
) -> Batch:
    """The examples at `indices`, as numpy arrays in the order asked for; an index may come twice.

    Of a source that is read item by item, those that do not come within `seconds` are left out.

    Raises:
      ValueError: an index is out of range, or an item of a source lacks "image" or "label" or has another shape
        than the items before it.
    """
    rows = _checked_indices(indices, num_examples(source))
    if isinstance(source, Dataset):
        return Batch(_rows(source.images, rows), _rows(source.labels, rows))
    if isinstance(source, Subset):
        return take(source.source, source.indices[rows], seconds=seconds)
    items = list(in_time((_checked_item(source[int(index)], int(index)) for index in rows), seconds))
    read = rows[: len(items)]
    return Batch(_stack(items, read, "image"), _stack(items, read, "label"))


def sample(source: Dataset | Source, num: int, *, seed: int = 0, seconds: float = math.inf) -> Batch:
    """`num` different examples drawn at random over the whole set; all of them, reordered, if it has fewer.

    Of a source that is read item by item, those that do not come within `seconds` are left out.
    """
    return take(source, sampled_rows(num_examples(source), num, seed=seed), seconds=seconds)


def sampled_rows(total: int, num: int, *, seed: int = 0) -> Int[np.ndarray, " rows"]:
    """The rows of `total` that `sample` takes."""
    check_integer("num", num, 1)
    return np.random.default_rng(seed).choice(total, size=min(num, total), replace=False)


def in_time(items: Iterable[T], seconds: float) -> Iterator[T]:
    """The items that come until the time is over; the first one at least."""
    until = time.monotonic() + seconds
    for item in items:
        yield item
        if time.monotonic() > until:
            return


def split(source: Dataset | Source, share: float, *, seed: int = 0) -> tuple[Dataset | Source, Dataset | Source]:
    """Parts the examples at random in two: the larger part first as a rule, then `share` of them, held out.

    Arrays in memory give data sets. A source, or an array on the disk, is not copied: it gives two views.

    Raises:
      ValueError: `share` leaves one of the parts empty.
    """
    total = num_examples(source)
    num_held_out = round(share * total) if 0 < share < 1 else 0
    if not 0 < num_held_out < total:
        raise ValueError(f"share must leave examples in both parts of {total}, got {share!r}.")
    order = np.random.default_rng(seed).permutation(total)
    return _part(source, order[num_held_out:]), _part(source, order[:num_held_out])


def to_dataset(source: Dataset | Source) -> Dataset:
    """All examples as arrays in memory; a `Dataset` is returned as it is."""
    return source if isinstance(source, Dataset) else Dataset(*take(source, np.arange(num_examples(source))))


def _part(source: Dataset | Source, indices: Int[np.ndarray, " num"]) -> Dataset | Source:
    """The examples at `indices`: copied if they are in memory, else a view."""
    in_memory = isinstance(source, Dataset) and not isinstance(source.images, np.memmap)
    return Dataset(*take(source, indices)) if in_memory else Subset(source, indices)


def _num_rows(name: str, x: Any) -> int:
    """Length of the leading axis."""
    if not np.shape(x):
        raise ValueError(f"{name} must be an array with one row per example, got {x!r}.")
    return np.shape(x)[0]


def _checked_indices(indices: Any, total: int) -> Int[np.ndarray, " num"]:
    """The indices as integers within range: jax would clamp the others, numpy would count them from the end."""
    rows = np.asarray(indices)
    if rows.ndim != 1 or (rows.size and not np.issubdtype(rows.dtype, np.integer)):
        raise ValueError(f"indices must be a list of integers, got shape {rows.shape} of {rows.dtype}.")
    if rows.size and (rows.min() < 0 or rows.max() >= total):
        raise ValueError(f"indices must be in 0..{total - 1}, got values from {rows.min()} to {rows.max()}.")
    return rows.astype(np.int64)


def _rows(x: Any, rows: Int[np.ndarray, " num"]) -> np.ndarray:
    """Rows of one array; what is no array yet (a list) is made one."""
    array = x if isinstance(x, np.ndarray | jax.Array) else np.asarray(x)
    return np.asarray(array[rows])


def _checked_item(item: Any, index: int) -> dict[str, np.ndarray]:
    """Image and label of one item, as arrays."""
    if not isinstance(item, Mapping) or not {"image", "label"} <= set(item):
        found = f"the keys {sorted(map(str, item))}" if isinstance(item, Mapping) else f"a {type(item).__name__}"
        raise ValueError(f'Every item of a source must be a mapping with "image" and "label", item {index} is {found}.')
    return {"image": np.asarray(item["image"]), "label": np.asarray(item["label"])}


def _stack(items: list[dict[str, np.ndarray]], rows: Int[np.ndarray, " num"], name: str) -> np.ndarray:
    """One field of the items as one array."""
    if not items:
        return np.zeros((0,), np.float32 if name == "image" else np.int64)
    first = items[0][name].shape
    for index, item in zip(rows, items, strict=True):
        if item[name].shape != first:
            raise ValueError(
                f'Every "{name}" of a source must have one shape, item {rows[0]} has {first}, '
                f"item {index} has {item[name].shape}."
            )
    return np.stack([item[name] for item in items])
