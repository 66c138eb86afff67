"""Faults of the head: outputs that are not what the loss reads."""

import jax

from cnnprobe.doctor.causes.record import Advice, Cause, readings
from cnnprobe.doctor.looks.loss import BOUNDED
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.doctor.remedies import (
    log_of,
    logit_of,
    map_outputs,
    remove_output_activation,
    use_cross_entropy,
)
from cnnprobe.types import Evidence, Remedy

FINGERPRINT = ("loss floor", "loss uniform", "loss wrong", "loss gradient at zero", "loss recovers")
OVER_AXES = ("softmax[", "log_softmax[")  # how the trace names a softmax over another axis than the last
INSIDE = {
    "sigmoid-first": "sigmoid",
    "tanh-first": "tanh",
    "relu-first": "relu",
}  # name of a loss -> what it does first


def _wants(seen: Observation) -> str:
    """What the loss wants to be fed; empty where it was not read."""
    return seen.loss.wants if seen.loss else ""


def _name(seen: Observation) -> str:
    """What the loss is when it is fed logits."""
    return seen.names.get("loss of logits", "")


def _outputs(seen: Observation) -> str:
    """What the model's outputs look like."""
    return seen.names.get("outputs", "")


def is_over_axes(seen: Observation) -> bool:
    """Whether the model ends in a softmax over another axis than the classes."""
    return seen.names.get("output activation", "").startswith(OVER_AXES)


# --- softmax twice ---------------------------------------------------------------------------------------------------


def _softmax_twice(seen: Observation) -> Evidence | None:
    """Probabilities fed to a loss that takes their softmax, or a loss that takes it twice."""
    if _name(seen) == "softmax-twice":
        sentence = (
            f"The loss cannot fall below {fact(seen, 'loss floor'):.3f} even for perfect logits: it takes a softmax"
            " of a softmax."
        )
        return Evidence(sentence, readings(seen, *FINGERPRINT), 1.0)
    if _outputs(seen) == "probabilities" and _wants(seen) == "logits" and seen.bench.num_classes > 1:
        sentence = (
            "The model's outputs are probabilities (each row sums to 1), but the loss takes the softmax of what it is"
            " given."
        )
        return Evidence(sentence, readings(seen, "output row sum", *FINGERPRINT), 1.0)
    return None


def _undo_softmax(seen: Observation) -> tuple[Remedy, ...]:
    """The logarithm of probabilities has them as its softmax; two softmaxes inside the loss need another loss."""
    return (use_cross_entropy,) if _name(seen) == "softmax-twice" else (map_outputs(log_of),)


def _advise_once(seen: Observation) -> Advice:
    """Keep one of the two."""
    where = "in the loss" if _name(seen) == "softmax-twice" else "at the end of the model"
    return Advice(
        f"Return logits: drop the softmax {where}, and take it for predictions only.",
        "return logits  # not softmax(logits)",
    )


# --- other activations of the output ---------------------------------------------------------------------------------


def _squashed(seen: Observation) -> Evidence | None:
    """Scores that an activation has bounded before the softmax of the loss."""
    inside = INSIDE.get(_name(seen))
    if inside:
        sentence = (
            f"The loss applies {inside} to the scores before their softmax: fed perfect scores it stays at"
            f" {fact(seen, 'loss floor'):.3f}."
        )
        return Evidence(sentence, readings(seen, *FINGERPRINT), 0.9)
    kind = _outputs(seen)
    softmax_loss = (kind == "sigmoid" and _name(seen) == "one-vs-rest") or _name(seen) in (
        "cross-entropy",
        "smoothed cross-entropy",
        "focal",
        "class-mean",
        "summed",
    )
    if kind not in BOUNDED or not softmax_loss:
        return None
    sentence = (
        f"The model's last operation is {kind}, so its scores run from {fact(seen, 'output min'):.3g} to"
        f" {fact(seen, 'output max'):.3g}; a softmax needs free ones."
    )
    return Evidence(sentence, readings(seen, "output min", "output max", "output zero share"), 0.9)


def _free_scores(seen: Observation) -> tuple[Remedy, ...]:
    """Take the activation out of the model, undo it before the loss, or replace the loss."""
    if _name(seen) in INSIDE:
        return (use_cross_entropy,)
    undo = (map_outputs(logit_of),) if _outputs(seen) == "sigmoid" else ()
    return (remove_output_activation, *undo)


def _advise_free(seen: Observation) -> Advice:
    """No activation behind the last layer."""
    kind = INSIDE.get(_name(seen)) or _outputs(seen)
    return Advice(f"Let the last layer be linear: drop the {kind} behind it.", f"return logits  # not {kind}(logits)")


# --- missing softmax -------------------------------------------------------------------------------------------------


def _bare_scores(seen: Observation) -> Evidence | None:
    """Logits fed to a loss that reads probabilities."""
    raw = _name(seen) in ("log-of-logits", "raw-nll", "negative-probability")
    is_number = fact(seen, "output width") == 1 and seen.bench.num_classes > 2  # a count or a grade, read by `predict`
    is_bare = _outputs(seen) in ("logits", "relu") and not is_over_axes(seen) and not is_number
    if not (is_bare and _wants(seen) != "logits" and (raw or _wants(seen) == "probabilities")):
        return None
    sentence = (
        f"The loss reads probabilities, but the model's outputs are raw scores from {fact(seen, 'output min'):.3g} to"
        f" {fact(seen, 'output max'):.3g}: most of its gradient is cut off by the logarithm's clip or points nowhere."
    )
    return Evidence(sentence, readings(seen, "output row sum", "loss zero gradient share", *FINGERPRINT), 1.0)


def _add_softmax(seen: Observation) -> tuple[Remedy, ...]:
    """A softmax before the loss where that makes it healthy; cross-entropy from logits else."""
    softmax = jax.nn.sigmoid if fact(seen, "output width") == 1 else jax.nn.softmax
    return (map_outputs(softmax),) if _wants(seen) == "probabilities" else (use_cross_entropy,)


def _advise_softmax(_: Observation) -> Advice:
    """Use the fused loss."""
    return Advice(
        "Use a loss that takes logits, which is also exact where a probability is tiny.",
        "loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()",
    )


CAUSES = (
    Cause(
        "softmax-applied-twice",
        "the softmax is applied twice",
        "loss",
        _softmax_twice,
        _undo_softmax,
        _advise_once,
        "A softmax of probabilities can never be sure: its largest value is e / (e + K - 1). The loss has a floor"
        " above zero and its gradient is ten times smaller where training starts.",
        ("Bridle, Probabilistic interpretation of feedforward classification network outputs, 1990",),
        look_alikes=(
            "`updates-too-small` falls as slowly, but perfect scores cost nothing there. Here they cost ln(e + K - 1)"
            " - 1, which is 1.46 for ten classes, however large they are. Scores that are divided by a constant have"
            " that floor at first, and lose it when they grow."
        ),
    ),
    Cause(
        "wrong-output-activation",
        "an activation bounds the scores",
        "loss",
        _squashed,
        _free_scores,
        _advise_free,
        "A softmax turns differences of scores into odds; a bounded score bounds the odds, and a ReLU leaves half of"
        " the scores without a gradient.",
        ("Goodfellow, Bengio & Courville, Deep Learning, 2016, section 6.2.2",),
        look_alikes=(
            "`softmax-applied-twice` has the floor of a sigmoid, but there the outputs of an image sum to 1. A ReLU on"
            " the scores is told by exact zeros among the outputs, and by a loss without a gradient where all scores"
            " are zero."
        ),
    ),
    Cause(
        "missing-softmax",
        "the loss wants probabilities and gets raw scores",
        "loss",
        _bare_scores,
        _add_softmax,
        _advise_softmax,
        "The logarithm of a raw score is clipped or undefined: most images give no gradient at all, and the others"
        " push one score without holding the rest.",
        ("Goodfellow, Bengio & Courville, Deep Learning, 2016, section 6.2.2",),
        look_alikes=(
            "Dead units (`learning-rate-too-high`) leave most gradients at zero too. Here the loss itself has none for"
            " most images even on constructed scores, and equal scores do not cost ln K: the loss is at fault, and no"
            " network was needed to see it."
        ),
    ),
)
