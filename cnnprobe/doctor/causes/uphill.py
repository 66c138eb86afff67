"""Updates that go up the gradient."""

import math

import optax

from cnnprobe.doctor.causes.record import Advice, Cause, graded, readings
from cnnprobe.doctor.causes.updates import REFERENCE, own_rule
from cnnprobe.doctor.harm import DECISIVE
from cnnprobe.doctor.looks.run import uphill_leaves
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.doctor.remedies import negate_loss, scale_updates
from cnnprobe.doctor.remedies_network import train_held
from cnnprobe.types import Evidence, Remedy


def _uphill(seen: Observation) -> Evidence | None:
    """Updates along the gradient, or a loss whose minimum is the wrong answer."""
    if seen.names.get("loss of logits") == "negated":
        sentence = "The loss is smaller for wrong answers than for right ones: its sign is turned round."
        return Evidence(sentence, readings(seen, "loss floor", "loss wrong"), 1.0)
    if _climbs_in_part(seen):
        return _partly_uphill(seen)
    cosine = fact(seen, "update cosine")
    if not cosine < 0:
        return None
    ratio = fact(seen, "end loss ratio")
    rise = "" if math.isnan(ratio) else f", and the loss rises {ratio:.3g}-fold"
    sentence = f"Updates point up the gradient (cosine {cosine:.2f} with the way down){rise}."
    return Evidence(sentence, readings(seen, "update cosine", "largest loss ratio"), graded(-cosine, 0.0, 0.1))


def _climbs_in_part(seen: Observation) -> bool:
    """Whether some parameters climb, while others descend."""
    return fact(seen, "uphill parameter share") > 0 and fact(seen, "update cosine of the others") > 0


def _partly_uphill(seen: Observation) -> Evidence:
    """Which ones they are."""
    share = fact(seen, "uphill parameter share")
    sentence = (
        f"{share:.1%} of the parameters ({seen.names.get('uphill', '')}) are moved straight up their own gradient in"
        " most steps, while the others go down."
    )
    return Evidence(sentence, readings(seen, "uphill parameter share", "update cosine"), DECISIVE)


def _turn_round(seen: Observation) -> tuple[Remedy, ...]:
    """The other sign; for parameters that climb alone, no updates, or those of the user's own rule."""
    if seen.names.get("loss of logits") == "negated":
        return (negate_loss,)
    if not _climbs_in_part(seen) or seen.run is None:
        return (scale_updates(-1.0),)
    climbing = tuple(bool(climbs) for climbs in uphill_leaves(seen.run))
    return train_held(climbing, optax.set_to_zero()), train_held(climbing, own_rule(seen) or REFERENCE)


def _advise_sign(seen: Observation) -> Advice:
    """The other sign, or the masks of the optimizer."""
    if _climbs_in_part(seen):
        return Advice(
            f"Say what is to become of {seen.names.get('uphill', 'these parameters')}: `optax.masked` hands gradients"
            " outside of its mask through as they are, and they are added.",
            'optax.multi_transform({"train": optimizer, "freeze": optax.set_to_zero()}, labels)',
        )
    return Advice(
        "Turn the sign of the update: optax updates are added to the parameters, and the loss is minimised.",
        "params = optax.apply_updates(params, updates)  # updates already hold -learning_rate * gradient",
    )


CAUSES = (
    Cause(
        "update-goes-uphill",
        "the updates go uphill",
        "optimisation",
        _uphill,
        _turn_round,
        _advise_sign,
        "A step along the gradient raises the loss; accuracy falls below chance because the network learns to avoid"
        " the right answer.",
        ("Nocedal & Wright, Numerical Optimization, 2006, section 2.2",),
        explains=("learning-rate-too-high",),
        look_alikes=(
            "`learning-rate-too-high` raises the loss too, but along updates that point down: a hundredth of the step"
            " would lower it. Here the smallest step raises it, and accuracy falls below chance."
        ),
    ),
)
