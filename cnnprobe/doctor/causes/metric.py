"""A metric that does not say how good the outputs are."""

from cnnprobe.doctor.causes.record import Advice, Cause, always, graded, no_remedy, readings
from cnnprobe.doctor.harm import ENOUGH, LARGE
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.types import Evidence

UNNAMED, NEVER = "share of images your metric cannot name", "class your metric never gives"
ERRORS = 3.0  # standard errors that the difference must exceed


def _wrong(seen: Observation) -> Evidence | None:
    """A `predict` that is right less often than the outputs, or that cannot be right."""
    return _misleading(seen) or _mute(seen)


def _mute(seen: Observation) -> Evidence | None:
    """A class that the user's `predict` never gives, whatever the outputs are."""
    share = fact(seen, UNNAMED)
    if not share >= ENOUGH:
        return None
    sentence = (
        f"The problem's `predict` gives class {fact(seen, NEVER):.0f} to none of thousands of outputs of any sign and"
        f" size that were made up for it, and to no image; {share:.0%} of the validation images are of such a class."
    )
    return Evidence(sentence, readings(seen, UNNAMED), 0.5 + 0.5 * graded(share, 0.0, ENOUGH))


def _misleading(seen: Observation) -> Evidence | None:
    """The user's `predict` is right far less often than the largest score.

    A threshold that was moved for a rare class trades accuracy for balanced accuracy, so both must be lost.
    """
    lost, error = fact(seen, "accuracy lost by your metric"), fact(seen, "error of the accuracy lost by your metric")
    if not min(lost, fact(seen, "balanced accuracy lost by your metric")) >= max(ENOUGH, ERRORS * error):
        return None
    own, right = fact(seen, "accuracy by your metric"), fact(seen, "accuracy of the outputs")
    sentence = (
        f"By the problem's `predict` {own:.0%} of {len(seen.bench.valid.images)} images are predicted right; the"
        f" {_rule(seen)} of the same outputs is right for {right:.0%}."
    )
    names = ("accuracy by your metric", "accuracy of the outputs", "metric agreement")
    return Evidence(sentence, readings(seen, *names), 0.5 + 0.5 * graded(lost, ENOUGH, LARGE))


def _rule(seen: Observation) -> str:
    """How the doctor itself reads the outputs."""
    return "right side of the threshold" if fact(seen, "output width") == 1 else "largest"


def _advise(seen: Observation) -> Advice:
    """How to read the outputs."""
    if not _misleading(seen):
        return Advice(
            f"Follow outputs that mean class {fact(seen, NEVER):.0f} through `predict`, and see where another class"
            " comes out: an `argmin` or `argmax` of conditions gives 0 where none of them differs.",
            "predict=lambda outputs: (outputs > 0).sum(axis=-1)  # of thresholds that are passed one after the other",
        )
    own, right = fact(seen, "accuracy by your metric"), fact(seen, "accuracy of the outputs")
    if fact(seen, "output width") == 1:
        threshold = 0.5 if seen.names.get("outputs") in ("sigmoid", "probabilities") else 0
        rule, snippet = (
            f"hold the output against {threshold}",
            f"predict=lambda outputs: (outputs[:, 0] > {threshold}).astype(int)",
        )
    else:
        rule, snippet = "take the largest output of each image", "predict=lambda outputs: outputs.argmax(axis=-1)"
    text = f"The network is right for {right:.0%}, not {own:.0%}: {rule}, along the axis of the classes."
    return Advice(text, snippet)


CAUSES = (
    Cause(
        "metric-bug",
        "the reported accuracy is not the accuracy",
        "generalisation",
        _wrong,
        no_remedy,  # training is sound: no trial could gain
        _advise,
        "The network learns, and a wrong threshold, axis or class order in the metric hides it. What is then changed"
        " in the network to mend the number can only harm it.",
        ("Humbatova et al., Taxonomy of real faults in deep learning systems, ICSE 2020",),
        is_harmful=always,
        stands_alone=True,
        look_alikes=(
            "Every fault of training spoils the outputs; here the outputs are right and the reported number is not. A"
            " threshold that was moved on purpose for a rare class trades accuracy for balanced accuracy: the finding"
            " needs both to be lost."
        ),
    ),
)
