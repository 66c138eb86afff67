"""Faults of what the model is fed."""

import math
from typing import NamedTuple

from cnnprobe.doctor.bands import healthy_band
from cnnprobe.doctor.causes.record import TINY, Advice, Cause, graded, graded_log, highest, lowest, readings, rising
from cnnprobe.doctor.looks.transfer import ways
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.doctor.remedies_data import read_valid_otherwise, standardise_inputs
from cnnprobe.types import Evidence, Problem, Reading, Remedy

SCALE_MARGIN = 4.0  # times the healthy band's edge: between the widest healthy inputs and raw bytes lie two decades
SAME_SCALE = 0.25  # between the images and what the first layer is fed; zeros that a model pads with change it a little
CROSSED_Z = 5.0  # standard errors that five ways to read images do not exceed by chance
REGAINED = 0.5  # of what is lost across the splits, that a way to read validation images must bring back
PLACES = ("within training", "across the splits", "across the splits, redone")


class Scale(NamedTuple):
    """Mean and standard deviation of some numbers."""

    mean: float
    std: float


def _scale(seen: Observation) -> Scale:
    """Of the images as the model gets them."""
    return Scale(fact(seen, "input mean"), fact(seen, "input standard deviation"))


def _scale_inside(seen: Observation) -> Scale:
    """Of what the first layer is fed, behind what the model does to its images; of the images where it leaves them."""
    inside = Scale(fact(seen, "first layer input mean"), fact(seen, "first layer input standard deviation"))
    return inside if _is_rescaled(seen) else _scale(seen)


def _is_rescaled(seen: Observation) -> bool:
    """Whether the model scales its images itself, as far as the trace tells."""
    inside = fact(seen, "first layer input standard deviation")
    return not (math.isnan(inside) or math.isclose(_scale(seen).std, inside, rel_tol=SAME_SCALE))


def _fed(seen: Observation) -> str:
    """The beginning of a sentence on the scale."""
    return "What the first layer is fed has" if _is_rescaled(seen) else "The inputs have"


def _inside_readings(seen: Observation) -> tuple[Reading, ...]:
    """The scale at the first layer, where the model changes it, beside the scale that healthy models are fed."""
    name = "first layer input standard deviation"
    return (Reading(name, _scale_inside(seen).std, healthy_band("input standard deviation")),) * _is_rescaled(seen)


def _standardise(seen: Observation) -> tuple[Remedy, ...]:
    """Mean 0 and standard deviation 1 where the first layer is fed, whatever affine map the model has in front."""
    given, inside = _scale(seen), _scale_inside(seen)
    if not (given.std > 0 and inside.std > 0):
        return ()
    shift = inside.mean * given.std / inside.std - given.mean  # the map adds this to the images, in their own scale
    return (standardise_inputs(given.mean + inside.std * shift, inside.std),)


def _advise_scaling(seen: Observation) -> Advice:
    """Numbers for the user's own `preprocess`."""
    (mean, std), inside = _scale(seen), _scale_inside(seen)
    if _is_rescaled(seen) and inside.std > 0:
        text = (
            f"Scale the images once, in front of the model or inside it: it is given a standard deviation of {std:.4g},"
            f" and feeds its first layer one of {inside.std:.4g}."
        )
        return Advice(text, f"images = images * {1 / inside.std:.5g}  # or take the scaling out of the model")
    text = (
        f"Bring the inputs to mean 0 and standard deviation 1; now they have mean {mean:.4g} and standard deviation"
        f" {std:.4g}."
    )
    return Advice(text, f"images = (images.astype(np.float32) - {mean:.5g}) / {std:.5g}")


def _too_large(seen: Observation) -> Evidence | None:
    """Inputs far wider than any healthy run's, which the model does not scale back itself."""
    std = _scale_inside(seen).std
    # A normalisation inside the model takes the scale away in training mode only, so the smaller of the two counts.
    loss = min(fact(seen, "initial loss ratio"), fact(seen, "first training loss ratio"))
    start = highest("input standard deviation", factor=SCALE_MARGIN)
    strength = graded_log(std, start, 4 * start)
    if not strength:
        return None
    largest = fact(seen, "input largest absolute value")
    and_they = ", and the inputs" if _is_rescaled(seen) else " and"
    sentence = f"{_fed(seen)} standard deviation {std:.3g}{and_they} reach {largest:.4g}"
    felt = graded_log(loss, highest("initial loss ratio"), 10 * highest("initial loss ratio"))
    sentence += f"; before any training the loss is {loss:.3g} times that of a blind guess." if felt else "."
    names = ("input standard deviation", "input largest absolute value", "initial loss ratio")
    return Evidence(sentence, (*readings(seen, *names), *_inside_readings(seen)), 0.6 * strength + 0.4 * felt)


def _too_small(seen: Observation) -> Evidence | None:
    """Inputs far narrower than any healthy run's, where the first layer is fed."""
    std = _scale_inside(seen).std
    start = lowest("input standard deviation", factor=1 / SCALE_MARGIN)
    strength = graded_log(std, start, start / 4)
    if not strength or fact(seen, "input mean over standard deviation") > highest(
        "input mean over standard deviation", factor=SCALE_MARGIN
    ):
        return None
    sentence = f"{_fed(seen)} standard deviation {std:.3g}: the images were scaled down twice."
    names = ("input standard deviation", "input largest absolute value", "initial input sensitivity")
    return Evidence(sentence, (*readings(seen, *names), *_inside_readings(seen)), strength)


def _offset(seen: Observation) -> Evidence | None:
    """A mean that drowns what differs between images."""
    ratio = fact(seen, "input mean over standard deviation")
    start = highest("input mean over standard deviation", factor=2.0)
    strength = graded_log(ratio, start, 2 * start)
    if not strength:
        return None
    sentence = (
        f"The mean of the inputs is {ratio:.3g} times their standard deviation, so every image looks alike to the"
        " first layer."
    )
    return Evidence(
        sentence,
        readings(seen, "input mean over standard deviation", "input mean", "initial input sensitivity"),
        strength,
    )


# --- validation -----------------------------------------------------------------------------------------------------


def _mismatched(seen: Observation) -> Evidence | None:
    """Validation images that are prepared otherwise than the training images."""
    return _scaled_otherwise(seen) or _read_otherwise(seen)


def _scaled_otherwise(seen: Observation) -> Evidence | None:
    """Another scale."""
    ratio, shift = fact(seen, "validation input std ratio"), fact(seen, "validation input mean shift")
    strength = max(
        graded_log(max(ratio, 1 / max(ratio, TINY)), 1.5, 3.0),
        rising(shift, 3 * highest("validation input mean shift"), 1.0),
    )
    if not strength:
        return None
    sentence = (
        f"Validation images have {ratio:.3g} times the standard deviation of training images, and their mean is "
        f"{shift:.3g} standard deviations away."
    )
    return Evidence(sentence, readings(seen, "validation input std ratio", "validation input mean shift"), strength)


def _read_otherwise(seen: Observation) -> Evidence | None:
    """What features learn from training images fails on validation images, and holds for these once they are redone."""
    within, across, redone = (fact(seen, f"accuracy of features {where}") for where in PLACES)
    lost, regained = (
        fact(seen, f"z of the accuracy {what}") for what in ("lost across the splits", "of redone images")
    )
    strength = min(graded(z, CROSSED_Z, 2 * CROSSED_Z) for z in (lost, regained))
    if not strength or redone - across < REGAINED * (within - across):
        return None
    sentence = (
        f"Simple features that are fitted on training images are right for {within:.0%} of such images, for"
        f" {across:.0%} of the validation images, and for {redone:.0%} of these {_way(seen)}."
    )
    return Evidence(sentence, readings(seen, *(f"accuracy of features {where}" for where in PLACES)), strength)


def _way(seen: Observation) -> str:
    """How the validation images would have to be read."""
    return seen.names.get("validation images redone", "")


def _same_preprocessing(problem: Problem) -> Problem:
    """Prepares validation images as the training images are."""
    return problem._replace(preprocess_valid=None)


def _same(seen: Observation) -> tuple[Remedy, ...]:
    """The preparation of training images; or validation images as they would have to be read."""
    own = (_same_preprocessing,) if seen.bench.problem.preprocess_valid else ()
    return (*own, read_valid_otherwise(ways(seen.bench)[_way(seen)])) if _read_otherwise(seen) else own


def _advise_same(seen: Observation) -> Advice:
    """One function for both."""
    text = "Prepare validation images with the very function, mean and standard deviation of the training images."
    if _scaled_otherwise(seen) or not _read_otherwise(seen):
        return Advice(text, "problem._replace(preprocess_valid=None)")
    return Advice(
        f"Read both splits by one function: validation images would have to be {_way(seen)} to go with the training"
        " images. Which of the two is right, a look at an image of each tells; what is deployed must read like both.",
        "images, valid_images = read(train_files), read(valid_files)  # one `read` for both",
    )


CAUSES = (
    Cause(
        "train-valid-mismatch",
        "validation images are prepared otherwise",
        "data",
        _mismatched,
        _same,
        _advise_same,
        "A network knows the scale, the order of channels and the way up that it was trained on; others are answered at"
        " random, however well it has learnt.",
        ("Breck et al., Data validation for machine learning, MLSys 2019",),
        look_alikes=(
            "`batch-statistics-mismatch` lowers validation accuracy too, but it shows on the training images as soon"
            " as they are evaluated; here only validation images are concerned. A ReLU network with small biases scales"
            " with its input, so its accuracy may hardly change: the scale of the images tells, not the accuracy. Class"
            " numbers that differ are `label-encoding`: no way to read the images mends them."
        ),
    ),
    Cause(
        "inputs-not-scaled",
        "the inputs are not scaled",
        "data",
        _too_large,
        _standardise,
        _advise_scaling,
        "The first layer's gradient grows with the inputs, and so does the curvature of the loss. A step size that"
        " suits inputs of unit scale overshoots by the square of the scale: units die at once, and the output bias"
        " chases the last batch.",
        ("LeCun, Bottou, Orr & Müller, Efficient BackProp, 1998, section 4.3",),
        is_textbook=True,
        look_alikes=(
            "`learning-rate-too-high` ends the same way: dead units, zero gradients, one class for every image. There"
            " the inputs have a usual standard deviation and the first loss is that of a blind guess; here both are off"
            " before the first step, and scaling the inputs helps as much as smaller steps do."
        ),
    ),
    Cause(
        "inputs-scaled-twice",
        "the inputs are scaled down twice",
        "data",
        _too_small,
        _standardise,
        _advise_scaling,
        "Inputs close to zero leave the outputs to the biases: gradients of the first layer shrink with the inputs,"
        " and training hardly moves.",
        ("LeCun, Bottou, Orr & Müller, Efficient BackProp, 1998, section 4.3",),
        look_alikes=(
            "`updates-too-small` learns as slowly, but from inputs of a usual scale and with small updates in every"
            " layer. Here the last layer is updated as in a healthy network, and another optimizer changes nothing."
        ),
    ),
    Cause(
        "inputs-offset",
        "a constant offset drowns the images",
        "data",
        _offset,
        _standardise,
        _advise_scaling,
        "When every input has the same large mean, all gradients of the first layer point the same way, and the"
        " direction that tells images apart is a thousand times flatter than the one that does not.",
        ("LeCun, Kanter & Solla, Second order properties of error surfaces, NIPS 1990",),
        look_alikes=(
            "`inputs-not-scaled` has large values too, but they differ from image to image. Here the mean is many"
            " times the standard deviation, and the outputs of the untrained network hardly depend on the image."
        ),
    ),
)
