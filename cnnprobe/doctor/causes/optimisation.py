"""Faults of the size of the updates."""

import math

from cnnprobe.doctor.causes.record import (
    Advice,
    Cause,
    Way,
    first_of,
    graded,
    graded_log,
    highest,
    lowest,
    readings,
    rising,
)
from cnnprobe.doctor.causes.updates import REFERENCE as ADAM
from cnnprobe.doctor.causes.updates import own_rule
from cnnprobe.doctor.harm import NOT_DECISIVE
from cnnprobe.doctor.learning_curve import FITTED
from cnnprobe.doctor.looks.optimizer import RESTS
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.doctor.progress import LEARNT, has_learnt, is_solved
from cnnprobe.doctor.remedies import replace_optimizer, scale_updates
from cnnprobe.types import Evidence, Remedy

FEWEST_UPDATES = 3  # before the steps can be said to end: gradients may be gathered over many steps
FEW_UPDATES = 100.0, 25.0  # of a whole training, in which healthy networks have learnt little
MANY_BATCHES = 8  # an update, from which gradients are gathered on purpose or by mistake
KEPT, MUCH_KEPT = "past gradients kept", (0.5, 0.9)  # sound optimizers of ten kinds keep less than .2 (tests)
STRIDE = "update over gradient"
LATE = "log10 of late over early step"
MOST_PATIENCE = 1.0  # decades by which a long training excuses small steps
REFERENCE = replace_optimizer(ADAM)
ADVICE_REFERENCE = "optimizer = optax.adam(1e-3)"


# --- too large -------------------------------------------------------------------------------------------------------


def _overshooting(seen: Observation) -> Evidence | None:
    """A loss that jumps far above its start, or a network that died while it was trained."""
    jump, zeros = fact(seen, "largest loss ratio"), fact(seen, "last zero gradient share")
    start = highest("largest loss ratio", factor=1.3)
    # A loss that is not finite in its first step was never finite: the step size has no part in it.
    broken = fact(seen, "first non finite step") > 0
    strength = max(
        graded_log(jump, start, 4 * start),
        rising(zeros, max(0.8, highest("last zero gradient share")), 0.98) if _may_have_died(seen) else 0.0,
        graded(fact(seen, "log10 of update over parameter"), highest("log10 of update over parameter") + 0.2, 0.0),
        rising(fact(seen, "non finite loss share"), 0.0, 0.1) if broken else 0.0,
        _strides(seen),
    )
    if not strength:
        return None
    names = (
        "collapse index",
        "largest loss ratio",
        "last zero gradient share",
        "dead unit share",
        "log10 of update over parameter",
        STRIDE,
        "non finite loss share",
    )
    return Evidence(_what_overshoots(seen, is_broken=broken, is_high=jump > start), readings(seen, *names), strength)


def _strides(seen: Observation) -> float:
    """How far steps along the gradient are longer than healthy ones, where nothing was learnt by them.

    How long they may be is a matter of the loss and the network, so that only a trial can tell.
    """
    if seen.names.get("update rule") != "slope" or has_learnt(seen) or not fact(seen, "end loss ratio") > LEARNT:
        return 0.0
    start = highest(STRIDE, factor=3.0)
    return NOT_DECISIVE * graded_log(fact(seen, STRIDE), start, 3 * start)


def _may_have_died(seen: Observation) -> bool:
    """Whether gradients came in the beginning, and the network is not as good as its data allow.

    There is no gradient either where a margin is asked for and every image has it.
    """
    return fact(seen, "first zero gradient share") < 0.7 and not is_solved(seen)


def _what_overshoots(seen: Observation, *, is_broken: bool, is_high: bool) -> str:
    """What was measured of it: of a recorded run perhaps the loss alone."""
    jump, zeros = fact(seen, "largest loss ratio"), fact(seen, "last zero gradient share")
    ratio, clauses = fact(seen, "log10 of update over parameter"), []
    if is_broken:
        clauses.append("the loss becomes NaN or infinite")
    elif is_high:
        clauses.append(f"the loss reaches {jump:.3g} times its start or that of a blind guess")
    if not math.isnan(ratio):
        clauses.append(f"a step changes the kernels by 10^{ratio:.1f} of their size")
    if _strides(seen) > 0:
        clauses.append(f"a step goes {fact(seen, STRIDE):.2g} times its gradient, and the loss ends where a guess is")
    if not math.isnan(zeros):
        clauses.append(f"at the end {zeros:.0%} of all gradient entries are exactly zero")
    sentence = "; ".join(clauses)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _step_size(seen: Observation) -> str:
    """The user's, as code; a name where it is not known."""
    size = fact(seen, "step size")
    return f"{size:.3g}" if size > 0 else "step_size"


def _adding_up(seen: Observation) -> Evidence | None:
    """An optimizer in which gradients stay, so that each step goes as far as all of them together."""
    kept = fact(seen, KEPT)
    strength = NOT_DECISIVE * graded(kept, *MUCH_KEPT)
    if not strength:
        return None
    sentence = (
        f"Of what past gradients do to a step {kept:.0%} is left after {sum(RESTS)} steps without any: the optimizer"
        " adds them up and forgets too little of them."
    )
    return Evidence(sentence, readings(seen, KEPT, "step size", "log10 of update over parameter"), strength)


def _advise_clearing(seen: Observation) -> Advice:
    """A memory that fades."""
    adam, sgd = f"adam({_step_size(seen)}, b1=0.9, b2=0.999)", f"sgd({_step_size(seen)}, momentum=0.9)"
    return Advice(
        "Clear what was gathered after each update, or let it fade: a momentum of 1 keeps every gradient for ever, and"
        " of Adam's two betas the first is the smaller one.",
        f"optimizer = optax.{adam if seen.names.get('update rule') == 'sign' else sgd}",
    )


def _smaller(seen: Observation) -> tuple[Remedy, ...]:
    """The user's own optimizer with smaller steps; the reference too where only a trial can tell that they are long."""
    return _steps(0.1, 0.01, 0.001) + ((REFERENCE,) if _strides(seen) > 0 else ())


def _advise_smaller(_: Observation) -> Advice:
    """Smaller steps."""
    return Advice(
        "Take smaller steps: divide the step size by ten and look again.",
        "optimizer = optax.chain(optimizer, optax.scale(0.1))",
    )


# --- too small -------------------------------------------------------------------------------------------------------


def _gathering(seen: Observation) -> Evidence | None:
    """Gradients gathered over so many batches that the whole training makes a few updates."""
    updates, steps = fact(seen, "number of updates"), fact(seen, "number of steps")
    batches = steps / updates if 0 < updates <= steps else math.nan
    strength = NOT_DECISIVE * graded_log(fact(seen, "steps of the whole training") / batches, *FEW_UPDATES)
    is_over = fact(seen, "training accuracy") > FITTED or fact(seen, "last update") < steps / 2
    if not strength or is_over or not batches >= MANY_BATCHES:
        return None
    sentence = (
        f"The parameters move in {updates:.0f} of {steps:.0f} steps, once in {batches:.0f} batches, which leaves"
        f" {fact(seen, 'steps of the whole training') / batches:.0f} updates to the whole training."
    )
    return Evidence(sentence, readings(seen, "number of updates", "number of steps"), strength)


def _ending(seen: Observation) -> Evidence | None:
    """Steps that become far shorter than their gradients ask for, before the images are fitted."""
    late, start = fact(seen, LATE), lowest(LATE) - 1.0
    # Schedules that are meant to may end with short steps: only where nothing moves at all, that speaks for itself.
    strength = min(graded(late, start, start - 0.7), 1.0 if late == -math.inf else NOT_DECISIVE)
    is_fitted = fact(seen, "training accuracy") > FITTED
    if not strength or is_fitted or fact(seen, "number of updates") < FEWEST_UPDATES:
        return None
    last, num_steps = fact(seen, "last update"), fact(seen, "number of steps")
    sentence = (
        f"No parameter moves after step {last:.0f} of {num_steps:.0f}."
        if late == -math.inf
        else f"For the same gradient a step of the second half is 10^{late:.1f} times as long as one of the first."
    )
    return Evidence(sentence, readings(seen, LATE, "end loss ratio"), strength)


def _creeping(seen: Observation) -> Evidence | None:
    """Updates so small beside the parameters that the run could not get anywhere."""
    ratio, start = fact(seen, "log10 of update over parameter"), lowest("log10 of update over parameter") - 0.3
    # A training many times as long as the probed run may get there with steps as much smaller.
    patience = math.log10(max(fact(seen, "steps of the whole training") / max(fact(seen, "number of steps"), 1.0), 1.0))
    owed = _owed_to_the_loss(seen) + _owed_to_growth(seen)
    strength = graded(ratio + min(patience, MOST_PATIENCE) + owed, start, start - 0.7)
    # Of units that have died updates are small too: that is another fault's doing.
    has_died = max(fact(seen, "first zero gradient share"), fact(seen, "last zero gradient share")) > 0.95
    if not strength or has_died:
        return None
    sentence = (
        f"A step changes the parameters by a factor of 10^{ratio:.1f} of their size; healthy runs change them by"
        f" 10^{lowest('log10 of update over parameter'):.1f} or more."
    )
    return Evidence(
        sentence, readings(seen, "log10 of update over parameter", "end loss ratio", "end input sensitivity"), strength
    )


def _owed_to_the_loss(seen: Observation) -> float:
    """Decades by which updates are small because the loss is flat, where they grow with its gradient."""
    slope, usual = fact(seen, "loss gradient at zero"), lowest("loss gradient at zero")
    is_felt = seen.names.get("update rule") == "slope" and 0 < slope < usual
    return math.log10(usual / slope) if is_felt else 0.0


def _owed_to_growth(seen: Observation) -> float:
    """Decades by which updates are small beside parameters that have grown beyond health: steps too large do that."""
    growth = fact(seen, "parameter growth") / highest("parameter growth")
    return math.log10(growth) if 1 < growth < math.inf else 0.0


def _missing_decades(seen: Observation) -> int:
    """Powers of ten between the size of the steps and the middle of the healthy sizes; 0 where nothing moves at all."""
    name = "log10 of update over parameter"
    decades = (lowest(name) + highest(name)) / 2 - fact(seen, name)
    return round(decades) if math.isfinite(decades) else 0


def _own_anew(seen: Observation) -> tuple[Remedy, ...]:
    """The user's own rule, without what gathers its gradients or ends its steps, where it is known."""
    own = own_rule(seen)
    return (replace_optimizer(own),) if own else ()


def _update_often(seen: Observation) -> tuple[Remedy, ...]:
    """An update for every batch."""
    return (*_own_anew(seen), REFERENCE)


def _go_on(seen: Observation) -> tuple[Remedy, ...]:
    """Steps of the first size to the end; the reference too where they end at nothing."""
    own = _own_anew(seen)
    return own if own and fact(seen, LATE) > -math.inf else (*own, REFERENCE)


def _larger(seen: Observation) -> tuple[Remedy, ...]:
    """The user's own optimizer with steps of a healthy size; the reference where a factor does not help."""
    decades = _missing_decades(seen)
    return (*_steps(10.0**decades), REFERENCE) if decades > 0 else (REFERENCE,)


FEWER_BATCHES = Advice(
    "Gather gradients over fewer batches: the number that `MultiSteps` takes is one of batches, not of images, and each"
    " update waits for as many.",
    "optimizer = optax.MultiSteps(optimizer, every_k_schedule=batch_size_wanted // batch_size)",
)


def _advise_longer(seen: Observation) -> Advice:
    """A schedule of the length of the training."""
    whole = fact(seen, "steps of the whole training")
    length = f"{whole:.0f}" if math.isfinite(whole) else "num_epochs * batches_per_epoch"
    return Advice(
        "The steps run out while there is much left to learn. Look for a schedule that is given in epochs what it"
        " counts in updates.",
        f"optax.cosine_decay_schedule({_step_size(seen)}, decay_steps={length})",
    )


def _advise_larger(seen: Observation) -> Advice:
    """Larger steps, and where the factor may hide."""
    decades = _missing_decades(seen)
    much = f", 10^{decades} times these" if decades > 0 else ""
    return Advice(
        f"Take larger steps{much}. If the step size itself looks right, look for gradient clipping, a large epsilon,"
        f" or a schedule near zero (an update is {fact(seen, STRIDE):.2g} times its gradient).",
        f"optimizer = optax.chain(optimizer, optax.scale(1e{decades}))" if decades > 0 else ADVICE_REFERENCE,
    )


def _steps(*factors: float) -> tuple[Remedy, ...]:
    """The user's own optimizer with other step sizes."""
    return tuple(scale_updates(factor) for factor in factors)


CAUSES = (
    Cause(
        "learning-rate-too-high",
        "the steps are too large",
        "optimisation",
        *first_of(
            Way(_adding_up, _update_often, _advise_clearing),
            Way(_overshooting, _smaller, _advise_smaller),
        ),
        "Above twice the inverse of the largest curvature a step ends higher than it began. One such step can push"
        " every ReLU of a layer below zero for all images; then only the output bias still moves, and it follows the"
        " labels of the last batch.",
        (
            "LeCun, Bottou, Orr & Müller, Efficient BackProp, 1998, section 5",
            "Lu et al., Dying ReLU and initialization, 2019",
        ),
        look_alikes=(
            "`inputs-not-scaled` and `loss-summed-not-averaged` end the same way. There the scale of the inputs, or"
            " the loss of a repeated batch, is wrong before the first step; here both are right, and the loss jumps in"
            " training. Neither large updates nor dead units alone are enough: healthy networks have both. Gradients"
            " that are never cleared add up to such steps; the optimizer is asked for steps without any."
        ),
    ),
    Cause(
        "updates-too-small",
        "the steps are too small",
        "optimisation",
        *first_of(
            Way(_gathering, _update_often, lambda _: FEWER_BATCHES),
            Way(_ending, _go_on, _advise_longer),
            Way(_creeping, _larger, _advise_larger),
        ),
        "The network stays where it was drawn: an untrained network predicts one class for nearly everything.",
        ("Bengio, Practical recommendations for gradient-based training of deep architectures, 2012, section 2.1.1",),
        look_alikes=(
            "An untrained network has the same readings, so the number of steps counts. `parameters-not-updated` does"
            " not move some parameters at all; here all move too little. `inputs-scaled-twice` is slow because of its"
            " inputs. The size of an update beside its gradient tells whether the step size, a clip, an epsilon or the"
            " schedule is to blame; a schedule that is over too soon shows in how that size falls."
        ),
    ),
)
