"""Every cause, one file a family, in the order in which a fault explains the symptoms of later ones."""

from cnnprobe.doctor.causes import (
    architecture,
    criterion,
    generalisation,
    inputs,
    labels,
    loss,
    optimisation,
    regularisation,
    updates,
)
from cnnprobe.doctor.causes.record import Cause

CAUSES: tuple[Cause, ...] = (
    *inputs.CAUSES,
    *labels.CAUSES,
    *loss.CAUSES,
    *criterion.CAUSES,
    *architecture.CAUSES,
    *regularisation.CAUSES,
    *optimisation.CAUSES,
    *updates.CAUSES,
    *generalisation.CAUSES,
)
