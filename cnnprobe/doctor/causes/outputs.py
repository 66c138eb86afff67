"""Faults of the shape of the outputs: scores that are not one for each class, or not one row for each image."""

import numpy as np

from cnnprobe.doctor.causes.metric import UNNAMED
from cnnprobe.doctor.causes.record import Advice, Cause, readings
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.doctor.progress import has_learnt
from cnnprobe.doctor.remedies import add_head, pool_to_cross_entropy
from cnnprobe.types import Evidence, Remedy

UNSURE = 0.4  # strength that a proved gain alone makes a finding of


def _wrong_width(seen: Observation) -> Evidence | None:
    """Another number of scores than classes."""
    width, classes = fact(seen, "output width"), seen.bench.num_classes
    is_binary = width == 1 and classes == 2 and not seen.names.get("output activation", "").startswith("softmax")
    if width == classes or is_binary or fact(seen, "number of outputs") != 1 or seen.bench.train.ids is None:
        return None
    sentence = f"The model returns {width:.0f} scores for each image, but there are {classes} classes."
    strength = 1.0 if width < classes else 0.5
    if seen.bench.problem.predict is not None and has_learnt(seen):  # cumulative scores of ordered classes are fewer
        if fact(seen, UNNAMED) > 0:  # a new head would have another metric, and gain by that
            return None
        strength = UNSURE
    return Evidence(sentence, readings(seen, "output width", "output zero share"), strength)


def _new_head(seen: Observation) -> tuple[Remedy, ...]:
    """A dense layer with the right number of scores."""
    return (add_head(seen.bench.num_classes),)


def _advise_width(seen: Observation) -> Advice:
    """The right number."""
    classes = seen.bench.num_classes
    if seen.bench.problem.predict is not None and fact(seen, "output width") == classes - 1:
        return Advice(
            f"If the {classes - 1} scores are thresholds of an order, let `predict` count those that are passed; if"
            f" each stands for a class, the last layer lacks one of {classes} units.",
            f"predict=lambda outputs: (outputs > 0).sum(axis=-1)  # or nn.Dense({classes})",
        )
    return Advice(f"Give the last layer {classes} units, one for each class.", f"nn.Dense({classes})")


# --- missing flatten -------------------------------------------------------------------------------------------------


def _unflattened(seen: Observation) -> Evidence | None:
    """A map of scores where one row for each image is wanted."""
    if not fact(seen, "output places") > 1 or np.ndim(seen.bench.train.labels) > 2:
        return None
    sentence = (
        f"The model returns {seen.names['output shape']} for {seen.names['image shape']} images: a map of scores, not"
        " one row for each image."
    )
    return Evidence(sentence, readings(seen, "output rank", "output places"), 1.0)


def _flattened(seen: Observation) -> tuple[Remedy, ...]:
    """A dense layer on the whole map, or the average of the scores over its places."""
    return (add_head(seen.bench.num_classes), pool_to_cross_entropy)


def _advise_flatten(seen: Observation) -> Advice:
    """Flatten or pool."""
    return Advice(
        f"Flatten or pool the last map before the dense layer; its output has shape {seen.names['output shape']} now.",
        "x = x.reshape(len(x), -1)  # or x.mean(axis=(1, 2))",
    )


CAUSES = (
    Cause(
        "missing-flatten",
        "the last map is not flattened",
        "loss",
        _unflattened,
        _flattened,
        _advise_flatten,
        "A dense layer acts on the last axis alone. On a map it gives a score for each place, and the loss is"
        " broadcast over them or fails.",
        ("Nikanjam, Ben Braiek, Morovati & Khomh, Automatic fault detection for deep learning programs, TOSEM 2021",),
        look_alikes=(
            "A network that pools its last map gives one row for each image and is sound, though its dense layer sees"
            " channels alone. The shape of the outputs decides, not the number of parameters."
        ),
    ),
    Cause(
        "output-units-not-classes",
        "the outputs are not the classes",
        "loss",
        _wrong_width,
        _new_head,
        _advise_width,
        "With fewer scores than classes some classes can never be predicted; a softmax over a single score is always"
        " 1 and has no gradient.",
        ("Humbatova et al., Taxonomy of real faults in deep learning systems, ICSE 2020",),
        look_alikes=(
            "`dead-units` and `learning-rate-too-high` give constant outputs too, but as many scores as there are"
            " classes. A softmax over a single score is 1 for every image, so the gradient is zero from the first step"
            " although all units are alive."
        ),
    ),
)
