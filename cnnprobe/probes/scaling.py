"""What more images would bring: the power law of learning curves."""

import numpy as np
from jaxtyping import Float

from cnnprobe.checks import check_at_least, check_rank
from cnnprobe.types import AnyArray

SMALLEST_ERROR = 1e-3  # where no image is wrong the logarithm has no value


def expected_accuracy(
    sizes: Float[AnyArray, " sizes"], accuracy: Float[AnyArray, "runs sizes"], *, factor: float = 2.0
) -> Float[np.ndarray, " runs"]:
    """The accuracy of each run at `factor` times its largest training set, in [0, 1].

    The error falls as a power of the number of images: a straight line through the logarithms is fitted to each run
    and prolonged. A run whose error rises with more images is held to stay where its line ends.

    Raises:
      ValueError: fewer than two sizes, sizes that are not above 0, another number of accuracies, or a factor below 1.

    References:
      Hestness et al., Deep learning scaling is predictable, empirically, 2017.

    >>> expected_accuracy(np.array([100.0, 200.0]), np.array([[0.2, 0.6]])).round(3).tolist()
    [0.8]
    """
    check_rank("accuracy", accuracy, 2)
    check_at_least("factor", factor, 1.0)
    numbers = np.asarray(sizes, np.float64)
    if numbers.ndim != 1 or len(np.unique(numbers)) < 2 or not np.all(numbers > 0):
        raise ValueError(f"sizes must be two or more different numbers above 0, got {numbers.tolist()}.")
    if np.shape(accuracy)[1] != len(numbers):
        raise ValueError(
            f"accuracy must have a column for each of {len(numbers)} sizes, got shape {np.shape(accuracy)}."
        )
    x = np.log(numbers)
    y = np.log(np.maximum(1 - np.asarray(accuracy, np.float64), SMALLEST_ERROR))
    centred = x - x.mean()
    slope = np.minimum(y @ centred / (centred @ centred), 0.0)
    return 1 - np.exp(y.mean(axis=1) + slope * (x.max() + np.log(factor) - x.mean()))
