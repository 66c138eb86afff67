"""Harm: what a remedy gains over its control, and whether that is more than chance would give."""

import math

import numpy as np
from jaxtyping import Float

from cnnprobe.doctor.trial import Attempt, Plan, control
from cnnprobe.types import Curve, Trial

ENOUGH = 0.05  # points of balanced accuracy that a remedy must gain to show harm
DECISIVE = 0.9  # strength of evidence that speaks for itself
NOT_DECISIVE = 0.8  # strength of what needs a trial that chance would not pass, however far a reading is
SUFFICIENT = 0.5  # strength that is worth a warning where harm is likely but not proved
ERRORS = 2.0  # standard errors that a difference between accuracies on two kinds of images must exceed
LARGE = 0.3  # points that are full proof of a remedy, and with the baseline reached end the search


def makes_finite(control: Curve, remedied: Curve) -> bool:
    """Whether the loss ends as NaN or infinite without the remedy, and never is with it."""
    return not np.isfinite(control.loss[-1:]).all() and bool(np.isfinite(remedied.loss).all())


def gain_of(plan: Plan, attempt: Attempt) -> float:
    """What a remedy gains from the first seed; a loss that it makes finite is worth a large gain."""
    gain = attempt.scored.accuracy - control(plan, 0).accuracy
    return max(gain, LARGE) if makes_finite(control(plan, 0).curve, attempt.scored.curve) else gain


def _error(plan: Plan, trial: Trial) -> float:
    """Standard error of the gain: over seeds, or over images where there is one seed."""
    seeds = len(trial.control)
    if seeds > 1:
        return trial.spread / math.sqrt(seeds)
    share = float(trial.control[0] + trial.remedied[0]) / 2
    return math.sqrt(2 * share * (1 - share) / len(plan.bench.valid.images))


def does_harm(plan: Plan, trial: Trial, strength: float) -> bool:
    """Whether the gain is large and beyond its error; or the remedy makes the loss finite."""
    gains = is_beyond_chance(trial.remedied - trial.control, _error(plan, trial), strength=strength)
    return gains or makes_finite(trial.control_curve, trial.remedied_curve)


def is_beyond_chance(gains: Float[np.ndarray, " seeds"], error: float, *, strength: float) -> bool:
    """Whether what the pairs gain counts: in their mean, of which `error` is the standard error, and in most of them.

    A run that fails from one seed in three gives a large mean gain to whatever is tried. Evidence that speaks for
    itself needs a gain of one standard error; else chance must be unlikely (5 %, Student's t). `bands.json` says how
    often trials that change nothing but the seeds pass.
    """
    errors = 1.0 if strength >= DECISIVE else errors_of_chance(len(gains))
    is_in_most = np.mean(gains >= ENOUGH) > 0.5
    return bool(np.mean(gains) >= max(ENOUGH, errors * error) and is_in_most)


def errors_of_chance(num_seeds: int) -> float:
    """Standard errors that a mean over seeds exceeds by chance once in twenty times (Student's t)."""
    from scipy.special import stdtrit

    return float(stdtrit(num_seeds - 1, 0.95)) if num_seeds > 1 else 1.64
