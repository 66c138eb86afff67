"""Faults of the network as it was drawn."""

import functools

from cnnprobe.doctor.causes.record import Advice, Cause, fact, graded_log, highest, lowest, readings, rising
from cnnprobe.doctor.observation import Observation
from cnnprobe.doctor.remedies import redraw_parameters, use_relu
from cnnprobe.types import Evidence, Problem, Remedy


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


def _vanishing(seen: Observation) -> Evidence | None:
    """Outputs that hardly depend on the images, before the run and after it, though units are alive and differ."""
    first, last = fact(seen, "initial input sensitivity"), fact(seen, "end input sensitivity")
    start = lowest("initial input sensitivity", factor=0.1)
    strength = graded_log(max(first, last), start, start / 100)
    is_alive = fact(seen, "last zero gradient share") < 0.5 and not fact(seen, "last unit likeness") > 0.99
    if not strength or not is_alive or not _squashing(seen):
        return None
    sentence = (
        f"Of the outputs a share of {first:.2g} depends on the image before the run and {last:.2g} after it: "
        f"{' and '.join(_squashing(seen))} in the hidden layers has flattened it."
    )
    return Evidence(sentence, readings(seen, "initial input sensitivity", "end input sensitivity"), strength)


def _squashing(seen: Observation) -> list[str]:
    """The bounded activations of hidden layers."""
    return sorted({row.activation for row in seen.layers[:-1]} & {"sigmoid", "tanh", "softmax"})


def _unsquash(seen: Observation) -> tuple[Remedy, ...]:
    """ReLU in the place of each of them."""

    def remedy(problem: Problem) -> Problem:
        """All of them replaced."""
        return functools.reduce(lambda mended, name: use_relu(name)(mended), _squashing(seen), problem)

    return (remedy,)


def _advise_relu(seen: Observation) -> Advice:
    """ReLU."""
    return Advice(f"Use ReLU instead of {' and '.join(_squashing(seen))} between the layers.", "x = nn.relu(x)")


CAUSES = (
    Cause(
        "vanishing-signal",
        "the signal vanishes on its way through the layers",
        "architecture",
        _vanishing,
        _unsquash,
        _advise_relu,
        "A sigmoid has a slope of a quarter at most, so a layer passes on less than a quarter of what differs between "
        "images, and of the gradient on its way back.",
        ("Glorot & Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010",),
    ),
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
