"""Faults of the network as it was drawn."""

from cnnprobe.doctor.causes.record import Advice, Cause, fact, highest, readings, rising
from cnnprobe.doctor.observation import Observation
from cnnprobe.doctor.remedies import redraw_parameters
from cnnprobe.types import Evidence


def _symmetric(seen: Observation) -> Evidence | None:
    """Units of one hidden layer that start as copies of each other and stay so."""
    first, last = fact(seen, "initial unit likeness"), fact(seen, "last unit likeness")
    strength = rising(min(first, last), max(0.99, highest("initial unit likeness")), 0.9999)
    if not strength:
        return None
    sentence = (
        f"All units of {seen.names.get('symmetric layer', 'a hidden layer')} start with the same weights, so they get"
        " the same gradient and stay copies."
    )
    return Evidence(sentence, readings(seen, "initial unit likeness", "last unit likeness"), strength)


def _advise_init(_: Observation) -> Advice:
    """Random kernels."""
    return Advice("Draw the kernels at random, each unit its own.", "kernel_init=nn.initializers.he_normal()")


CAUSES = (
    Cause(
        "symmetric-init",
        "all units of a layer are copies",
        "architecture",
        _symmetric,
        lambda _: (redraw_parameters,),
        _advise_init,
        "Units with equal weights see equal gradients: a layer of a hundred copies is a layer of one.",
        ("Goodfellow, Bengio & Courville, Deep Learning, 2016, section 8.4",),
    ),
)
