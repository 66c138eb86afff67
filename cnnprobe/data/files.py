"""Images and labels from the files that people pass around: npz archives and idx files (the format of MNIST)."""

import gzip
import math
import struct
import zlib
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from cnnprobe.types import Dataset

# In the order of preference; {} is the name of the part.
_PAIRS = (("{}_images", "{}_labels"), ("x_{}", "y_{}"), ("{}_x", "{}_y"))
_PLAIN_PAIRS = (("images", "labels"), ("x", "y"))
_VALID_NAMES = ("valid", "validation", "val", "test")

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MOST_AXES = 32  # of an array


def npz_dataset(path: str | PathLike[str]) -> tuple[Dataset, Dataset | None]:
    """Training and validation images of an npz archive; no validation part gives None.

    Names looked for, in any case: `train_images` and `train_labels`, `x_train` and `y_train`, `images` and `labels`,
    `x` and `y`; for validation the same with `valid`, `validation`, `val` or `test`. Images without a channel axis get
    one. Values are left as they are.

    Raises:
      ValueError: the file is missing, broken or no npz archive, holds Python objects, or has no such names.
    """
    file = _existing(path)
    with _opened_npz(file) as archive:
        names = {name.lower(): name for name in archive.files}
        train = _pair(names, ("train",), (*_PAIRS, *_PLAIN_PAIRS))
        valid = _pair(names, _VALID_NAMES, _PAIRS)
        if train is None:
            raise ValueError(
                f"{file} must hold images and labels, or x_train and y_train, or train_images and train_labels, "
                f"got {sorted(archive.files)}."
            )
        train_set = _dataset_of(file, archive, train)
        return train_set, None if valid is None else _dataset_of(file, archive, valid)


def idx_dataset(images: str | PathLike[str], labels: str | PathLike[str]) -> Dataset:
    """A data set of two idx files, gzipped or not; images without a channel axis get one.

    Raises:
      ValueError: a file is missing or broken, or the two differ in length.
    """
    return _checked(f"{images} and {labels}", read_idx(images), read_idx(labels))


def read_idx(path: str | PathLike[str]) -> Shaped[np.ndarray, "..."]:
    """The array in an idx file, gzipped or not.

    Raises:
      ValueError: the file is missing, cut short, or no idx file.
    """
    file = _existing(path)
    data = file.read_bytes()
    try:
        return _parse_idx(file, gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    except (OSError, EOFError, MemoryError, zlib.error) as error:
        raise ValueError(f"{file} is cut short or broken: {error}") from error


def _parse_idx(file: Path, data: bytes) -> Shaped[np.ndarray, "..."]:
    """Header, then exactly as many values as it announces."""
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES:
        raise ValueError(f"{file} must be an idx file, got the first bytes {data[:4]!r}.")
    start = 4 + 4 * data[3]
    if len(data) < start or data[3] > MOST_AXES:
        raise ValueError(f"{file} is cut short or broken: its header announces {data[3]} axes.")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    dtype = np.dtype(_IDX_TYPES[data[2]])
    num_bytes, num_found = math.prod(shape) * dtype.itemsize, len(data) - start
    if num_found != num_bytes:
        raise ValueError(f"{file} must hold {num_bytes} bytes for the shape {shape} in its header, got {num_found}.")
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _existing(path: str | PathLike[str]) -> Path:
    """The path, if it is a file's."""
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"path must name a file, got {str(path)!r}.")
    return file


def _opened_npz(file: Path) -> np.lib.npyio.NpzFile:
    """The archive, opened without reading its arrays and without trusting its pickles."""
    try:
        archive = np.load(file, allow_pickle=False)
    except Exception as error:  # a broken archive makes zipfile and numpy raise nearly anything
        raise ValueError(f"{file} must be an npz archive: {error}") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"{file} must be an npz archive, got a single array; save it with numpy.savez.")
    return archive


def _pair(names: dict[str, str], parts: tuple[str, ...], patterns: tuple[tuple[str, str], ...]) -> tuple | None:
    """The first two names, of images and of labels, that are both there."""
    for part in parts:
        for images, labels in patterns:
            found = names.get(images.format(part)), names.get(labels.format(part))
            if None not in found:
                return found
    return None


def _dataset_of(file: Path, archive: np.lib.npyio.NpzFile, pair: tuple[str, str]) -> Dataset:
    """Two arrays of the archive as a data set."""
    images, labels = (_array_of(file, archive, name) for name in pair)
    return _checked(f"{pair[0]} and {pair[1]} of {file}", images, labels)


def _array_of(file: Path, archive: np.lib.npyio.NpzFile, name: str) -> Shaped[np.ndarray, "..."]:
    """One array of the archive."""
    try:
        array = archive[name]
    except Exception as error:  # the same
        hint = " Save it as an array of numbers, all of one shape." if "pickle" in str(error) else ""
        raise ValueError(f"{name} of {file} cannot be read: {error}.{hint}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} of {file} must be an array as numpy saves it, got other bytes.")
    return array


def _checked(name: str, images: Shaped[np.ndarray, "..."], labels: Shaped[np.ndarray, "..."]) -> Dataset:
    """A data set with a channel axis, if the two arrays fit each other."""
    if images.ndim not in (3, 4) or not labels.ndim:
        raise ValueError(
            f"{name} must be images [n, height, width, channels] or [n, height, width] and labels [n, ...], "
            f"got shapes {images.shape} and {labels.shape}."
        )
    if len(images) != len(labels):
        raise ValueError(f"{name} must be as many, got {len(images)} images and {len(labels)} labels.")
    return Dataset(images if images.ndim == 4 else images[..., np.newaxis], labels)
