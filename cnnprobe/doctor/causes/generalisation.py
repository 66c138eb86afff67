"""Training that works on images that are too few."""

import math

import numpy as np

from cnnprobe.data.sampling import num_examples
from cnnprobe.doctor.causes.record import Advice, Cause, always, graded, highest, readings
from cnnprobe.doctor.harm import ENOUGH, NOT_DECISIVE
from cnnprobe.doctor.learning_curve import FITTED
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.doctor.remedies_data import train_as_stored
from cnnprobe.types import Evidence, Remedy

SERVED = 0.5, 0.2  # of the different images stored; of draws with replacement a whole set's worth leaves 0.63
GAP, MARGIN = "generalisation gap", 1.2  # of the largest healthy one


def more_images_help(seen: Observation) -> bool:
    """Whether training images are fitted, and the second half of them was measured to help with others."""
    slope, error = fact(seen, "gain from doubling the images"), fact(seen, "error of the gain from doubling")
    return fact(seen, "training accuracy") > FITTED and slope >= ENOUGH and not slope < error


def _few(seen: Observation) -> Evidence | None:
    """A loader that hands out a few of many images, or a measured slope that says that more images would help."""
    return _few_served(seen) or _too_few(seen)


def _few_served(seen: Observation) -> Evidence | None:
    """Far fewer different images from the loader than are stored."""
    served, stored = fact(seen, "different images served"), fact(seen, "different images stored")
    strength = NOT_DECISIVE * graded(served / max(stored, 1.0), *SERVED)
    if not strength:
        return None
    sentence = (
        f"The loader's first {fact(seen, 'images read'):.0f} images are {served:.0f} different ones, over and over,"
        f" where as many draws from those stored are {stored:.0f}."
    )
    return Evidence(sentence, readings(seen, "different images served", "different images stored"), strength)


def _serve_all(seen: Observation) -> tuple[Remedy, ...]:
    """The stored images in place of the loader's few."""
    return (train_as_stored,) if _few_served(seen) else ()


def _too_few(seen: Observation) -> Evidence | None:
    """A measured slope that says that more images would help."""
    start = highest(GAP, factor=MARGIN)
    if not (fact(seen, GAP) > start and more_images_help(seen)):
        return None
    slope, error = fact(seen, "gain from doubling the images"), fact(seen, "error of the gain from doubling")
    strength = 0.5 + 0.5 * graded(fact(seen, GAP), start, start + 0.3)
    spread = "" if math.isnan(error) else f" ± {100 * error:.0f}"
    per_class = num_examples(seen.bench.problem.train) / seen.bench.num_classes
    sentence = (
        f"With {per_class:.0f} images a class the network reaches {fact(seen, 'training accuracy'):.0%} on them and"
        f" {fact(seen, 'validation accuracy'):.0%} on others; from half the images to all of them that rose by"
        f" {100 * slope:.0f}{spread} points."
    )
    names = (GAP, "training accuracy", "validation accuracy", "gain from doubling the images")
    return Evidence(sentence, readings(seen, *names), strength)


def _advise_data(seen: Observation) -> Advice:
    """More images, or what stands in for them."""
    if _few_served(seen):
        return Advice(
            f"The loader hands out {fact(seen, 'different images served'):.0f} images of"
            f" {num_examples(seen.bench.problem.train)}: look at where a batch starts, and at what an epoch goes over.",
            "for start in range(0, len(images) - batch_size + 1, batch_size):",
        )
    reached = fact(seen, "validation accuracy") + fact(seen, "gain from doubling the images")
    text = (
        f"Optimisation works. Twice the images should bring about {np.clip(reached, 0, 1):.0%}; augmentation, a"
        " smaller network or pretrained features stand in for them."
    )
    return Advice(text, "problem._replace(augment=compose(random_flip, random_shift))")


CAUSES = (
    Cause(
        "too-little-data",
        "too few images for this network",
        "generalisation",
        _few,
        _serve_all,
        _advise_data,
        "A network with more parameters than images can fit them without finding what they have in common.",
        ("Hestness et al., Deep learning scaling is predictable, empirically, 2017",),
        is_harmful=always,
        look_alikes=(
            "`labels-unrelated-to-images` fits its training images and nothing else too, but neighbours cannot find"
            " its labels. `train-valid-mismatch` and `class-missing-from-split` open the gap for reasons of their own."
            " Here half of the images give measurably less than all of them."
        ),
    ),
)
