"""Data sets that tensorflow-datasets has prepared on this disk, read without TensorFlow and without a network."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnprobe.checks import check_integer, check_optional
from cnnprobe.data.builders import PREFIX
from cnnprobe.data.bundled import ImageSet
from cnnprobe.data.folders import fit_pixels, require_pillow
from cnnprobe.data.named import DATA_SETS
from cnnprobe.data.sampling import split, to_dataset
from cnnprobe.types import Dataset

VALID_SPLITS = ("validation", "test")  # the first one there is taken
VALID_SHARE = 0.2  # of the training images, where there is no such split
NAME = re.compile(r"[a-zA-Z0-9_]+(/[a-zA-Z0-9_.-]+)?")  # with a configuration or without
RANDOM_ACCESS = "array_record"  # the one format that is read by index without TensorFlow
KNOWN = "import cnnprobe; cnnprobe.register_datasets(); "  # what the bundled sets need first


def prepared_set(
    name: str, *, size: int, channels: int = 3, num_train: int | None = None, seed: int = 0, raw: bool = False
) -> ImageSet:
    """Images of a data set of tensorflow-datasets that was prepared before: nothing is downloaded, nothing waited for.

    Images are float32 in [0, 1], [n, size, size, channels]; with `raw` uint8 in 0..255. Labels are int32. The folder
    `TFDS_DATA_DIR`, or else `~/tensorflow_datasets`, is where they are looked for.

    Args:
      name: "cifar10", or with a configuration "imagenette/160px-v2".
      size: height and width that all images are resized to.
      channels: 1 for gray, 3 for colour.
      num_train: images to draw at random from the training split, and a third as many from the held-out one; None: all.
        Where nothing is held out, a fifth of the training images is.
      seed: of those draws.
      raw: whether to leave the pixels as bytes.

    Raises:
      ValueError: the data set is not prepared, and the message says how to; or it holds no labelled images.
      ImportError: tensorflow-datasets or pillow is missing.
    """
    check_integer("size", size, 1)
    check_optional(check_integer, "num_train", num_train, 1)
    builder = _builder(_prepared_folder(name))
    class_names, parts, shape = _class_names(name, builder), _sources(name, builder), (size, size, channels)
    train = _read(parts["train"], shape, num_train, seed)
    held_out = next((parts[part] for part in VALID_SPLITS if part in parts), None)
    if held_out is None:
        train, valid = map(to_dataset, split(train, VALID_SHARE, seed=seed))
    else:
        valid = _read(held_out, shape, None if num_train is None else max(num_train // 3, 1), seed)
    return ImageSet(_finished(train, raw), _finished(valid, raw), class_names)


def _prepared_folder(name: str) -> Path:
    """Where the newest prepared version lies."""
    root = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    found = sorted((root / name).glob("**/dataset_info.json")) if NAME.fullmatch(name) else []
    if not found:
        raise ValueError(
            f"dataset must be one of {', '.join(sorted(DATA_SETS))}, or one that tensorflow-datasets has prepared, got"
            f" {name!r}, which is not in {root}. To prepare it where there is a network: python -c"
            f" \"{KNOWN if name.startswith(PREFIX) else ''}import tensorflow_datasets as tfds; tfds.builder('{name}',"
            f" file_format='{RANDOM_ACCESS}').download_and_prepare()\""
        )
    return found[-1].parent


def _builder(folder: Path) -> Any:
    """The data set as its folder describes it; its own program is not run."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError('Prepared data sets need tensorflow-datasets: pip install "cnnprobe[tfds]"') from error
    require_pillow()
    return tfds.builder_from_directory(folder)


def _class_names(name: str, builder: Any) -> tuple[str, ...]:
    """Names of the classes by label."""
    features = builder.info.features
    if not {"image", "label"} <= set(features) or not hasattr(features["label"], "names"):
        raise ValueError(f"dataset {name!r} must hold an 'image' and its class as 'label', got {sorted(features)}.")
    return tuple(features["label"].names)


def _sources(name: str, builder: Any) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Each split as a sequence of examples."""
    try:
        sources = {part: builder.as_data_source(part) for part in builder.info.splits}
    except NotImplementedError as error:
        raise ValueError(
            f"dataset {name!r} must be prepared with file_format={RANDOM_ACCESS!r}, got"
            f" {builder.info.file_format.value!r}."
        ) from error
    if "train" not in sources:
        raise ValueError(f"dataset {name!r} must have a split named train, got {sorted(sources)}.")
    return sources


def _read(source: Sequence[Mapping[str, Any]], shape: tuple[int, int, int], num: int | None, seed: int) -> Dataset:
    """Some examples of a split in memory, as bytes."""
    from PIL import Image

    order = np.random.default_rng(seed).permutation(len(source))[:num]
    images, labels = np.empty((len(order), *shape), np.uint8), np.empty(len(order), np.int32)
    for row, place in enumerate(order):
        example = source[int(place)]
        pixels = np.asarray(example["image"])
        images[row] = fit_pixels(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), shape)
        labels[row] = example["label"]
    return Dataset(images, labels)


def _finished(part: Dataset, raw: bool) -> Dataset:
    """The images as bytes or scaled."""
    return part if raw else Dataset(part.images / np.float32(255), part.labels)
