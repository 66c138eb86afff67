"""When to end a training that no longer gets better on images it was not trained on.

References:
  Goodfellow, Bengio & Courville, Deep Learning, 2016, algorithm 7.1: patience, and the parameters of the best epoch.
"""

from collections.abc import Sequence

import numpy as np


def best_epoch(valid_losses: Sequence[float]) -> int | None:
    """The first epoch with the lowest validation loss; None where none is a number.

    >>> best_epoch([0.9, 0.4, float("nan"), 0.4])
    1
    """
    finite = np.isfinite(valid_losses)
    return int(np.argmin(np.where(finite, valid_losses, np.inf))) if finite.any() else None


def is_over(valid_losses: Sequence[float], patience: int | None) -> bool:
    """Whether `patience` epochs in a row have not been better than the best before them; None: never.

    >>> is_over([0.9, 0.4, 0.5], patience=2), is_over([0.9, 0.4, 0.5, 0.6], patience=2)
    (False, True)
    """
    best = best_epoch(valid_losses)
    return patience is not None and len(valid_losses) - (0 if best is None else best + 1) >= patience
