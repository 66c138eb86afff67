"""Real images that come with the package: nothing to download. Licences and origins: `bundled/NOTICE`."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from cnnprobe.checks import check_integer
from cnnprobe.types import Dataset

_FOLDER = Path(__file__).parent / "bundled"

FASHION_CLASSES = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
TEXTURE_CLASSES = ("brick", "grass", "gravel")

_TEXTURE_SIZE = 512
_VALID_COLUMNS = 192  # the rightmost ones; as many as the crop is wide if that is more


class ImageSet(NamedTuple):
    """A data set ready to train on."""

    train: Dataset
    valid: Dataset
    class_names: tuple[str, ...]


def fashion_mnist(*, num_train: int = 3000, num_valid: int = 1000, raw: bool = False) -> ImageSet:
    """Ten kinds of clothes, [n, 28, 28, 1]: a subset of Fashion-MNIST, all classes alike, in a fixed random order.

    Images are float32 in [0, 1]; with `raw` uint8 in 0..255. Labels are int32.

    Raises:
      ValueError: fewer than 1, or more than the 3000 and 1000 images that there are, are asked for.

    References:
      Xiao, Rasul & Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms, 2017.
    """
    with np.load(_FOLDER / "fashion_mnist.npz", allow_pickle=False) as arrays:
        train, valid = (_first_rows(arrays, "train", num_train, raw), _first_rows(arrays, "valid", num_valid, raw))
    return ImageSet(train, valid, FASHION_CLASSES)


def textures(
    *, size: int = 64, num_train: int = 600, num_valid: int = 150, channels: int = 1, seed: int = 0, raw: bool = False
) -> ImageSet:
    """Photographs of brick, grass and gravel, [n, size, size, channels]: random crops, all classes alike.

    Training crops come from the left columns and validation crops from the right ones, so they share no pixel; crops
    of one part do overlap. Images are float32 in [0, 1]; with `raw` uint8 in 0..255. Labels are int32.

    Args:
      size: 8 to 256 pixels.
      num_train: number of training crops.
      num_valid: number of validation crops.
      channels: 1, or 3 for the same gray values in three channels.
      seed: of the places and the order of the crops.
      raw: whether to leave the pixels as bytes.

    Raises:
      ValueError: an argument is out of range.
    """
    check_integer("size", size, 8)
    if size > _TEXTURE_SIZE // 2:
        raise ValueError(f"size must be at most {_TEXTURE_SIZE // 2}, got {size}.")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels!r}.")
    boundary = _TEXTURE_SIZE - max(size, _VALID_COLUMNS)
    with np.load(_FOLDER / "textures.npz", allow_pickle=False) as arrays:
        photographs = np.stack([arrays[name] for name in TEXTURE_CLASSES])
    train_rng, valid_rng = np.random.default_rng(seed).spawn(2)
    train = _crops(photographs[..., :boundary], "num_train", num_train, size, train_rng)
    valid = _crops(photographs[..., boundary:], "num_valid", num_valid, size, valid_rng)
    return ImageSet(_finished(train, channels, raw), _finished(valid, channels, raw), TEXTURE_CLASSES)


def _first_rows(arrays: np.lib.npyio.NpzFile, part: str, num: int, raw: bool) -> Dataset:
    """The first `num` examples of one part."""
    check_integer(f"num_{part}", num, 1)
    images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
    if num > len(images):
        raise ValueError(f"num_{part} must be at most {len(images)}, got {num}.")
    return Dataset(_pixels(images[:num], raw), labels[:num].astype(np.int32))


def _crops(
    photographs: Shaped[np.ndarray, "classes height width"], name: str, num: int, size: int, rng: np.random.Generator
) -> tuple[Shaped[np.ndarray, "num size size"], Int[np.ndarray, " num"]]:
    """`num` square crops at random places, classes in random order and as equal as they can be."""
    check_integer(name, num, 1)
    labels = rng.permutation(np.arange(num, dtype=np.int32) % len(photographs))
    crops = np.lib.stride_tricks.sliding_window_view(photographs, (size, size), axis=(1, 2))
    tops, lefts = rng.integers(crops.shape[1], size=num), rng.integers(crops.shape[2], size=num)
    return crops[labels, tops, lefts], labels


def _finished(
    crops: tuple[Shaped[np.ndarray, "num size size"], Int[np.ndarray, " num"]], channels: int, raw: bool
) -> Dataset:
    """The crops with their channels, as bytes or scaled."""
    images, labels = crops
    return Dataset(np.repeat(_pixels(images, raw)[..., np.newaxis], channels, -1), labels)


def _pixels(images: Shaped[np.ndarray, " n *image"], raw: bool) -> Shaped[np.ndarray, " n *image"]:
    """Bytes as they are, or as float32 in [0, 1]."""
    return images if raw else images.astype(np.float32) / 255
