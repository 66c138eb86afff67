"""Names a loss by its fingerprint: one decision list, in which the first rule that holds wins.

The healthy variants are named too, so that nobody takes label smoothing or a hinge for a fault.
"""

import math
from collections.abc import Callable

from cnnprobe.checks import check_integer
from cnnprobe.probes.fingerprint import LossFingerprint, loss_fingerprint

__all__ = ["HEALTHY_LOSSES", "LossFingerprint", "loss_fingerprint", "name_loss"]

HEALTHY_LOSSES = frozenset(
    {"cross-entropy", "smoothed cross-entropy", "focal", "one-vs-rest", "hinge", "squared-error"}
)  # squared error is slow for classes, not wrong


def name_loss(fingerprint: LossFingerprint, num_classes: int, *, min_recovers: float = 0.95) -> str:
    """The name of the loss, or of what is wrong with it.

    Healthy names are those of `HEALTHY_LOSSES`: "focal" stands for every cross-entropy with a modulating term, and
    "one-vs-rest" for binary cross-entropy per class, on sigmoids or on a softmax. The faults: "summed" (over the
    batch), "class-mean" (divided by the number of classes), "softmax-twice", "sigmoid-first", "tanh-first",
    "relu-first", "temperature", "log-of-logits" (a softmax is missing), "raw-nll", "negative-probability",
    "wrong-axis", "shifted-labels" (or labels in another order than the images), "labels-out-of-range",
    "broadcast", "negated", "no-gradient". "unknown" is healthy where `fingerprint.recovers` is at least `min_recovers`.
    A loss times a constant has the name that it has without, unless the constant is what is wrong with it.

    Raises:
      ValueError: `num_classes` is below 2.
    """
    check_integer("num_classes", num_classes, 2)
    width = fingerprint.num_units if fingerprint.num_units > 1 else num_classes
    rules = _RULES_FIRST + (_RULES if fingerprint.recovers < min_recovers else _RULES_WHERE_IT_RECOVERS)
    name = _first_that_holds(rules, fingerprint, width)
    if name != "unknown" or not 0 < fingerprint.uniform < math.inf:
        return name
    return _first_that_holds(rules, rescaled(fingerprint, math.log(width) / fingerprint.uniform), width)


def rescaled(fingerprint: LossFingerprint, factor: float) -> LossFingerprint:
    """The fingerprint of the loss times a constant."""
    return fingerprint._replace(**{field: factor * getattr(fingerprint, field) for field in _OF_SCALE})


def _no_gradient(f: LossFingerprint, _: int) -> bool:
    """Rounding, an argmax, or a softmax over a single unit."""
    return f.zero_gradient_share > 0.99


def _relu_first(f: LossFingerprint, num_classes: int) -> bool:
    """-50 became 0, so being wrong costs half; leaky slopes keep every gradient toward its label."""
    halved = _near(f.wrong, _SURE) and _small(f.floor, f.wrong) and _near(f.uniform, math.log(num_classes))
    return _width(f) > 1 and halved and 0.1 < f.toward_label_share < 0.9


def _negated(f: LossFingerprint, _: int) -> bool:
    """The right class costs more than a wrong one, and every number has the wrong sign."""
    return f.wrong < f.floor and f.uniform <= 1e-6


def _labels_out_of_range(f: LossFingerprint, num_classes: int) -> bool:
    """Rows without a label are all zeros (no gradient, no loss) or, by JAX's indexing, NaN at any logits."""
    if math.isnan(f.floor) and math.isnan(f.uniform) and math.isnan(f.wrong):
        return not f.failure
    lost = f.zero_gradient_share > 0.02 and f.uniform < 0.99 * math.log(num_classes)
    return lost and f.floor > 0.1 * f.wrong


def _log_of_logits(f: LossFingerprint, num_classes: int) -> bool:
    """The logarithm of a number near 0 that was never a probability."""
    steep = not f.uniform < 1.5 * math.log(num_classes)
    return steep and not f.floor > 0.01 * _SURE


def _broadcast(f: LossFingerprint, num_classes: int) -> bool:
    """Every example is held against every label: right and wrong cost alike, and gradients nearly cancel."""
    cancelled = f.gradient_at_zero < 0.5 * _gradient_of_cross_entropy(f, num_classes)
    return cancelled and f.floor > 0.2 * _SURE and _near(f.floor, f.wrong, 0.25)


def _shifted_labels(f: LossFingerprint, num_classes: int) -> bool:
    """A sound loss of labels that are not the ones given."""
    neighbour = min(f.next_class, f.previous_class)
    sound = _near(f.gradient_at_zero, _gradient_of_cross_entropy(f, num_classes), 0.1)
    return f.floor > 4 * abs(neighbour) or (sound and f.floor > 0.3 * _SURE)


def _summed(f: LossFingerprint, _: int) -> bool:
    """Twice the batch costs twice as much."""
    return _near(f.duplication, 2.0) and f.cross_example < 1e-3


def _wrong_axis(f: LossFingerprint, _: int) -> bool:
    """Examples feel each other."""
    return f.cross_example > 1e-3 or abs(f.duplication - 1) > 0.02


def _softmax_twice(f: LossFingerprint, num_classes: int) -> bool:
    """Logits between 0 and 1 cannot be sure of anything, however far the true logits go."""
    return _bounded_at(f, _floor_of_probabilities(f, num_classes)) and _width(f) > 1 and _shift_free(f)


def _sigmoid_first(f: LossFingerprint, num_classes: int) -> bool:
    """The same floor, but shifting an example's logits changes its loss."""
    return _bounded_at(f, _floor_of_probabilities(f, num_classes))


def _tanh_first(f: LossFingerprint, num_classes: int) -> bool:
    """Logits between -1 and 1."""
    gap, others = (1, 1) if _width(f) == 1 else (2, num_classes - 1)
    return _bounded_at(f, math.log1p(others * math.exp(-gap)))


def _temperature(f: LossFingerprint, num_classes: int) -> bool:
    """Cross-entropy of logits divided by a constant: far logits reach the floor of 0, near ones do not."""
    if not (_shift_free(f) and _near(f.uniform, math.log(num_classes))):
        return False
    slope = f.gradient_at_zero / _gradient_of_cross_entropy(f, num_classes)
    return (f.floor > 1e-3 and f.floor_far < 0.5 * f.floor) or not 0.5 <= slope <= 2


def _raw_nll(f: LossFingerprint, _: int) -> bool:
    """The logit itself with a minus sign: no floor at all."""
    return f.floor < 0 and _near(f.floor_far, 10 * f.floor) and _small(f.uniform, f.floor)


def _negative_probability(f: LossFingerprint, num_classes: int) -> bool:
    """Minus the probability, without its logarithm."""
    return f.floor < 0 and _near(f.floor_far, f.floor) and _near(f.uniform, f.floor / num_classes)


def _class_mean(f: LossFingerprint, num_classes: int) -> bool:
    """Cross-entropy divided by the number of classes."""
    uniform, wrong = math.log(num_classes) / num_classes, 2 * _SURE / num_classes
    return _width(f) > 1 and _shift_free(f) and _near(f.uniform, uniform) and _near(f.wrong, wrong)


def _cross_entropy(f: LossFingerprint, num_classes: int) -> bool:
    """Of any scale; or with a clipped or missing logarithm of 0, which changes only what sure mistakes cost."""
    if not (_shift_free(f) and _small(f.floor, f.uniform)):
        return False
    uniform, slope = math.log(num_classes), _gradient_of_cross_entropy(f, num_classes)
    scaled = _near(f.wrong / f.uniform, _gap(f) / uniform, 0.03)
    steep = _near(f.gradient_at_zero / f.uniform, slope / uniform, 0.03)
    return steep and (scaled or _near(f.uniform, uniform))


def _smoothed(f: LossFingerprint, num_classes: int) -> bool:
    """Being sure costs in proportion to how sure."""
    rising = 0 < f.floor < 0.5 * _gap(f) and _near(f.floor_far, 10 * f.floor, 0.05)
    return _shift_free(f) and rising and _near(f.uniform, math.log(num_classes), 0.03)


def _focal(f: LossFingerprint, _: int) -> bool:
    """Sure mistakes cost what they cost under cross-entropy; doubts do not."""
    return _shift_free(f) and _small(f.floor, f.uniform) and _near(f.wrong, _gap(f), 0.05)


def _one_vs_rest(f: LossFingerprint, num_classes: int) -> bool:
    """One binary cross-entropy per class, averaged or summed over classes."""
    if _shift_free(f):  # on the probabilities of a softmax
        doubt = (math.log(num_classes) - (num_classes - 1) * math.log1p(-1 / num_classes)) / num_classes
    else:
        doubt = math.log(2)
    return _small(f.floor, f.uniform) and (_near(f.uniform, doubt) or _near(f.uniform, num_classes * doubt))


def _hinge(f: LossFingerprint, num_classes: int) -> bool:
    """Margins of 1: over all wrong classes, over the worst one, or one per class."""
    if not (_small(f.floor, f.uniform) and f.uniform > 0):
        return False
    ratio = f.wrong / f.uniform
    if _width(f) == 1:
        return _near(ratio, _SURE + 1)
    margins = _near(ratio, (99 + num_classes) / (num_classes - 1), 0.05) or _near(ratio, 2 * _SURE + 1)
    return (margins and f.gradient_at_zero > 0.95 * f.uniform) or (
        not _shift_free(f) and _near(ratio, (2 * _SURE + 2) / num_classes)
    )


def _squared_error(f: LossFingerprint, _: int) -> bool:
    """Grows with the square of the logits; or on probabilities, where even a sure mistake costs little."""
    quadratic = f.floor > 0 and _near(f.floor_far, 100 * f.floor, 0.1)
    return quadratic or (_small(f.floor, f.uniform) and f.wrong < 4.2 * f.uniform)


def _first_that_holds(rules: "_Rules", fingerprint: LossFingerprint, width: int) -> str:
    """The name of the first rule that a fingerprint obeys."""
    return next((name for name, holds in rules if holds(fingerprint, width)), "unknown")


_OF_SCALE = ("floor", "floor_far", "uniform", "wrong", "next_class", "previous_class", "gradient_at_zero")
_SURE = 50.0  # the logit of the confident rows behind `floor` and `wrong`
_Rules = tuple[tuple[str, Callable[[LossFingerprint, int], bool]], ...]
_RULES_FIRST: _Rules = (("no-gradient", _no_gradient), ("relu-first", _relu_first))
_RULES: _Rules = (  # descent on the loss does not lead to the labels
    ("negated", _negated),
    ("labels-out-of-range", _labels_out_of_range),
    ("log-of-logits", _log_of_logits),
    ("broadcast", _broadcast),
    ("shifted-labels", _shifted_labels),
)
_RULES_WHERE_IT_RECOVERS: _Rules = (
    ("summed", _summed),
    ("wrong-axis", _wrong_axis),
    ("softmax-twice", _softmax_twice),
    ("sigmoid-first", _sigmoid_first),
    ("tanh-first", _tanh_first),
    ("temperature", _temperature),
    ("raw-nll", _raw_nll),
    ("negative-probability", _negative_probability),
    ("class-mean", _class_mean),
    ("cross-entropy", _cross_entropy),
    ("smoothed cross-entropy", _smoothed),
    ("hinge", _hinge),
    ("focal", _focal),
    ("one-vs-rest", _one_vs_rest),
    ("squared-error", _squared_error),
)


def _near(value: float, target: float, tolerance: float = 0.02) -> bool:
    """Whether two numbers agree to a share of the second; never for NaN."""
    return abs(value - target) <= tolerance * abs(target)


def _small(value: float, scale: float) -> bool:
    """Whether a number is nothing beside another."""
    return abs(value) <= 0.01 * abs(scale)


def _width(f: LossFingerprint) -> int:
    """Number of logits per example."""
    return max(f.num_units, 1)


def _gap(f: LossFingerprint) -> float:
    """Distance of the right logit from a wrong, sure one: what a sure mistake costs under cross-entropy."""
    return _SURE if _width(f) == 1 else 2 * _SURE


def _shift_free(f: LossFingerprint) -> bool:
    """Whether only differences of logits matter; a single logit is such a difference."""
    return _width(f) == 1 or f.shift < 1e-4


def _gradient_of_cross_entropy(f: LossFingerprint, num_classes: int) -> float:
    """Norm of (softmax - one-hot) at logits of 0."""
    return 0.5 if _width(f) == 1 else math.sqrt(1 - 1 / num_classes)


def _floor_of_probabilities(f: LossFingerprint, num_classes: int) -> float:
    """Cross-entropy of logits that are 1 on the right class and 0 elsewhere."""
    if _width(f) == 1:  # halves of the batch at logits of 1 and 0
        return (math.log1p(math.exp(-1)) + math.log(2)) / 2
    return math.log(math.e + num_classes - 1) - 1


def _bounded_at(f: LossFingerprint, floor: float) -> bool:
    """Whether surer logits bring the loss no lower than `floor`."""
    tolerance = 0.1 if _width(f) == 1 else 0.02  # a single unit's floor depends on the share of each class
    return _near(f.floor, floor, tolerance) and _near(f.floor_far, f.floor, 0.01)
