"""750 images, 16 classes, 43 % at best, and a network that is printed without a flatten.

As reported: images of 224x224x3, batches of four, twenty epochs. Ten kinds of clothes and three textures at two
distances are the sixteen classes here.
"""

import numpy as np
import optax
from jaxtyping import Array, Float, Int

from cnnprobe.cases.parts import fitted, log_likelihood_loss, resized, scale_pixels
from cnnprobe.data.bundled import FASHION_CLASSES, TEXTURE_CLASSES, ImageSet, fashion_mnist, textures
from cnnprobe.models.cases import sixteen_cnn
from cnnprobe.types import Dataset, Labels, Problem

NUM_CLASSES = 16
CLASS_NAMES = (
    *FASHION_CLASSES,
    *(f"{name}, near" for name in TEXTURE_CLASSES),
    *(f"{name}, far" for name in TEXTURE_CLASSES),
)
SHARE_OF_TEXTURES = 6 / NUM_CLASSES
LARGEST_CROP = 256  # of a texture
NEAR, FAR = 1, 2  # times the side of the image that a crop of a texture spans


def loss_of_places(maps: Float[Array, "batch height width classes"], labels: Labels) -> Float[Array, ""]:
    """The loss as it broadcasts over a map: each place is asked for the label of the image."""
    flat = maps.reshape(-1, maps.shape[-1])
    return log_likelihood_loss(flat, labels.repeat(maps.shape[1] * maps.shape[2]))


def images_of(num: int, *, size: int, seed: int, valid: bool) -> Dataset:
    """`num` images [num, size, size, 3] of the sixteen classes as bytes, in random order.

    Raises:
      ValueError: `num` is below 16.
    """
    if num < NUM_CLASSES:
        raise ValueError(f"num_images must be at least {NUM_CLASSES}, got {num}.")
    num_textures = round(num * SHARE_OF_TEXTURES / 2)
    clothes = fashion_mnist(num_train=num - 2 * num_textures, num_valid=min(num - 2 * num_textures, 1000), raw=True)
    part = clothes.valid if valid else clothes.train
    parts = [(np.repeat(resized(part.images, size), 3, axis=-1), np.asarray(part.labels))]
    for first, distance in ((10, NEAR), (13, FAR)):
        crops = textures(
            size=min(distance * size, LARGEST_CROP),
            num_train=num_textures,
            num_valid=num_textures,
            channels=3,
            seed=seed,
            raw=True,
        )
        crop = crops.valid if valid else crops.train
        parts.append((resized(crop.images, size), np.asarray(crop.labels) + first))
    images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    order: Int[np.ndarray, " n"] = np.random.default_rng(seed).permutation(len(labels))
    return Dataset(images[order], labels[order].astype(np.int32))


def sixteen_classes(
    *,
    flat: bool = True,
    image_size: int = 32,
    width: int = 8,
    num_images: int = 240,
    data: ImageSet | None = None,
    seed: int = 0,
) -> Problem:
    """Sixteen classes with few images each, and the reported network with or without what was lost from it.

    Args:
      flat: True: the network flattens its last map, and classifies images; False: as printed, it classifies places.
      image_size: side of the images, 224 in the report.
      width: channels of the first convolution, 16 in the report.
      num_images: for training, 563 in the report; a third as many more to validate.
      data: images to use in the place of the clothes and textures; they are brought to size.
      seed: of the images and the training.

    Raises:
      ValueError: an argument is out of its range.
    """
    num_valid = max(num_images // 3, NUM_CLASSES)
    if data is None:
        train = images_of(num_images, size=image_size, seed=seed, valid=False)
        data = ImageSet(train, images_of(num_valid, size=image_size, seed=seed, valid=True), CLASS_NAMES)
    else:
        data = fitted(data, size=image_size, channels=3, num_train=num_images, num_valid=num_valid)
    return Problem(
        model=sixteen_cnn(width=width, flat=flat, num_classes=len(data.class_names)),
        loss=log_likelihood_loss if flat else loss_of_places,
        optimizer=optax.adam(1e-3),
        train=data.train,
        valid=data.valid,
        num_classes=len(data.class_names),
        batch_size=4,
        num_epochs=12,
        preprocess=scale_pixels,
        seed=seed,
    )
