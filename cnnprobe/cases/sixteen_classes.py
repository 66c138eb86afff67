"""750 images, 16 classes, 43 % at best, and a network that is printed without a flatten.

As reported: images of 224x224x3, batches of four, twenty epochs. Ten kinds of clothes and three textures at two
distances are the sixteen classes here.
"""

import numpy as np
import optax
from jaxtyping import Array, Float, Int

from cnnprobe.cases.parts import log_likelihood_loss, resized, scale_pixels
from cnnprobe.data.bundled import fashion_mnist, textures
from cnnprobe.models.cases import sixteen_cnn
from cnnprobe.types import Dataset, Labels, Problem

NUM_CLASSES = 16
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
    *, flat: bool = True, image_size: int = 32, width: int = 8, num_images: int = 320, seed: int = 0
) -> Problem:
    """Sixteen classes with few images each, and the reported network with or without what was lost from it.

    Args:
      flat: True: the network pools its last map, and classifies images; False: as printed, it classifies places.
      image_size: side of the images, 224 in the report.
      width: channels of the first convolution, 16 in the report.
      num_images: for training, 563 in the report; a third as many more to validate.
      seed: of the images and the training.

    Raises:
      ValueError: an argument is out of its range.
    """
    return Problem(
        model=sixteen_cnn(width=width, flat=flat),
        loss=log_likelihood_loss if flat else loss_of_places,
        optimizer=optax.adam(1e-3),
        train=images_of(num_images, size=image_size, seed=seed, valid=False),
        valid=images_of(max(num_images // 3, NUM_CLASSES), size=image_size, seed=seed, valid=True),
        num_classes=NUM_CLASSES,
        batch_size=4,
        num_epochs=20,
        preprocess=scale_pixels,
        seed=seed,
    )
