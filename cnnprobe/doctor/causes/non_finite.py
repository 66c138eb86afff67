"""A loss that is not a number."""

from cnnprobe.doctor.causes.record import Advice, Cause, Way, first_of, readings, rising
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.doctor.remedies import update_in_float32, use_cross_entropy
from cnnprobe.types import Evidence, Remedy

FEWEST_LOST = 3  # NaN steps at the end of a run, from which none is expected to be finite again
HALF = "float16 parameter share"


def _not_finite(seen: Observation) -> Evidence | None:
    """A loss that is NaN or infinite although the first forward pass was finite."""
    share = fact(seen, "non finite loss share")
    if not share > 0:
        return None
    sentence = (
        f"The loss is NaN or infinite in {share:.0%} of the steps, first in step"
        f" {fact(seen, 'first non finite step'):.0f}."
    )
    strength = 1.0 if _stays_non_finite(seen) else rising(share, 0.0, 0.1)
    return Evidence(sentence, readings(seen, "non finite loss share", "first non finite step"), strength)


def _not_finite_in_float16(seen: Observation) -> Evidence | None:
    """The same of parameters in float16, whose optimizer divides by what is zero in so few bits."""
    share, found = fact(seen, HALF), _not_finite(seen)
    if found is None or not share > 0:
        return None
    sentence = (
        f"{found.sentence} {share:.0%} of the parameters are float16: squares of gradients below 2e-4 are zero there,"
        " as is an epsilon of 1e-8."
    )
    return Evidence(sentence, (*found.readings, *readings(seen, HALF)), found.strength)


def _stays_non_finite(seen: Observation) -> bool:
    """Whether no step after the first such loss was finite again, and it was not one of the last few."""
    num_steps = fact(seen, "number of steps")
    rest = num_steps - fact(seen, "first non finite step")
    return rest >= FEWEST_LOST and fact(seen, "non finite loss share") * num_steps > rest - 0.5


def _finite_loss(seen: Observation) -> tuple[Remedy, ...]:
    """The fused loss, where the user's own is not finite even for constructed logits."""
    return (use_cross_entropy,) if fact(seen, "loss num nonfinite") > 0 else ()


def _finite_updates(seen: Observation) -> tuple[Remedy, ...]:
    """Updates in float32 first."""
    return (update_in_float32, *_finite_loss(seen))


PARAMETERS_IN_FLOAT32 = Advice(
    "Keep the parameters in float32, and compute in float16 what is large: the optimizer's averages need the range.",
    "nn.Conv(features, (3, 3), dtype=jnp.float16, param_dtype=jnp.float32)",
)


def _advise_finite(_: Observation) -> Advice:
    """Find the logarithm."""
    return Advice(
        "Look for a logarithm, square root or division whose argument reaches zero; use the fused losses, and guard"
        " the argument, not the result.",
        "jnp.log(jnp.where(p > 0, p, 1.0))",
    )


CAUSES = (
    Cause(
        "non-finite-loss",
        "the loss is not a number",
        "optimisation",
        *first_of(
            Way(_not_finite_in_float16, _finite_updates, lambda _: PARAMETERS_IN_FLOAT32),
            Way(_not_finite, _finite_loss, _advise_finite),
        ),
        "One NaN in a gradient makes every parameter NaN in the next step, and nothing brings it back.",
        (
            "Goldberg, What every computer scientist should know about floating-point arithmetic, 1991",
            "Micikevicius et al., Mixed precision training, ICLR 2018",
        ),
        shows_harm=_stays_non_finite,
        explains=("learning-rate-too-high", "updates-too-small"),
        look_alikes=(
            "`learning-rate-too-high` ends in NaN too, after a finite loss that jumps and parameters that grow. Here"
            " the loss is not finite for constructed scores that are surely wrong, the optimizer keeps its averages in"
            " float16, or the images hold NaN (`inputs-blank-or-corrupt`)."
        ),
    ),
)
