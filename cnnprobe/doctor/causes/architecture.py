"""Faults of the network as it was drawn."""

import math

import numpy as np

from cnnprobe.doctor.causes import augmentation, corrupt, inputs, labels, non_finite, optimisation, pairing
from cnnprobe.doctor.causes.loss import is_over_axes
from cnnprobe.doctor.causes.record import (
    Advice,
    Cause,
    Way,
    first_of,
    graded_log,
    highest,
    lowest,
    readings,
    rising,
)
from cnnprobe.doctor.causes.vanishing import is_erased
from cnnprobe.doctor.harm import DECISIVE, NOT_DECISIVE
from cnnprobe.doctor.looks.forward import COPIES
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.doctor.remedies import redraw_everything, redraw_parameters
from cnnprobe.doctor.remedies_network import (
    each_image_alone,
    each_image_by_its_own_statistics,
    insert_relu,
    insert_relu_behind,
    lift_biases,
    use_leaky,
)
from cnnprobe.types import Evidence, Remedy

STILL_ALIKE = 0.9  # cosine of two units that started as copies: what they read behind them tells them apart slowly
GAIN = "kernel gain"
FAR, FURTHEST = 3.0, 10.0  # times outside of the healthy gains: where a trial is worth it, and where most so
UPSTREAM = 0.5  # strength from which another cause is held to have killed the units


def _symmetric(seen: Observation) -> Evidence | None:
    """Units of one hidden layer that start as copies of each other and stay so."""
    first, last = fact(seen, "initial unit likeness"), fact(seen, "last unit likeness")
    copied = rising(first, max(0.99, highest("initial unit likeness")), COPIES)
    strength = min(copied, rising(last, max(STILL_ALIKE, highest("last unit likeness")), 0.99))
    if not strength:
        return None
    stay = "stay copies" if last > COPIES else f"hardly part (the cosine of two of them ends at {last:.2g})"
    sentence = (
        f"All units of {seen.names.get('symmetric layer', 'a hidden layer')} start with the same weights, so they get"
        f" the same gradient and {stay}."
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


def _off_scale(seen: Observation) -> Evidence | None:
    """Kernels whose layers shrink or blow up what they are given; what that costs only a trial can tell.

    Behind a normalisation the outputs do not show it: there the same step moves large weights less.
    """
    gain, (low, high) = fact(seen, GAIN), (lowest(GAIN), highest(GAIN))
    quiet, loud = graded_log(gain, low / FAR, low / FURTHEST), graded_log(gain, FAR * high, FURTHEST * high)
    if not max(quiet, loud):
        return None
    sentence = (
        f"As they are drawn, half of the kernels make what they are given {gain:.2g} times as large or"
        f" {'smaller' if quiet else 'more'} in each layer; in healthy networks it is {low:.2g} to {high:.2g} times."
    )
    return Evidence(sentence, readings(seen, GAIN, "initial loss ratio"), NOT_DECISIVE * max(quiet, loud))


# --- dead units ------------------------------------------------------------------------------------------------------


def _dead(seen: Observation) -> Evidence | None:
    """A layer of which no unit is ever switched on, though nothing before it and no step explains that."""
    first, last = fact(seen, "initial dead unit share"), fact(seen, "dead unit share")
    felt = max(fact(seen, "initial input sensitivity"), fact(seen, "end input sensitivity"))
    reach = lowest("initial input sensitivity", factor=0.1)
    strength = min(
        rising(min(first, last), max(0.9, highest("dead unit share")), 0.99), graded_log(felt, reach, 0.1 * reach)
    )
    if not strength or _is_explained(seen) or is_erased(seen):
        return None
    worst = max(seen.layers, key=lambda row: np.nan_to_num(row.dead_share), default=None)
    sentence = (
        f"In {worst.name if worst else 'a layer'} {last:.0%} of the units are off for every image, {first:.0%} of them"
        f" before the first step; a share of {felt:.2g} of the outputs depends on the image."
    )
    names = ("initial dead unit share", "dead unit share", "initial input sensitivity", "last zero gradient share")
    return Evidence(sentence, readings(seen, *names), strength)


def _is_explained(seen: Observation) -> bool:
    """Whether a fault of the data or of the steps speaks for itself, of which dead units are but the result."""
    upstream = (
        *corrupt.CAUSES,
        *inputs.CAUSES,
        *augmentation.CAUSES,
        *labels.CAUSES,
        *pairing.CAUSES,
        *optimisation.CAUSES,
        *non_finite.CAUSES,
    )
    found = (cause.evidence(seen) for cause in upstream)
    return any(evidence is not None and evidence.strength >= UPSTREAM for evidence in found)


def _revive(seen: Observation) -> tuple[Remedy, ...]:
    """A slope for the units that are off, and biases that do not hold them there."""
    dead = {row.activation for row in seen.layers if row.dead_share > 0.9 and row.activation}
    return (lift_biases, *(use_leaky(name) for name in sorted(dead)))


def _advise_alive(_: Observation) -> Advice:
    """Biases and slopes."""
    return Advice(
        "Start the biases at zero, not below; a leaky ReLU lets units that are off come back.",
        "x = nn.leaky_relu(nn.Dense(64, bias_init=nn.initializers.zeros)(x))",
    )


# --- images that feel each other -------------------------------------------------------------------------------------


def _leaking(seen: Observation) -> Evidence | None:
    """Outputs of one image that other images of the batch change, in evaluation mode."""
    share = fact(seen, "cross example share")
    # A normalisation by the batch at hand couples images too: to .08 in a small network, to .48 in a residual one.
    strength = 0.0 if is_over_axes(seen) else rising(share, max(0.3, highest("cross example share")), 0.85)
    if not strength:
        return None
    sentence = (
        f"{share:.0%} of what moves the outputs for one image are other images of its batch: a reshape, transpose or"
        " norm mixes the batch axis with others."
    )
    return Evidence(sentence, readings(seen, "cross example share", "validation accuracy"), strength)


def _set_apart(seen: Observation) -> tuple[Remedy, ...]:
    """Each image alone; with normalisation by the batch, whose stored statistics are of no use then, by its own."""
    is_normalised = not math.isnan(fact(seen, "statistics momentum"))
    return (each_image_by_its_own_statistics,) if is_normalised else (each_image_alone,)


def _advise_apart(seen: Observation) -> Advice:
    """Keep the first axis first."""
    shape = seen.names.get("image shape", "")
    return Advice(
        f"Keep the batch axis first in every reshape and transpose; images are {shape} behind it. Compare the outputs"
        " for one image alone with those for it in a batch.",
        "x = x.reshape(x.shape[0], -1)",
    )


# --- no activation ---------------------------------------------------------------------------------------------------


def _linear(seen: Observation) -> Evidence | None:
    """Several layers with nothing between them that bends."""
    bends, pools = fact(seen, "hidden nonlinearities"), fact(seen, "max pools")
    if bends != 0:
        return _idle(seen)
    but = f" but {pools:.0f} max pools" if pools else ""
    sentence = (
        f"Nothing stands between the {fact(seen, 'number of layers'):.0f} layers{but}: no activation, so they amount to"
        " little more than one linear layer."
    )
    found = readings(seen, "hidden nonlinearities", "max pools", "number of layers")
    return Evidence(sentence, found, 0.9 if pools else 1.0)


def _idle(seen: Observation) -> Evidence | None:
    """A dense layer whose outputs go straight into the next."""
    if not fact(seen, "idle dense layers") > 0:
        return None
    sentence = (
        f"Nothing stands between {seen.names['idle dense layers']} and the dense layer behind it, neither an activation"
        " nor a bottleneck: the two amount to one linear layer."
    )
    return Evidence(sentence, readings(seen, "idle dense layers", "hidden nonlinearities"), DECISIVE)


def _bend(seen: Observation) -> tuple[Remedy, ...]:
    """A ReLU behind each layer, or behind those that lack one."""
    if fact(seen, "hidden nonlinearities") == 0:
        return (insert_relu,)
    return (insert_relu_behind(*seen.names["idle dense layers"].split(", ")),)


def _advise_activation(seen: Observation) -> Advice:
    """One behind each."""
    idle = seen.names.get("idle dense layers", "")
    if idle and fact(seen, "hidden nonlinearities") != 0:
        return Advice(f"Put a ReLU behind {idle}, or take the layer out.", "x = nn.relu(nn.Dense(128)(x))")
    layers = fact(seen, "number of layers")
    return Advice(
        f"Put a ReLU behind each of the {layers:.0f} layers but the last.", "x = nn.relu(nn.Conv(32, (3, 3))(x))"
    )


CAUSES = (
    Cause(
        "init-scale-wrong",
        "the weights are drawn at a wrong scale",
        "architecture",
        *first_of(*(Way(evidence, lambda _: (redraw_parameters,), _advise_init) for evidence in (_loud, _off_scale))),
        "Each layer multiplies its signal by the scale of its weights. A network that starts sure and wrong spends its "
        "training on coming back; in one whose layers shrink their signals neither images nor gradients get through.",
        ("He, Zhang, Ren & Sun, Delving deep into rectifiers, ICCV 2015",),
        look_alikes=(
            "`inputs-not-scaled` starts with a huge loss too, but from wide inputs; here they are of a usual scale."
            " Such a network may still learn its training images, so only the trial says what it costs. Weights that"
            " are too small end like `updates-too-small`, since no gradient comes through."
        ),
        explains=("vanishing-signal",),
    ),
    Cause(
        "symmetric-init",
        "all units of a layer are copies",
        "architecture",
        _symmetric,
        lambda _: (redraw_parameters, redraw_everything),
        _advise_init,
        "Units with equal weights see equal gradients: a layer of a hundred copies is a layer of one.",
        ("Goodfellow, Bengio & Courville, Deep Learning, 2016, section 8.4",),
        look_alikes=(
            "A network that diverged ends with units that are alike too. So likeness is read before the first step:"
            " units that are drawn at random differ there, and copies do not."
        ),
    ),
    Cause(
        "cross-example-leak",
        "images of a batch feel each other",
        "architecture",
        _leaking,
        _set_apart,
        _advise_apart,
        "Where the batch axis is mixed with others, an image's outputs are made of its neighbours: training can"
        " memorise batches, and a new batch gets answers for other images.",
        ("Karpathy, A recipe for training neural networks, 2019",),
        look_alikes=(
            "`labels-unrelated-to-images` gives chance on new images after a perfect fit too, but there the outputs"
            " for an image depend on it alone. Batch normalisation couples images in training by design, so this is"
            " read in evaluation mode."
        ),
    ),
    Cause(
        "no-nonlinearity",
        "no activation between the layers",
        "architecture",
        _linear,
        _bend,
        _advise_activation,
        "A product of linear maps is a linear map: without activations depth adds nothing but parameters.",
        ("Goodfellow, Bengio & Courville, Deep Learning, 2016, section 6.1",),
        look_alikes=(
            "No curve gives it away: on easy images a linear network is nearly as good. The structure does. Where max"
            " pools stand between the layers, which bend a little, the evidence is weaker."
        ),
    ),
    Cause(
        "dead-units",
        "the units of a layer are dead",
        "architecture",
        _dead,
        _revive,
        _advise_alive,
        "A ReLU that is off for every image has no gradient, so nothing brings it back, and a layer of such units"
        " passes nothing on. GELU and SiLU end so too, far enough below zero.",
        ("Lu et al., Dying ReLU and initialization, 2019",),
        look_alikes=(
            "Units mostly die of something else: wide inputs, steps that are too large, sorted batches, destroyed"
            " images. They are named as a cause only where none of these speaks, where they were dead before the first"
            " step, and where outputs no longer depend on the image. Half of a dense layer may be off in a healthy"
            " network."
        ),
    ),
)
