"""Data sets that need no download, by name."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from cnnprobe.checks import check_one_of
from cnnprobe.data.bundled import ImageSet, fashion_mnist, textures
from cnnprobe.data.cells import CELL_CLASSES, blood_cells


def load(name: str, **options: Any) -> ImageSet:
    """Training images, validation images and class names of a built-in data set: a key of `DATA_SETS`.

    `options` are those of the data set's own function: `num_train`, `num_valid` and `raw` for all of them.

    Raises:
      ValueError: there is no such data set, or it takes no such option.

    >>> load("fashion_mnist", num_train=100).train.images.shape
    (100, 28, 28, 1)
    """
    check_one_of("name", name, DATA_SETS)
    known = inspect.signature(DATA_SETS[name]).parameters
    if unknown := sorted(options.keys() - known.keys()):
        raise ValueError(f"options of {name} must be among {', '.join(known)}, got {', '.join(unknown)}.")
    return DATA_SETS[name](**options)


def blood_cell_set(
    *, num_train: int = 2000, num_valid: int = 500, size: int = 80, seed: int = 0, raw: bool = False
) -> ImageSet:
    """Rendered blood cells (see `blood_cells`), other ones for training than for validation."""
    train = blood_cells(num_train, size=size, seed=2 * seed, raw=raw)
    valid = blood_cells(num_valid, size=size, seed=2 * seed + 1, raw=raw)
    return ImageSet(train, valid, CELL_CLASSES)


DATA_SETS: Mapping[str, Callable[..., ImageSet]] = {
    "blood_cells": blood_cell_set,
    "fashion_mnist": fashion_mnist,
    "textures": textures,
}
