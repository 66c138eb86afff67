"""Faults of what the model is fed."""

import math
from typing import NamedTuple

import numpy as np

from cnnprobe.data.sampling import num_examples, sample
from cnnprobe.doctor.bands import healthy_band
from cnnprobe.doctor.causes.record import TINY, Advice, Cause, graded, graded_log, highest, lowest, readings, rising
from cnnprobe.doctor.harm import ENOUGH, ERRORS, LARGE, NOT_DECISIVE
from cnnprobe.doctor.looks.passes import PAIRED_Z, TOLD_Z
from cnnprobe.doctor.looks.transfer import ways
from cnnprobe.doctor.observation import Observation, fact, pairing_z
from cnnprobe.doctor.progress import BEHIND, has_learnt
from cnnprobe.doctor.remedies_data import keep_examples, prepare_anew, read_valid_otherwise, standardise_inputs
from cnnprobe.types import Dataset, Evidence, Problem, Reading, Remedy

SCALE_MARGIN = 4.0  # times the healthy band's edge: between the widest healthy inputs and raw bytes lie two decades
REPEATED = 0.9  # share of repeats that no oversampling of rare classes reaches
SAME_SCALE = 0.25  # between the images and what the first layer is fed; zeros that a model pads with change it a little
CROSSED_Z = 5.0  # standard errors that five ways to read images do not exceed by chance
REGAINED = 0.5  # of what is lost across the splits, that a way to read validation images must bring back
PLACES = ("within training", "across the splits", "across the splits, redone")
FEW = 256  # images whose mean and standard deviation stand for all
FEWEST_LEFT = 10  # sound images a class, below which nothing is left to train on


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


def _sound(seen: Observation) -> np.ndarray | None:
    """Rows of the whole training set that are finite and not blank; None where it is not held as arrays."""
    train = seen.bench.problem.train
    if not isinstance(train, Dataset) or seen.bench.problem.batches is not None:
        return None
    rows = np.asarray(train.images).reshape(len(train.images), -1)
    with np.errstate(invalid="ignore"):
        is_finite = np.isfinite(rows.sum(axis=1, dtype=np.float64))
        return np.flatnonzero(is_finite & (rows.max(axis=1) != rows.min(axis=1)))


def _drop_broken(seen: Observation) -> tuple[Remedy, ...]:
    """Training without the broken images, where enough others are left."""
    kept = _sound(seen)
    if kept is None or not FEWEST_LEFT * seen.bench.num_classes <= len(kept) < num_examples(seen.bench.problem.train):
        return ()
    return (keep_examples(kept),)


def _corrupt(seen: Observation) -> Evidence | None:
    """Images that `preprocess` robs of what they carry, or that carry nothing."""
    return _spoilt(seen) or _blank(seen) or _dimmed(seen)


def _spoilt(seen: Observation) -> Evidence | None:
    """Labels that images tell as they are stored, and that `preprocess` hides from features and network."""
    own, stored = pairing_z(seen), pairing_z(seen, of="stored ")
    if not stored > TOLD_Z or not _is_prepared(seen) or _reads_prepared(seen):
        return None
    strength = graded(own, PAIRED_Z + 1, 2.0)
    if not strength:
        return None
    sentence = (
        f"Features find the labels of the stored images {stored:.0f} standard deviations better than chance, and those"
        f" of what `preprocess` makes of them {own:.1f}."
    )
    names = ("pixel neighbours z", "random features z", "stored pixel neighbours z", "stored random features z")
    return Evidence(sentence, readings(seen, *names), strength)


def _dimmed(seen: Observation) -> Evidence | None:
    """Labels that features tell less often from what `preprocess` makes of the images than from the stored ones.

    A crop or fewer bits may be wanted, and the network may read what features cannot: the remedy has to gain.
    """
    own, stored = fact(seen, "random features accuracy"), fact(seen, "stored random features accuracy")
    error = math.sqrt(2 * stored * (1 - stored) / max(fact(seen, "images read"), 1.0)) if stored <= 1 else math.nan
    if not _is_prepared(seen) or not stored - own >= max(ENOUGH, ERRORS * error):
        return None
    sentence = (
        f"Simple features tell {stored:.0%} of the labels from the stored images and {own:.0%} from what `preprocess`"
        " makes of them."
    )
    names = ("stored random features accuracy", "random features accuracy", "validation accuracy")
    return Evidence(sentence, readings(seen, *names), NOT_DECISIVE * graded(stored - own, 0.0, LARGE))


def _by_preprocess(seen: Observation) -> bool:
    """Whether it is `preprocess` that takes something from the images."""
    return _spoilt(seen) is not None or (_blank(seen) is None and _dimmed(seen) is not None)


def _learns_nothing_of_it(seen: Observation) -> bool:
    """Whether `preprocess` hides the labels, and the network has not found them either."""
    return _spoilt(seen) is not None and not has_learnt(seen)


def _is_prepared(seen: Observation) -> bool:
    """Whether it is `preprocess` that stands between stored images and those that the model is fed."""
    return seen.bench.problem.batches is None and seen.bench.problem.preprocess is not None


def _reads_prepared(seen: Observation) -> bool:
    """Whether the network itself gets as far on prepared images as features do on stored ones, or not far from it."""
    chance = 1 / seen.bench.num_classes
    reached = fact(seen, "validation accuracy") - chance
    return seen.bench.has_valid and reached >= BEHIND * (fact(seen, "stored random features accuracy") - chance)


def _as_stored(seen: Observation) -> tuple[Remedy, ...]:
    """The stored images, brought to mean 0 and standard deviation 1, where the model takes images of their shape."""
    bench = seen.bench
    stored = np.asarray(sample(bench.problem.train, FEW, seed=0, seconds=bench.read_seconds).images, np.float32)
    shape = bench.train.images.shape[1:]
    is_taken = stored.shape[1:] in (shape, shape[:-1]) and shape[-1:] in (stored.shape[-1:], (1,))
    return (prepare_anew(float(stored.mean()), float(stored.std()), shape),) if is_taken and stored.std() > 0 else ()


def _blank(seen: Observation) -> Evidence | None:
    """Images that carry nothing: not finite, of one colour, or all the same."""
    broken = {
        "are not finite": fact(seen, "input nonfinite share"),
        "are of one single value": fact(seen, "input blank share"),
        "repeat another image": 1.0 - fact(seen, "input distinct share"),
    }
    strengths = {
        "are not finite": rising(broken["are not finite"], 0.0, 0.3),
        "are of one single value": rising(broken["are of one single value"], highest("input blank share") + 0.05, 0.35),
        "repeat another image": rising(broken["repeat another image"], REPEATED, 0.98),
    }
    worst = max(strengths, key=lambda what: strengths[what])
    if not strengths[worst]:
        return None
    names = ("input nonfinite share", "input blank share", "input distinct share")
    sentence = f"{broken[worst]:.1%} of the images that the model is fed {worst}."
    return Evidence(sentence, readings(seen, *names), max(strengths[worst], 0.9 if worst == "are not finite" else 0.0))


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


def _restore(seen: Observation) -> tuple[Remedy, ...]:
    """The sound images, or all of them as they are stored."""
    return _as_stored(seen) if _by_preprocess(seen) else _drop_broken(seen)


def _advise_blank(seen: Observation) -> Advice:
    """Where to look."""
    if _by_preprocess(seen):
        return Advice(
            "Look at an image before and after `preprocess`: whole numbers wrap around where a mean is subtracted from"
            " them, and vanish where they are divided as such, so cast to floats first; a reshape in the place of a"
            " transpose mixes pixels. If it is meant to hide something, such as a mark on the images, that was what"
            " told their labels.",
            "images = (images.astype(np.float32) - mean) / std  # the cast comes first",
        )
    return Advice(
        "Look at a batch as the model gets it, after every cast and division: an integer division, a wrong dtype or"
        " an unread file leaves nothing to learn from.",
        "images, labels = next(iter(loader)); print(images.dtype, images.min(), images.max(),"
        " images.std(axis=0).mean())",
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
        "inputs-blank-or-corrupt",
        "the images are blank or corrupt",
        "data",
        _corrupt,
        _restore,
        _advise_blank,
        "A network can only learn what differs between its inputs; constant images give constant outputs, and one NaN"
        " pixel makes every parameter NaN in a single step.",
        ("Zhang, Chen, Cheung & Xu, An empirical study on TensorFlow program bugs, ISSTA 2018",),
        shows_harm=_learns_nothing_of_it,
        look_alikes=(
            "A network that `learning-rate-too-high` has killed ends with the same zero gradients, but it did not"
            " start with them. Blank images give them before the first step, and neither another loss, optimizer nor"
            " network helps."
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
