"""Faults of the loss function itself: its axes, its shapes, its scale, and what its minimum is."""

import math

from cnnprobe.doctor.causes.loss import FINGERPRINT, is_over_axes
from cnnprobe.doctor.causes.record import Advice, Cause, graded, readings
from cnnprobe.doctor.looks.loss import NUM_CONSTRUCTED, RECOVERED
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.doctor.remedies import average_loss, scale_updates
from cnnprobe.doctor.remedies_network import reference_loss, softmax_over_classes
from cnnprobe.probes.losses import HEALTHY_LOSSES
from cnnprobe.types import Evidence, Remedy

FLAT = {  # losses that lead to the right class, slowly: name -> what they are
    "squared-error": "a squared error",
    "negative-probability": "a probability without its logarithm",
    "temperature": "a cross-entropy of scores that were divided by a constant",
}
COUPLED = 1e-3  # change of an example's gradient when only another example's scores change, past rounding
BLIND = "loss blind gradient"
AT_REST = 1e-3  # of the first gradient: rounding, and steps that end
LONGER = 5.0  # times the steps, where the mean is taken in the place of a sum
FEWEST_UNITS = 2  # outputs that a softmax can weigh against each other


def _fed(seen: Observation) -> str:
    """What the loss is on the outputs that it is given."""
    return seen.loss.name_fed_with(seen.names.get("outputs", "")) if seen.loss else ""


def _mend_loss(seen: Observation) -> tuple[Remedy, ...]:
    """Cross-entropy of what the model returns."""
    width = fact(seen, "output width")
    num_units = int(width) if math.isfinite(width) else seen.bench.num_classes
    return (reference_loss(seen.names.get("outputs", ""), num_units),)


def _advise_cross_entropy(_: Observation) -> Advice:
    """The fused loss."""
    return Advice(
        "Use softmax cross-entropy from logits, averaged over the batch.",
        "loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()",
    )


# --- axis ------------------------------------------------------------------------------------------------------------


def _wrong_axis(seen: Observation) -> Evidence | None:
    """A softmax over the images of the batch, at the end of the model or in the loss."""
    if is_over_axes(seen) and fact(seen, "cross example share") > 0:
        sentence = (
            f"The model ends in {seen.names['output activation']}, which runs over the images of the batch:"
            f" {fact(seen, 'cross example share'):.0%} of what moves an image's scores are other images."
        )
        return Evidence(sentence, readings(seen, "cross example share", "output row sum"), 1.0)
    uniform = fact(seen, "loss uniform")
    if _fed(seen) != "wrong-axis" or not fact(seen, "loss cross example") > COUPLED:
        return None
    # Scores of zero have a share of 1/n of the batch each, not of 1/K of the classes.
    over_batch = abs(uniform / math.log(NUM_CONSTRUCTED) - 1) < 0.02
    sentence = (
        "The loss of one image changes with the scores of others, and a batch repeated twice has"
        f" {fact(seen, 'loss duplication'):.2f} times the loss: its softmax runs over the images of the batch"
        f" (a blind guess costs {uniform:.2f}, ln of the classes is {math.log(seen.bench.num_classes):.2f})."
    )
    names = ("loss cross example", "loss duplication", "loss uniform")
    return Evidence(sentence, readings(seen, *names), 1.0 if over_batch else 0.6)


def _mend_axis(seen: Observation) -> tuple[Remedy, ...]:
    """The model's own softmax over classes; another loss where the loss is at fault."""
    if not is_over_axes(seen):
        return _mend_loss(seen)
    return (softmax_over_classes(is_probability_loss=bool(seen.loss and seen.loss.wants == "probabilities")),)


def _advise_axis(seen: Observation) -> Advice:
    """The last axis."""
    return Advice(
        f"Take the softmax over the axis of the {seen.bench.num_classes} classes, the last one.",
        "probabilities = jax.nn.softmax(logits, axis=-1)",
    )


# --- broadcast -------------------------------------------------------------------------------------------------------


def _broadcast(seen: Observation) -> Evidence | None:
    """Every image is held against every label."""
    reach = fact(seen, "label reach")
    # A loss that couples the images' scores lets a label reach others too: that is the axis' fault, or meant.
    strength = 0.0 if fact(seen, "loss cross example") > COUPLED else graded(reach, 0.75, 0.9)
    if not strength:
        return None
    swapped, paired = "the labels stand in another order", "shapes [batch] and [batch, 1] make a table of all pairs"
    sentence = (
        f"When the label of one image changes, {reach:.1%} of the change of the gradient falls on other images:"
        f" {swapped if reach > 1 - 0.5 / NUM_CONSTRUCTED else paired}."
    )
    return Evidence(sentence, readings(seen, "label reach", *FINGERPRINT), strength)


def _advise_shapes(seen: Observation) -> Advice:
    """Equal shapes."""
    size = seen.bench.problem.batch_size
    return Advice(
        f"Give scores and labels one shape before they are subtracted or multiplied: [{size}] with [{size}, 1] becomes"
        f" [{size}, {size}].",
        "labels = labels.reshape(-1); assert losses.shape == labels.shape",
    )


# --- family ----------------------------------------------------------------------------------------------------------


def _wrong_family(seen: Observation) -> Evidence | None:
    """A loss that has no gradient, whose minimum is not the right class, or that is nearly flat."""
    name, width = _fed(seen), fact(seen, "output width")
    if seen.loss is None or not width >= FEWEST_UNITS:
        return None
    if name == "no-gradient":
        sentence = "The loss has no gradient at all: it counts or rounds, so no update can follow it."
        return Evidence(sentence, readings(seen, "loss zero gradient share", *FINGERPRINT), 1.0)
    if _is_blind(seen) and width == seen.bench.num_classes:
        sentence = (
            "This loss comes to rest where every image has the same scores, and does not ask for the right class: its"
            f" gradient there is {fact(seen, BLIND):.2g} an image, against"
            f" {fact(seen, 'loss gradient at zero'):.2g} where training starts."
        )
        return Evidence(sentence, readings(seen, BLIND, *FINGERPRINT), 1.0)
    recovers = fact(seen, "loss recovers")
    # Embeddings have another width than classes, and losses that need no right class.
    if name == "unknown" and recovers < RECOVERED and seen.loss.wants == "neither" and width == seen.bench.num_classes:
        sentence = f"Descent on this loss brings only {recovers:.0%} of free scores to the right class."
        return Evidence(sentence, readings(seen, *FINGERPRINT), 0.8)
    slope, reference = fact(seen, "loss gradient at zero"), math.sqrt(1 - 1 / seen.bench.num_classes)
    if name not in FLAT or slope > reference:
        return None
    sentence = (
        f"The loss is {FLAT[name]}: where training starts its gradient is {slope:.2g} an image, against"
        f" {reference:.2g} of cross-entropy."
    )
    return Evidence(sentence, readings(seen, *FINGERPRINT), 0.8)


def _is_blind(seen: Observation) -> bool:
    """Whether a network that looks at no image can have all that the loss has to give."""
    is_named = _fed(seen) not in (*HEALTHY_LOSSES, "unknown")  # what else is wrong with it is another cause
    share = AT_REST / math.sqrt(seen.bench.num_classes)  # of many classes all but a few are right without a look
    return not is_named and fact(seen, BLIND) < share * fact(seen, "loss gradient at zero")


# --- sum instead of mean ---------------------------------------------------------------------------------------------


def _summed(seen: Observation) -> Evidence | None:
    """A loss that doubles when the batch is repeated."""
    ratio = fact(seen, "loss duplication")
    if not 1.9 < ratio < 2.1:
        return None
    batch = seen.bench.problem.batch_size
    sentence = (
        f"A batch repeated twice has {ratio:.2f} times the loss: it is summed, so a batch of {batch} takes steps"
        f" {batch} times as long."
    )
    return Evidence(sentence, readings(seen, "loss duplication", "loss uniform", "largest loss ratio"), 0.9)


def _average(_: Observation) -> tuple[Remedy, ...]:
    """The mean; and the mean with longer steps, since those that were bearable for a sum may be short for it."""
    return (average_loss, lambda problem: scale_updates(LONGER)(average_loss(problem)))


def _advise_mean(seen: Observation) -> Advice:
    """Average."""
    return Advice(
        "Average the loss over the batch instead of summing it, or divide the step size by"
        f" {seen.bench.problem.batch_size}.",
        "loss = losses.mean()  # not losses.sum()",
    )


CAUSES = (
    Cause(
        "softmax-over-wrong-axis",
        "the softmax runs over the images",
        "loss",
        _wrong_axis,
        _mend_axis,
        _advise_axis,
        "A softmax over the batch weighs images against each other and not classes: each class is asked which image"
        " is its best, and what an image gets depends on those beside it.",
        ("Humbatova et al., Taxonomy of real faults in deep learning systems, ICSE 2020",),
        look_alikes=(
            "`loss-summed-not-averaged` depends on the batch too, but in exact proportion, and no image feels another."
            " `cross-example-leak` mixes images inside the layers; here the layers are sound, and the last softmax"
            " mixes. In large mixed batches it may cost little: then it is a warning."
        ),
    ),
    Cause(
        "loss-broadcast-bug",
        "labels are broadcast over the batch",
        "loss",
        _broadcast,
        _mend_loss,
        _advise_shapes,
        "An array of shape [batch] beside one of shape [batch, 1] becomes a table of all pairs. The mean over it asks"
        " every image for the average label, and the best answer is the same for all.",
        ("Harris et al., Array programming with NumPy, Nature 2020, on broadcasting",),
        look_alikes=(
            "`labels-unrelated-to-images` holds the loss at that of a blind guess too, but there perfect scores cost"
            " nothing. Here no scores please every label at once: changing the label of one image moves the gradient of"
            " others."
        ),
    ),
    Cause(
        "wrong-loss-family",
        "the loss is of the wrong family",
        "loss",
        _wrong_family,
        _mend_loss,
        _advise_cross_entropy,
        "Cross-entropy pulls hardest where the network is surely wrong. A squared error of probabilities is flat"
        " there, and a count of mistakes is flat everywhere.",
        ("Golik, Doetsch & Ney, Cross-entropy vs. squared error training, Interspeech 2013",),
        look_alikes=(
            "`updates-too-small` is as slow, but a blind guess costs ln K there. A squared error of ten probabilities"
            " costs 0.09, and its gradient is a fiftieth of that of cross-entropy. Focal and one-against-rest losses"
            " are of another scale too, and lead to the right class: they are healthy."
        ),
    ),
    Cause(
        "loss-summed-not-averaged",
        "the loss is summed over the batch",
        "loss",
        _summed,
        _average,
        _advise_mean,
        "A sum has gradients as many times larger as the batch has images, so a step size chosen for a mean"
        " overshoots by that factor.",
        ("Goyal et al., Accurate, large minibatch SGD, 2017, section 2",),
        explains=("learning-rate-too-high",),
        look_alikes=(
            "`learning-rate-too-high` ends the same way, and smaller steps help in both. Here a batch repeated twice"
            " costs twice as much, and the first loss is the size of the batch times that of a blind guess."
        ),
    ),
)
