"""Label noise, estimated without training: what labels say where the images leave no doubt."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from cnnprobe.checks import check_rank, check_same_length
from cnnprobe.types import AnyArray

_SURE_SHARE = 0.1  # of the images: the surest tenth of the predictions is right on clean labels
_ENOUGH_SURE = 100  # images, where they are no more than a quarter
_FEWEST_SURE = 15


class LabelNoise(NamedTuple):
    """How many labels contradict their images."""

    share: float  # of the surest predictions, those that the label contradicts; NaN for fewer than 60 images in all
    num_sure: int  # images that it was counted on


def label_noise(scores: Float[AnyArray, "n classes"], labels: Shaped[AnyArray, " n"]) -> LabelNoise:
    """Estimates the share of wrong labels from held-out scores, such as `ridge_readings` gives.

    Scores are trusted where the best leads the second by most. Wrong labels in the fitted half make every lead
    shorter but hardly change which images lead, so the surest predictions stay right, and their labels are wrong as
    often as any. Noise that confuses two classes alone is underestimated: such images are not among the surest.

    Args:
      scores: one column for each class that occurs, in order.
      labels: the class of each row, as the scores were fitted to.

    Raises:
      ValueError: the two differ in length, or `scores` has not two axes.

    References:
      Northcutt, Jiang & Chuang, Confident learning, JAIR 2021.
    """
    check_rank("scores", scores, 2)
    check_same_length("scores", scores, "labels", labels)
    rows = np.asarray(scores, np.float64)
    surest = _surest(rows)
    if len(surest) < _FEWEST_SURE or rows.shape[1] < 2:
        return LabelNoise(float("nan"), len(surest))
    ids = np.unique(np.asarray(labels), return_inverse=True)[1]
    return LabelNoise(float(np.mean(np.argmax(rows[surest], axis=1) != ids[surest])), len(surest))


def _surest(scores: Float[np.ndarray, "n classes"]) -> Int[np.ndarray, " sure"]:
    """The rows whose best score leads by most."""
    ranked = np.sort(scores, axis=1)
    lead = ranked[:, -1] - ranked[:, -2:].min(axis=1)
    num = max(int(_SURE_SHARE * len(scores)), min(_ENOUGH_SURE, len(scores) // 4))
    return np.argsort(-lead, kind="stable")[:num]
