"""Image folders: one folder per class, or one per part with a folder per class in it."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from cnnprobe.checks import check_integer
from cnnprobe.data.sampling import split, to_dataset
from cnnprobe.texts import printable
from cnnprobe.types import Dataset

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_TRAIN_NAMES = ("train", "training")
_VALID_NAMES = ("valid", "validation", "val", "test", "testing")  # the first one there is taken
_MAX_PIXELS = 64_000_000  # more in one image is a mistake or an attack: a small file that fills the memory


class SkippedFile(NamedTuple):
    """An image that could not be used."""

    path: Path
    reason: str


class FolderImages(NamedTuple):
    """What an image folder holds."""

    train: Dataset
    valid: Dataset | None  # None: there is no such folder, and none was split off
    class_names: tuple[str, ...]  # by label
    skipped: tuple[SkippedFile, ...]


class _Labelled(NamedTuple):
    """One image file."""

    path: Path
    label: int


def image_folder(
    root: str | PathLike[str],
    *,
    size: tuple[int, int] | int | None = None,
    channels: int | None = None,
    valid_share: float = 0.2,
    seed: int = 0,
    raw: bool = False,
) -> FolderImages:
    """Images of `root/class/`, or of `root/train/class/` and `root/valid/class/` (or `val`, `test`), in memory.

    Examples stand in the order of class and file names; labels are int32. Images are float32 in [0, 1]; with `raw`
    uint8 in 0..255, a quarter of the memory. A file that cannot be read is left out, named in `skipped` and counted in
    a warning. Files whose names are not those of images are not looked at.

    Args:
      root: the folder.
      size: height and width that all images are resized to, or one number for both; None: those of the first image.
      channels: 1 for gray, 3 for colour; None: those of the first image.
      valid_share: share of the images that is split off at random for validation where no folder does; 0: none.
      seed: of that split.
      raw: whether to leave the pixels as bytes.

    Raises:
      ValueError: the folder is missing, has fewer than two classes or no readable image, or an argument is out of
        range.
      ImportError: pillow is not installed.
    """
    require_pillow()
    folder = _checked_folder(root)
    parts = _part_folders(folder)
    class_names = _class_names(folder, parts)
    listed = [_labelled_files(part, class_names) for part in parts]
    with warnings.catch_warnings():  # here, since it is not safe in the threads that read
        warnings.simplefilter("ignore")  # of pillow, about what is refused below or does no harm
        shape = _common_shape(folder, [file.path for files in listed for file in files], size, channels)
        read = [_read_all(files, shape, raw) for files in listed]
    skipped = tuple(file for _, broken in read for file in broken)
    _warn_of(skipped, sum(map(len, listed)))
    train, valid = read[0][0], read[1][0] if len(read) > 1 else None
    if valid is None and valid_share:
        train, valid = map(to_dataset, split(train, valid_share, seed=seed))
    return FolderImages(train, valid, tuple(map(printable, class_names)), skipped)


# --- which files -------------------------------------------------------------------------------------------------


def _checked_folder(root: str | PathLike[str]) -> Path:
    """The path, if it is a folder's."""
    folder = Path(root)
    if not folder.is_dir():
        raise ValueError(
            f"root must be a folder, got {str(root)!r}, which is {'a file' if folder.exists() else 'missing'}."
        )
    return folder


def _subfolders(folder: Path) -> dict[str, Path]:
    """Folders in a folder by name; hidden ones are some program's own."""
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")}


def _part_folders(folder: Path) -> list[Path]:
    """The folder itself, or its folders of the training and the validation part."""
    named = {name.lower(): path for name, path in _subfolders(folder).items()}
    train = [named[name] for name in _TRAIN_NAMES if name in named]
    if not train or not set(named) <= {*_TRAIN_NAMES, *_VALID_NAMES}:
        return [folder]
    return [train[0], *[named[name] for name in _VALID_NAMES if name in named][:1]]


def _image_files(folder: Path) -> list[Path]:
    """Files in a folder that are images by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.name[0] != ".")


def _class_names(folder: Path, parts: Sequence[Path]) -> tuple[str, ...]:
    """Names of all folders with images, in order."""
    names = {name for part in parts for name, path in _subfolders(part).items() if _image_files(path)}
    if len(names) < 2:
        raise ValueError(
            f"root must hold a folder of images for each of two or more classes, got {sorted(names)} in {folder}."
        )
    return tuple(sorted(names))


def _labelled_files(part: Path, class_names: Sequence[str]) -> list[_Labelled]:
    """All image files of one part; a class that it lacks has none."""
    folders = _subfolders(part)
    present = [(label, folders[name]) for label, name in enumerate(class_names) if name in folders]
    return [_Labelled(path, label) for label, folder in present for path in _image_files(folder)]


# --- reading them ------------------------------------------------------------------------------------------------


def require_pillow() -> None:
    """Raises an `ImportError` that says what to install."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise ImportError('Reading image files needs pillow: pip install "cnnprobe[images]"') from error


def _common_shape(
    folder: Path, paths: Sequence[Path], size: tuple[int, int] | int | None, channels: int | None
) -> tuple[int, int, int]:
    """Height, width and channels of all images: those asked for, else those of the first readable one."""
    sides = (size, size) if isinstance(size, int | np.integer) else size
    if sides is not None and len(sides) != 2:
        raise ValueError(f"size must be one number or (height, width), got {size!r}.")
    for side in sides or ():
        check_integer("size", side, 1)
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1, 3 or None, got {channels!r}.")
    first = next((array.shape for path in paths if isinstance(array := _read(path), np.ndarray)), None)
    if first is None:
        raise ValueError(f"root must hold images that can be read, got {len(paths)} broken ones in {folder}.")
    height, width = sides or first[:2]
    return int(height), int(width), channels or first[2]


def _read_all(files: Sequence[_Labelled], shape: tuple[int, int, int], raw: bool) -> tuple[Dataset, list[SkippedFile]]:
    """Images and labels of all files that can be read, and the other files."""
    with ThreadPoolExecutor() as pool:  # pillow decodes outside the interpreter's lock
        arrays = list(pool.map(partial(_read, shape=shape), [file.path for file in files]))
    pairs = list(zip(files, arrays, strict=True))
    good = [(array, file.label) for file, array in pairs if isinstance(array, np.ndarray)]
    broken = [SkippedFile(file.path, array) for file, array in pairs if isinstance(array, str)]
    images = np.empty((len(good), *shape), np.uint8 if raw else np.float32)
    for row, (array, _) in enumerate(good):
        images[row] = array if raw else array / np.float32(255)
    return Dataset(images, np.array([label for _, label in good], np.int32)), broken


def _read(path: Path, shape: tuple[int, int, int] | None = None) -> UInt8[np.ndarray, "height width channels"] | str:
    """One image, resized if a shape is given; or why it cannot be read."""
    from PIL import Image

    if not path.is_file():  # a pipe would never end
        return "it is no regular file"
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MAX_PIXELS:
                return f"{image.width} x {image.height} pixels are more than {_MAX_PIXELS}"
            return fit_pixels(image, shape)
    except Exception as error:  # a broken file makes pillow raise nearly anything, and must not end the reading
        return f"{type(error).__name__}: {error}"


def fit_pixels(image: Any, shape: tuple[int, int, int] | None) -> UInt8[np.ndarray, "height width channels"]:
    """An opened image upright, gray or in colour, and resized."""
    from PIL import Image, ImageOps

    if image.mode.startswith("I;16"):  # pillow would cut off all values above 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    gray = image.mode in ("1", "L", "LA", "La", "I", "F") if shape is None else shape[2] == 1
    upright = ImageOps.exif_transpose(image).convert("L" if gray else "RGB")
    if shape is not None and upright.size != (shape[1], shape[0]):
        upright = upright.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(upright).reshape(upright.height, upright.width, -1)


def _warn_of(skipped: Sequence[SkippedFile], num_files: int) -> None:
    """One warning for all files left out."""
    if skipped:
        shown = printable("; ".join(f"{file.path} ({file.reason})" for file in skipped[:3]))
        rest = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        warnings.warn(f"{len(skipped)} of {num_files} image files cannot be read: {shown}{rest}", stacklevel=3)
