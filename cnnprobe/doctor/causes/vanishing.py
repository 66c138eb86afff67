"""Signals that vanish on their way through the layers."""

import functools
import itertools

import numpy as np

from cnnprobe.doctor.causes.record import Advice, Cause, graded_log, lowest, readings
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.doctor.progress import has_learnt
from cnnprobe.doctor.remedies import use_relu
from cnnprobe.types import Evidence, Problem, Remedy

FADED = 1e-4  # of the largest gradient, or of the outputs: what is left of none
ERASED = 1e-6  # share of the outputs that depends on the image: what rounding leaves of nothing


def is_erased(seen: Observation) -> bool:
    """Whether nothing of the images reaches the outputs, and no gradient the layers, though these are alive."""
    is_dead = _is_switched_off(seen) or fact(seen, "last unit likeness") > 0.99
    is_moved = fact(seen, "number of updates") > 0
    return _starts_deaf(seen) and _is_deaf(seen) and is_moved and not is_dead and bool(_before_the_gap(seen))


def _is_switched_off(seen: Observation) -> bool:
    """Whether units are dead, and not for want of anything to feel: those of zeros alone are off, too."""
    dead = np.fmax(fact(seen, "initial dead unit share"), fact(seen, "dead unit share"))
    off = [row for row in seen.layers if row.dead_share > 0.5]
    return dead > 0.5 and not (off and all(row.activation_std == 0 for row in off))


def _is_deaf(seen: Observation) -> bool:
    """Whether the trained network says the same of every image."""
    return fact(seen, "end input sensitivity") <= ERASED


def _says_nothing(seen: Observation) -> bool:
    """Whether the trained network is no better than a guess and says the same of every image, or nearly so."""
    return fact(seen, "end input sensitivity") <= FADED and not has_learnt(seen)


def _starts_deaf(seen: Observation) -> bool:
    """Whether the untrained network does, or says nothing but rounding errors."""
    largest = max(abs(fact(seen, "output min")), abs(fact(seen, "output max")))
    return fact(seen, "initial input sensitivity") <= ERASED or largest <= ERASED


def _before_the_gap(seen: Observation) -> str:
    """The last layer that tells images apart and that no gradient reaches but for rounding; empty without any."""
    most = max((row.gradient_rms for row in seen.layers), default=0.0)
    varied = itertools.takewhile(lambda row: row.activation_std > 0, seen.layers)  # behind these only biases differ
    unreached = [row for row in varied if row.gradient_rms <= FADED * most]
    return unreached[-1].name if unreached else ""


def _erased(seen: Observation) -> Evidence:
    """Where images leave no trace."""
    sentence = (
        f"The outputs are the same for every image, before the run and after it: {_before_the_gap(seen)} tells images"
        " apart, but what stands behind it hands none of that on, and no gradient back."
    )
    names = ("initial input sensitivity", "end input sensitivity", "cut gradient share")
    return Evidence(sentence, readings(seen, *names), 1.0)


def _vanishing(seen: Observation) -> Evidence | None:
    """Outputs that hardly depend on the images, before the run and after it, though units are alive and differ."""
    return _flattened(seen) or (_erased(seen) if is_erased(seen) else None)


def _flattened(seen: Observation) -> Evidence | None:
    """By bounded activations; where nothing is learnt the start tells, as outputs may wander in the end."""
    first, last = fact(seen, "initial input sensitivity"), fact(seen, "end input sensitivity")
    start = lowest("initial input sensitivity", factor=0.1)
    strength = graded_log(max(first, last) if has_learnt(seen) else first, start, start / 100)
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
    if not _squashing(seen):
        return ()

    def remedy(problem: Problem) -> Problem:
        """All of them replaced."""
        return functools.reduce(lambda mended, name: use_relu(name)(mended), _squashing(seen), problem)

    return (remedy,)


def _advise_relu(seen: Observation) -> Advice:
    """ReLU; what erases the signal is the user's to find."""
    if is_erased(seen) and not _flattened(seen):
        where = _before_the_gap(seen)
        return Advice(
            f"Look at what stands behind {where}: a normalisation over a single place or unit gives zero for every"
            " image, and so does a mean that is subtracted from itself.",
            f"print(features.std(axis=0).max())  # from {where} to the outputs: where does it turn 0?",
        )
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
        shows_harm=_says_nothing,
        look_alikes=(
            "`dead-units` cut the signal off with exact zeros; here no unit is off, and what differs between images"
            " shrinks from layer to layer. With `updates-too-small` the untrained network still tells images apart."
            " Another optimizer does not help, another activation does."
        ),
    ),
)
