"""Training that works on images that are too few."""

import math

import numpy as np

from cnnprobe.data.sampling import num_examples
from cnnprobe.doctor.causes.record import Advice, Cause, always, graded, highest, no_remedy, readings
from cnnprobe.doctor.harm import ENOUGH
from cnnprobe.doctor.learning_curve import FITTED
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.types import Evidence

GAP, MARGIN = "generalisation gap", 1.2  # of the largest healthy one


def more_images_help(seen: Observation) -> bool:
    """Whether training images are fitted, and the second half of them was measured to help with others."""
    slope, error = fact(seen, "gain from doubling the images"), fact(seen, "error of the gain from doubling")
    return fact(seen, "training accuracy") > FITTED and slope >= ENOUGH and not slope < error


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
        _too_few,
        no_remedy,
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
