"""A residual network that oscillates near 0.2: is it overfitting, or something else?

As reported: 10000 digits of 50x50x1 that were never scaled, bottleneck blocks with batch normalisation, patience of two
epochs. Clothes of Fashion-MNIST, enlarged, stand in for the digits.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import optax

from cnnprobe.cases.parts import Fault, chosen_fault, fitted, log_likelihood_loss, scale_pixels, unchanged
from cnnprobe.data.bundled import ImageSet, fashion_mnist
from cnnprobe.models.cases import digit_resnet
from cnnprobe.types import Images, Problem

SLOW_MOMENTUM = 0.999  # running statistics that a short training never reaches
PATIENT_EPOCHS = 1  # what a patience of two leaves of a run that oscillates


def _as_floats(images: Images) -> np.ndarray:
    """Bytes as they are."""
    return np.asarray(images, np.float32)


def _unscaled(problem: Problem, width: int) -> Problem:
    """Pixels from 0 to 255 with plain gradient descent."""
    del width
    return problem._replace(preprocess=_as_floats, optimizer=optax.sgd(0.1))


def _late_statistics(problem: Problem, width: int) -> Problem:
    """Running statistics with a momentum that needs thousands of steps."""
    assert problem.num_classes is not None
    return problem._replace(model=digit_resnet(width=width, momentum=SLOW_MOMENTUM, num_classes=problem.num_classes))


def _impatient(problem: Problem, width: int) -> Problem:
    """Stopped after the first epoch that was not better."""
    del width
    return problem._replace(num_epochs=PATIENT_EPOCHS)


def _long_steps(problem: Problem, width: int) -> Problem:
    """A step size ten thousand times what the network can bear."""
    del width
    return problem._replace(optimizer=optax.sgd(10.0))


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "unscaled": _unscaled,
        "late_statistics": _late_statistics,
        "impatient": _impatient,
        "long_steps": _long_steps,
    }
)


def resnet_digits(
    *,
    fault: str | None = None,
    image_size: int = 28,
    width: int = 4,
    num_images: int = 1500,
    data: ImageSet | None = None,
    seed: int = 0,
) -> Problem:
    """Ten classes of 50x50x1 at full size, and the reported residual network.

    Args:
      fault: one of `FAULTS`; None: the network as it learns.
      image_size: side of the images, 50 in the report.
      width: channels of the first stage, 32 in the report.
      num_images: for training, 8000 in the report; a quarter as many more to validate.
      data: images to use in the place of the clothes; they are made gray and brought to size.
      seed: of the training.

    Raises:
      ValueError: an argument is out of its range, or there is no such fault; the message lists them.
    """
    plant = chosen_fault(fault, FAULTS, unchanged)
    num_valid = max(num_images // 4, 1)
    if data is None:
        data = fashion_mnist(num_train=num_images, num_valid=num_valid, raw=True)
    data = fitted(data, size=image_size, channels=1, num_train=num_images, num_valid=num_valid)
    return plant(
        Problem(
            model=digit_resnet(width=width, momentum=0.9, num_classes=len(data.class_names)),
            loss=log_likelihood_loss,
            optimizer=optax.adam(1e-3),
            train=data.train,
            valid=data.valid,
            num_classes=len(data.class_names),
            batch_size=64,
            num_epochs=10,
            preprocess=scale_pixels,
            seed=seed,
        ),
        width,
    )
