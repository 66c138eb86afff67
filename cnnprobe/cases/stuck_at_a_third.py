"""The "same" network written two ways trains differently: one of them answers with one class.

As reported: photographs of three classes, 256x256x3, in a folder for each class; training accuracy 33.33 %. The report
blames where the activation is written. Its two summaries say that a block of convolutions and a dense layer went too.
"""

import optax

from cnnprobe.cases.parts import cross_entropy, fitted, scale_pixels
from cnnprobe.checks import check_integer, check_one_of
from cnnprobe.data.bundled import ImageSet, textures
from cnnprobe.models.cases import folder_cnn
from cnnprobe.types import Model, Problem

SUMMARIES = {"A": {"blocks": 3, "units": (128, 64)}, "B": {"blocks": 2, "units": (128,)}}
SMALLEST_SIDE = 52  # pixels, of which the last pool of summary A leaves a single place


def network(summary: str, *, width: int = 32, num_classes: int = 3) -> Model:
    """The network of summary "A" or "B".

    Raises:
      ValueError: there is no such summary.
    """
    check_one_of("summary", summary, SUMMARIES)
    return folder_cnn(width=width, num_classes=num_classes, **SUMMARIES[summary])


def stuck_at_a_third(
    *,
    summary: str = "A",
    image_size: int = 56,
    width: int = 8,
    num_images: int = 300,
    learning_rate: float = 0.025,
    data: ImageSet | None = None,
    seed: int = 1,
) -> Problem:
    """Three textures and one of the two networks.

    Args:
      summary: "A" (three blocks, which collapse at the default step size and seed) or "B" (two blocks, which do not).
      image_size: side of the images, 256 in the report; 52 at least.
      width: channels of every convolution, 32 in the report.
      num_images: for training, about 13000 in the report.
      learning_rate: step size of Adam.
      data: images to use in the place of the textures, as `image_folder` reads them; they are brought to size.
      seed: of the images and the training.

    Raises:
      ValueError: an argument is out of its range.
    """
    check_integer("image_size", image_size, SMALLEST_SIDE)
    num_valid = max(num_images // 3, 1)
    if data is None:
        data = textures(size=image_size, num_train=num_images, num_valid=num_valid, channels=3, seed=seed, raw=True)
    else:
        data = fitted(data, size=image_size, channels=3, num_train=num_images, num_valid=num_valid)
    return Problem(
        model=network(summary, width=width, num_classes=len(data.class_names)),
        loss=cross_entropy,
        optimizer=optax.adam(learning_rate),
        train=data.train,
        valid=data.valid,
        num_classes=len(data.class_names),
        batch_size=32,
        num_epochs=12,
        preprocess=scale_pixels,
        seed=seed,
    )
