"""Faults of the network as it was drawn."""

from cnnprobe.doctor.causes.record import Advice, Cause, fact, graded_log, highest, readings, rising
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
    return Advice(
        "Draw the kernels at random, each unit its own, with a variance of 2 over the number of inputs.",
        "kernel_init=nn.initializers.he_normal()",
    )


def _loud(seen: Observation) -> Evidence | None:
    """Scores so large before any training that the network is surely wrong, though its inputs are of healthy scale."""
    ratio = fact(seen, "initial loss ratio")
    start = highest("initial loss ratio", factor=3.0)
    strength = graded_log(ratio, start, 10 * start)
    if not strength or fact(seen, "input standard deviation") > highest("input standard deviation", factor=2.0):
        return None
    sentence = (
        f"Before any training the loss is {ratio:.3g} times that of a blind guess, though the inputs are of healthy "
        "scale: the weights are drawn too large."
    )
    return Evidence(sentence, readings(seen, "initial loss ratio", "input standard deviation"), strength)


CAUSES = (
    Cause(
        "init-scale-wrong",
        "the weights are drawn too large",
        "architecture",
        _loud,
        lambda _: (redraw_parameters,),
        _advise_init,
        "Each layer multiplies its signal by the scale of its weights; a network that starts sure and wrong spends its "
        "training on coming back.",
        ("He, Zhang, Ren & Sun, Delving deep into rectifiers, ICCV 2015",),
    ),
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
