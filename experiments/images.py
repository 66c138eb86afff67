"""Images to train on: the built-in sets, a folder, or a file of arrays."""

from typing import TypeAlias

import numpy as np
from jaxtyping import Int

from cnnprobe.data.files import npz_dataset
from cnnprobe.data.folders import image_folder
from cnnprobe.data.named import load
from cnnprobe.data.prepared import prepared_set
from cnnprobe.data.sampling import split, to_dataset
from cnnprobe.probes.labels import class_ids
from cnnprobe.types import Dataset, Labels

ImageSet: TypeAlias = tuple[Dataset, Dataset | None, tuple[str, ...]]  # training, validation, names of the classes

VALID_SHARE = 0.2  # of the images that come without a validation part


# Small enough for a diagnosis on two processor cores.
_OPTIONS: dict[str, dict[str, int]] = {
    "fashion_mnist": {"num_train": 3000},
    "textures": {"num_train": 900, "size": 32},
    "blood_cells": {"num_train": 1200, "size": 48},
}


def built_in_images(name: str, *, num_images: int | None = None, seed: int = 0) -> ImageSet:
    """A set that comes with the package: `num_images` for training, and at most a third as many to validate.

    The seed draws the crops of the textures and the cells; Fashion-MNIST is always the same.
    """
    options = _OPTIONS[name] | ({} if num_images is None else {"num_train": num_images})
    options["num_valid"] = max(1, min(options["num_train"] // 3, 1000))
    return load(name, **options, **({} if name == "fashion_mnist" else {"seed": seed}))


def folder_images(root: str, *, size: int, seed: int = 0) -> ImageSet:
    """The images under `root/class/` or `root/train/class/` and `root/valid/class/`, `size` pixels wide and high."""
    found = image_folder(root, size=size, valid_share=VALID_SHARE, seed=seed)
    return found.train, found.valid, found.class_names


def npz_images(path: str, *, seed: int = 0) -> ImageSet:
    """The arrays of an npz file, with one class for each number from 0 to the highest label.

    Raises:
      ValueError: the file is no such archive, or its labels are neither whole numbers from 0 on nor one-hot.
    """
    train, valid = npz_dataset(path)
    parts = [train, valid] if valid is not None else map(to_dataset, split(train, VALID_SHARE, seed=seed))
    train, valid = (Dataset(part.images, _checked_ids(path, part.labels)) for part in parts)
    num_classes = 1 + max(int(np.max(part.labels, initial=0)) for part in (train, valid))
    return train, valid, tuple(map(str, range(num_classes)))


def _checked_ids(path: str, labels: Labels) -> Int[np.ndarray, " n"]:
    """Labels as class ids."""
    ids = class_ids(labels)
    if ids is None or np.min(ids, initial=0) < 0:
        raise ValueError(f"{path} must hold labels that are whole numbers from 0 on, or one-hot, got {labels[:5]}.")
    return np.asarray(ids)


def named_images(name: str, *, num_images: int | None = None, size: int = 64, seed: int = 0) -> ImageSet:
    """A set that comes with the package, or one that tensorflow-datasets has prepared, brought to `size` pixels.

    Raises:
      ValueError: there is neither; the message lists what there is and says how to prepare it.
    """
    if name in _OPTIONS:
        return built_in_images(name, num_images=num_images, seed=seed)
    return prepared_set(name, size=size, num_train=num_images, seed=seed)
