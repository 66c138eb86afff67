"""The "same" network written two ways trains differently: one of them answers with one class.

As reported: photographs of three classes, 256x256x3, in a folder for each class; training accuracy 33.33 %. The report
blames where the activation is written. Its two summaries say that a block of convolutions and a dense layer went too.
"""

import optax

from cnnprobe.cases.parts import cross_entropy, scale_pixels
from cnnprobe.checks import check_one_of
from cnnprobe.data.bundled import textures
from cnnprobe.models.cases import folder_cnn
from cnnprobe.types import Model, Problem

SUMMARIES = {"A": {"blocks": 3, "units": (128, 64)}, "B": {"blocks": 2, "units": (128,)}}


def network(summary: str, *, width: int = 32) -> Model:
    """The network of summary "A" or "B".

    Raises:
      ValueError: there is no such summary.
    """
    check_one_of("summary", summary, SUMMARIES)
    return folder_cnn(width=width, num_classes=3, **SUMMARIES[summary])


def stuck_at_a_third(
    *,
    summary: str = "A",
    image_size: int = 64,
    width: int = 8,
    num_images: int = 450,
    learning_rate: float = 0.01,
    seed: int = 0,
) -> Problem:
    """Three textures and one of the two networks.

    Args:
      summary: "A" (three blocks, which collapse at the default step size) or "B" (two blocks, which do not).
      image_size: side of the images, 256 in the report; 46 at least.
      width: channels of every convolution, 32 in the report.
      num_images: for training, about 13000 in the report.
      learning_rate: step size of Adam.
      seed: of the images and the training.

    Raises:
      ValueError: an argument is out of its range.
    """
    num_valid = max(num_images // 3, 1)
    data = textures(size=image_size, num_train=num_images, num_valid=num_valid, channels=3, seed=seed, raw=True)
    return Problem(
        model=network(summary, width=width),
        loss=cross_entropy,
        optimizer=optax.adam(learning_rate),
        train=data.train,
        valid=data.valid,
        num_classes=3,
        batch_size=32,
        num_epochs=15,
        preprocess=scale_pixels,
        seed=seed,
    )
