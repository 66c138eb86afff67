"""Training and validation images that were divided wrongly."""

import math

import numpy as np

from cnnprobe.doctor.bench import above_chance
from cnnprobe.doctor.causes.record import Advice, Cause, costs, graded, highest, readings, rising
from cnnprobe.doctor.harm import ENOUGH
from cnnprobe.doctor.looks.splits import occurs_in
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.doctor.remedies_data import divide_anew, keep_valid
from cnnprobe.types import Dataset, Evidence, Problem, Remedy

OVERLAP = 0.05  # share of the validation images; a handful of duplicates is in many data sets
MAX_BYTES = 3e8  # of images that a remedy may copy
FEWEST_LEFT = 20  # images to validate on
UNSHOWN = 0.4  # strength that makes no finding by itself


def _are_arrays(problem: Problem) -> bool:
    """Whether both splits are arrays that may be copied."""
    splits = (problem.train, problem.valid)
    return problem.batches is None and all(
        isinstance(split, Dataset) and np.asarray(split.images).nbytes < MAX_BYTES for split in splits
    )


# --- classes -------------------------------------------------------------------------------------------------------


def _missing(seen: Observation) -> Evidence | None:
    """Classes that one split has and the other lacks; labels that are written in two ways are another fault."""
    if fact(seen, "label out of range share") > 0 or fact(seen, "label non integer share") > 0:
        return None
    return _missing_from_training(seen) or _missing_from_validation(seen)


def _missing_from_training(seen: Observation) -> Evidence | None:
    """Validation images that no training could get right."""
    share, num = fact(seen, "validation share in missing classes"), fact(seen, "classes missing from training")
    if not num > 0:
        return None
    sentence = (
        f"No training image is of class {seen.names.get('classes missing from training', '')}, but {share:.0%} of the"
        " validation images are."
    )
    names = ("classes missing from training", "validation share in missing classes", "validation accuracy")
    return Evidence(sentence, readings(seen, *names), 0.5 + 0.5 * graded(share, 0.0, ENOUGH))


def _missing_from_validation(seen: Observation) -> Evidence | None:
    """Classes whose accuracy nobody sees; it stops no network from learning, so training must have gone well."""
    num = fact(seen, "classes missing from validation")
    if not (num > 0 and fact(seen, "training accuracy") > above_chance(seen.bench)):
        return None
    sentence = (
        f"No validation image is of class {seen.names.get('classes missing from validation', '')}, which the network is"
        " trained on: its accuracy there is not measured."
    )
    return Evidence(sentence, readings(seen, "classes missing from validation", "validation accuracy"), 0.5)


def _divide(seen: Observation) -> tuple[Remedy, ...]:
    """Both splits dealt anew, where training lacks a class: the other way round there is no accuracy to gain."""
    lacks = fact(seen, "classes missing from training") > 0
    return (divide_anew,) if lacks and _are_arrays(seen.bench.problem) else ()


def _advise_divide(seen: Observation) -> Advice:
    """Shuffle before dividing."""
    lost = [
        f"class {seen.names[f'classes missing from {split}']} is missing from {split}"
        for split in ("training", "validation")
        if fact(seen, f"classes missing from {split}") > 0
    ]
    text = f"Now {' and '.join(lost)}: shuffle before you divide, class by class (a stratified split)."
    snippet = "order = rng.permutation(len(labels)); valid, train = order[:num_valid], order[num_valid:]"
    return Advice(text, snippet)


# --- overlap -------------------------------------------------------------------------------------------------------


def _overlapping(seen: Observation) -> Evidence | None:
    """Validation images that the network was trained on."""
    share, owed = fact(seen, "validation overlap share"), fact(seen, "accuracy owed to the leak")
    start = max(OVERLAP, highest("validation overlap share", factor=1.5))
    strength = rising(share, start, 2 * start)
    if not strength:
        return None
    sentence = f"{share:.0%} of the validation images are training images too"
    if not math.isnan(owed):
        sentence += (
            f"; after {fact(seen, 'number of steps'):.0f} steps {fact(seen, 'accuracy on leaked images'):.0%} of those"
            f" are predicted right and {fact(seen, 'accuracy on fresh images'):.0%} of the others"
        )
    names = (
        "validation overlap share",
        "accuracy on leaked images",
        "accuracy on fresh images",
        "accuracy owed to the leak",
    )
    is_shown = math.isnan(owed) or _is_flattered(seen) or _are_arrays(seen.bench.problem)  # or it may be harmless
    return Evidence(f"{sentence}.", readings(seen, *names), 0.5 + 0.5 * strength if is_shown else UNSHOWN)


def _is_flattered(seen: Observation) -> bool:
    """Whether the accuracy that the owner reads is measured to be too high by what counts as harm."""
    return costs(seen, "accuracy owed to the leak")


def _keep_fresh(seen: Observation) -> tuple[Remedy, ...]:
    """Validation without the images that were seen in training, where that costs the owner's accuracy nothing.

    No trial can show what a leak does: without it the accuracy falls to the honest one. So where that fall is
    measured to be large there is nothing to try, and the finding rests on it; else the trial shows that it is small.
    """
    problem = seen.bench.problem
    if _is_flattered(seen) or not _are_arrays(problem):
        return ()
    assert isinstance(problem.train, Dataset)
    assert isinstance(problem.valid, Dataset)
    fresh = np.flatnonzero(~occurs_in(np.asarray(problem.train.images), np.asarray(problem.valid.images)))
    return (keep_valid(fresh),) if len(fresh) >= FEWEST_LEFT else ()


def _advise_fresh(seen: Observation) -> Advice:
    """What the accuracy really is, and how to divide."""
    honest, share = fact(seen, "accuracy on fresh images"), fact(seen, "validation overlap share")
    known = "" if math.isnan(honest) else f" On fresh images it was {honest:.0%} here."
    text = (
        f"Take the {share:.0%} of the validation images that are training images out: they measure memory.{known}"
        " Remove duplicates before you divide, and keep all copies of one image, all frames of one film and all"
        " images of one patient in the same split."
    )
    snippet = "fresh = [image.tobytes() not in {x.tobytes() for x in train_images} for image in valid_images]"
    return Advice(text, snippet)


CAUSES = (
    Cause(
        "class-missing-from-split",
        "a class is missing from one of the splits",
        "labels",
        _missing,
        _divide,
        _advise_divide,
        "The last fifth of a set that is sorted by class holds other classes than the rest. A network never names a"
        " class that it was never shown, so its validation accuracy says nothing of what it has learnt.",
        ("Breck et al., Data validation for machine learning, MLSys 2019",),
        look_alikes=(
            "`too-little-data` opens a gap between the splits too, but with every class in both. Labels that are"
            " written in two ways look like missing classes: that is `label-encoding`, and it is looked for first."
        ),
    ),
    Cause(
        "train-valid-overlap",
        "validation images are training images too",
        "generalisation",
        _overlapping,
        _keep_fresh,
        _advise_fresh,
        "A network does better on images that it was trained on. Validation on them hides overfitting, and every"
        " choice that is made by that accuracy is made blindly.",
        (
            "Kapoor & Narayanan, Leakage and the reproducibility crisis in machine-learning-based science, Patterns"
            " 2023",
            "Barz & Denzler, Do we train on test data?, Journal of Imaging 2020",
        ),
        is_harmful=_is_flattered,
        shows_harm=_is_flattered,
        harms_late=True,  # images flatter once they are learnt by heart
        stands_alone=True,
        look_alikes=(
            "No curve gives it away: a small gap between training and validation is what one hopes for. Comparing the"
            " images does, and the network is then right for the shared ones more often than for the others."
        ),
    ),
)
