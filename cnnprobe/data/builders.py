"""The bundled sets as data sets of tensorflow-datasets; TensorFlow is not needed."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from cnnprobe.data.bundled import FASHION_CLASSES, TEXTURE_CLASSES
from cnnprobe.data.cells import CELL_CLASSES
from cnnprobe.data.folders import require_pillow
from cnnprobe.data.named import DATA_SETS, load
from cnnprobe.types import Dataset

PREFIX = "cnnprobe_"
VERSION = "1.0.0"
FORMAT = "array_record"  # read by index without TensorFlow; parquet loses rows
CLASS_NAMES: Mapping[str, tuple[str, ...]] = {
    "blood_cells": CELL_CLASSES,
    "fashion_mnist": FASHION_CLASSES,
    "textures": TEXTURE_CLASSES,
}
CONFIGS: Mapping[str, dict[str, int]] = {"full": {}, "few": {"num_train": 60, "num_valid": 30}}


@functools.cache
def register_datasets() -> tuple[str, ...]:
    """Makes tensorflow-datasets know the bundled sets, and gives their names: `cnnprobe_textures` and others.

    Afterwards `tfds.data_source("cnnprobe_textures")` prepares the set, if it is not yet, and reads it: splits `train`
    and `validation`, examples of `image` (uint8, [height, width, 1]) and `label`, in the order of `cp.load`. There is a
    small configuration of each for trials: `cnnprobe_textures/few`. They are stored as array_record only.

    Raises:
      ImportError: tensorflow-datasets or pillow is missing.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError('Data sets by name need tensorflow-datasets: pip install "cnnprobe[tfds]"') from error
    require_pillow()
    for name in DATA_SETS:
        _define_builder(tfds, name)
    return tuple(PREFIX + name for name in DATA_SETS)


def _define_builder(tfds: Any, data_set: str) -> None:
    """Defines the class of one data set: tensorflow-datasets registers a class, by its name, when it is made."""

    class Builder(tfds.core.GeneratorBasedBuilder):
        """Images that come with cnnprobe."""

        name = PREFIX + data_set
        VERSION = tfds.core.Version(VERSION)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config) for config in CONFIGS]  # noqa: RUF012  as tfds has it

        def __init__(self, *, file_format: Any = None, **options: Any) -> None:
            if file_format not in (None, FORMAT, tfds.core.FileFormat.ARRAY_RECORD):
                raise ValueError(f"file_format must be {FORMAT}, got {file_format!r}.")
            super().__init__(file_format=FORMAT, **options)

        def _info(self) -> Any:
            """What an example holds."""
            label = tfds.features.ClassLabel(names=CLASS_NAMES[data_set])
            image = tfds.features.Image(shape=(None, None, 1))
            return tfds.core.DatasetInfo(
                builder=self,
                description=(DATA_SETS[data_set].__doc__ or "").split("\n")[0],
                features=tfds.features.FeaturesDict({"image": image, "label": label}),
                supervised_keys=("image", "label"),
                disable_shuffling=True,  # they are in random order, the one of `load`
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
            """The examples of both parts."""
            del dl_manager
            data = load(data_set, raw=True, **CONFIGS[self.builder_config.name])
            return {"train": self._generate_examples(data.train), "validation": self._generate_examples(data.valid)}

        def _generate_examples(self, part: Dataset) -> Iterator[tuple[int, dict[str, Any]]]:
            """Each image as one of pillow, which needs no TensorFlow to be encoded."""
            from PIL import Image

            for index, (image, label) in enumerate(zip(part.images, part.labels, strict=True)):
                yield index, {"image": Image.fromarray(image[..., 0]), "label": int(label)}
