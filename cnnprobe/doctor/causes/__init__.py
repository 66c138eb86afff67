"""Every cause, one file a family, in the order in which a fault explains the symptoms of later ones."""

from cnnprobe.doctor.causes import (
    architecture,
    augmentation,
    corrupt,
    criterion,
    generalisation,
    inputs,
    labels,
    loss,
    maps,
    metric,
    noise,
    non_finite,
    optimisation,
    pairing,
    regularisation,
    splits,
    updates,
    uphill,
)
from cnnprobe.doctor.causes.record import Cause

CAUSES: tuple[Cause, ...] = (
    *corrupt.CAUSES,
    *inputs.CAUSES,
    *augmentation.CAUSES,
    *labels.CAUSES,
    *pairing.CAUSES,
    *splits.CAUSES,
    *noise.CAUSES,
    *loss.CAUSES,
    *criterion.CAUSES,
    *architecture.CAUSES,
    *maps.CAUSES,
    *regularisation.CAUSES,
    *uphill.CAUSES,
    *optimisation.CAUSES,
    *non_finite.CAUSES,
    *updates.CAUSES,
    *metric.CAUSES,
    *generalisation.CAUSES,
)
