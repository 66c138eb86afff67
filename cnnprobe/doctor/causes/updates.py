"""Faults of what the optimizer makes of gradients: updates that never come, forget, or pull back."""

import math

import numpy as np
import optax

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
from cnnprobe.doctor.looks.run import EDGE, HELD, frozen_leaves, held_kernels
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.doctor.progress import BASELINE, has_learnt, is_behind
from cnnprobe.doctor.remedies import replace_optimizer, restore_gradients, weaken_penalty
from cnnprobe.doctor.remedies_network import remove_decay, same_rule, train_held, train_stored
from cnnprobe.types import Evidence, Remedy

REFERENCE = optax.adam(1e-3)
AS_DRAWN = (0.8, 1.15)  # spectral edges of kernels of independent entries
FEW_HELD = 0.05  # share of the weights: filters that are meant to be fixed are small
PENALTY = "penalty share of a gradient"
MOST_CUT = 0.5  # of the parameters
LONG_STILL = 100  # steps without any update, from which none is waited for: gradients may be gathered first
LITTLE_GROWTH = 0.1  # of the logarithm of the parameters, that a decay of the wrong sign may bring unnoticed
WEAKER = 1000  # times: from a decay that outweighs the data to one of the usual size
SIGN_LIKE = 0.8  # share of equal steps after a dozen of them, from which they are those of a first step


def _rule(seen: Observation) -> str:
    """What a first step of the user's optimizer is like."""
    return seen.names.get("update rule", "")


def own_rule(seen: Observation) -> optax.GradientTransformation | None:
    """An optimizer of the user's rule and first step size; None where they are not known."""
    has_memory = fact(seen, "optimizer state numbers") > 0
    return same_rule(_rule(seen), fact(seen, "step size"), has_memory=has_memory)


# --- frozen ----------------------------------------------------------------------------------------------------------


def _cut_off(seen: Observation) -> Evidence | None:
    """Parameters that no step has moved, as no gradient reaches them though their layer's activations are alive."""
    why = "their gradient is zero though their layers are active"
    return _unmoved(seen, why) if _is_cut(seen) else None


def _left_still(seen: Observation) -> Evidence | None:
    """Parameters that no step has moved, though gradients reach them."""
    return None if _is_cut(seen) else _unmoved(seen, "the optimizer does not move them")


def _is_cut(seen: Observation) -> bool:
    """Whether gradients are missing, and not only updates."""
    return fact(seen, "cut gradient share") > 0


def _unmoved(seen: Observation, why: str) -> Evidence | None:
    """Parameters that no step has moved."""
    share = fact(seen, "frozen parameter share")
    few = fact(seen, "number of updates") == 1 or fact(seen, "initial dead unit share") > 0.95
    if not share > highest("frozen parameter share") + 0.01 or few:
        return None
    sentence = f"{share:.0%} of the parameters never move ({seen.names.get('frozen', '')}): {why}."
    is_still = fact(seen, "number of updates") == 0 and fact(seen, "number of steps") >= LONG_STILL
    # What nothing moves cannot learn, while held features may be wanted.
    strength = 1.0 if is_still or _starves(seen) else 0.8
    return Evidence(sentence, readings(seen, "frozen parameter share", "cut gradient share"), strength)


def _starves(seen: Observation) -> bool:
    """Whether no gradient reaches most parameters, and the others get nowhere with what these make of the images.

    A remedy may be out of reach then: in `x + stop_gradient(q(x)) - x` there is no gradient to restore. Where none
    has a gradient, it is the loss that asks for nothing, or the outputs that cannot follow.
    """
    return MOST_CUT < fact(seen, "cut gradient share") < 1 and (is_behind(seen) or not has_learnt(seen))


def _held(seen: Observation) -> Evidence | None:
    """Weights in the state, as frozen layers hold them, that nobody has trained, or that leave the rest far behind.

    Held weights that were trained before are meant to be held, as long as they serve.
    """
    share, is_drawn = fact(seen, HELD), AS_DRAWN[0] < fact(seen, EDGE) < AS_DRAWN[1]
    if not share > FEW_HELD or not (is_drawn or is_behind(seen) or not has_learnt(seen)):
        return None
    sentence = (
        f"{share:.0%} of the weights are held ({seen.names.get('held', '')}): they are no parameters, so that nothing"
        " trains them"
    )
    sentence += ", and they look as random as weights are drawn." if is_drawn else "."
    return Evidence(sentence, readings(seen, HELD, EDGE, "validation accuracy", BASELINE), 0.8)


def _restore(_: Observation) -> tuple[Remedy, ...]:
    """Gradients through every `stop_gradient`."""
    return (restore_gradients,)


def _move(seen: Observation) -> tuple[Remedy, ...]:
    """Updates of the user's own rule for what is left still, then of Adam's for all."""
    still = () if seen.run is None else tuple(bool(leaf) for leaf in frozen_leaves(seen.run))
    own = (train_held(still, own_rule(seen) or REFERENCE),) if still and not all(still) else ()
    return (*own, replace_optimizer(REFERENCE))


def _train_too(seen: Observation) -> tuple[Remedy, ...]:
    """Updates of the user's own rule for weights that are no parameters."""
    if seen.run is None:
        return ()
    kernels = held_kernels(seen.run.first[1], seen.run.last[1])
    return (train_stored(tuple(kernels), own_rule(seen) or REFERENCE),)


def _advise_restore(seen: Observation) -> Advice:
    """Where gradients end."""
    return Advice(
        f"Find the stop_gradient between {seen.names.get('frozen', 'these layers')} and the loss. Where it rounds"
        " or takes a sign, all that is not to be differentiated belongs inside, its own input too.",
        "x + jax.lax.stop_gradient(jnp.sign(x) - x)  # not x + stop_gradient(jnp.sign(x)) - x",
    )


def _advise_move(_: Observation) -> Advice:
    """What may keep the optimizer from them."""
    return Advice(
        "Give the optimizer every parameter: look for optax.masked, set_to_zero or a schedule at zero.",
        "optimizer = optax.adam(1e-3)  # not chained with optax.masked(optax.set_to_zero(), ...)",
    )


def _advise_train_too(_: Observation) -> Advice:
    """Trained before, or now."""
    return Advice(
        "Train the held layers too, or load weights into them that were trained before: as they are, features are"
        " random.",
        "backbone.trainable = True  # then compile again",
    )


# --- state -----------------------------------------------------------------------------------------------------------


def _forgetful(seen: Observation) -> Evidence | None:
    """An optimizer whose state is the same whatever came before."""
    size, memory, alike = (
        fact(seen, name) for name in ("optimizer state numbers", "optimizer memory", "sign update share")
    )
    if size > 0 and memory == 0:
        strength, kept = 1.0, f"The optimizer keeps {size:,.0f} numbers, and none of them tells of earlier steps"
    elif size == 0 and alike > SIGN_LIKE and _rule(seen) == "sign":
        # A sign descent is meant to be so, but Adam, made anew in each step, is the more frequent program.
        strength, kept = 0.8, "The optimizer keeps nothing from step to step"
    else:
        return None
    like_first = f"; after a dozen steps {alike:.0%} of the parameters still move by one and the same distance"
    sentence = f"{kept}{like_first if alike > SIGN_LIKE else ''}."
    return Evidence(sentence, readings(seen, "optimizer memory", "sign update share", "step size"), strength)


def _carry(seen: Observation) -> tuple[Remedy, ...]:
    """The rule that its first step shows, with the state that belongs to it."""
    own = same_rule(_rule(seen), fact(seen, "step size"), has_memory=True)
    return (replace_optimizer(own),) if own else ()


def _advise_carry(seen: Observation) -> Advice:
    """Hand the state on."""
    kinds = {"sign": "optax.adam({:.3g})", "slope": "optax.sgd({:.3g}, momentum=...)"}
    kind = kinds.get(_rule(seen), "").format(fact(seen, "step size"))
    like = f"; its steps are the first ones of {kind}" if kind else ""
    return Advice(
        f"Call `init` once, before the loop, and hand the state that `update` returns to the next step{like}.",
        "updates, opt_state = optimizer.update(grads, opt_state, params)",
    )


# --- decay -----------------------------------------------------------------------------------------------------------


def _decaying(seen: Observation) -> Evidence | None:
    """Parameters that the optimizer, or a penalty in the loss, pulls to zero as fast as the data move them."""
    if _is_growing(seen):
        return _growing(seen)
    decayed, penalised = _pulls(seen)
    growth = f"the parameters end at {fact(seen, 'parameter growth'):.2g} times their first size"
    if penalised > decayed:
        pull = fact(seen, PENALTY)
        sentence = f"{pull:.0%} of the first gradient is a penalty's, which pulls parameters to zero; {growth}."
        return Evidence(sentence, readings(seen, PENALTY, "parameter growth"), penalised)
    if not decayed:
        return None
    share, rate = fact(seen, "decay share of a step"), fact(seen, "decay a step")
    sentence = (
        f"Weight decay takes {rate:.2g} of every parameter in each step, so half of what was learnt is gone after"
        f" {max(math.log(2) / rate, 1):,.0f} steps; it makes up {min(share, 1):.0%} of a step, and {growth}."
    )
    return Evidence(sentence, readings(seen, "decay share of a step", "decay a step", "parameter growth"), decayed)


def _grown(seen: Observation) -> float:
    """How much a decay of the wrong sign makes of the parameters in the run, as a natural logarithm."""
    return max(0.0, -fact(seen, "decay a step") * fact(seen, "number of updates"))  # 0 where it is not known


def _is_growing(seen: Observation) -> bool:
    """Whether that is worth a word."""
    return _grown(seen) > LITTLE_GROWTH


def _growing(seen: Observation) -> Evidence:
    """A decay that is added where it should be taken away; no optimizer means that."""
    sentence = (
        f"Each step makes every parameter {-fact(seen, 'decay a step'):.2g} times its size larger, whatever the data"
        f" say, and they end at {fact(seen, 'parameter growth'):.2g} times their first size: the weight decay has the"
        " wrong sign."
    )
    return Evidence(
        sentence, readings(seen, "decay a step", "parameter growth"), graded(_grown(seen), LITTLE_GROWTH, 1.0)
    )


def _pulls(seen: Observation) -> tuple[float, float]:
    """How far the optimizer's decay and a penalty in the loss outweigh the data."""
    shrunk = _shrunk(seen)
    decayed = max(_outweighs(seen, "decay share of a step"), shrunk) if fact(seen, "decay a step") > 0 else 0.0
    penalised = max(_outweighs(seen, PENALTY), shrunk) if fact(seen, PENALTY) > 0 else 0.0
    return decayed, penalised


def _shrunk(seen: Observation) -> float:
    """How far below any healthy size the parameters end: a pull that is a small part of the first steps may win."""
    least = lowest("parameter growth")
    return graded_log(fact(seen, "parameter growth"), least / 3, least / 20)


def _outweighs(seen: Observation, name: str) -> float:
    """How far one outweighs them; twice their part is 0.9, as the two point in directions of their own."""
    return rising(fact(seen, name), max(0.3, np.nan_to_num(highest(name))), 0.9)


def _lighten(seen: Observation) -> tuple[Remedy, ...]:
    """A weaker penalty, or no decay."""
    decayed, penalised = _pulls(seen)
    is_penalty = penalised > decayed and not _is_growing(seen)
    return (weaken_penalty(WEAKER),) if is_penalty else (remove_decay,)


def _advise_decay(seen: Observation) -> Advice:
    """A thousandth of it."""
    if _is_growing(seen):
        return Advice(
            "Turn the sign of the weight decay: it belongs in front of the scaling by the step size, which turns"
            " gradients into a way down.",
            "optimizer = optax.chain(optax.add_decayed_weights(decay), optax.scale_by_learning_rate(step_size))",
        )
    decayed, penalised = _pulls(seen)
    if penalised > decayed:
        text = f"Weaken the penalty to a thousandth: divide the weight of every regulariser by {WEAKER}."
        return Advice(text, f"loss = data_loss + penalty / {WEAKER}")
    rate, size = fact(seen, "decay a step"), fact(seen, "step size")
    text = f"Weaken the weight decay to a thousandth; now it takes {rate:.2g} of a parameter a step"
    weaker = rate / size / WEAKER
    snippets = {
        "sign": f"optimizer = optax.adamw({size:.3g}, weight_decay={weaker:.1g})",
        "slope": f"optimizer = optax.chain(optax.add_decayed_weights({weaker:.1g}), optax.sgd({size:.3g}))",
    }
    if _rule(seen) not in snippets:
        return Advice(f"{text}.")
    return Advice(f"{text}, a decay of {rate / size:.3g} at a step size of {size:.3g}.", snippets[_rule(seen)])


CAUSES = (
    Cause(
        "parameters-not-updated",
        "some parameters never move",
        "optimisation",
        *first_of(
            Way(_cut_off, _restore, _advise_restore),
            Way(_left_still, _move, _advise_move),
            Way(_held, _train_too, _advise_train_too),
        ),
        "Layers that stay as they were drawn give random features; only what comes after them can learn.",
        ("Yosinski, Clune, Bengio & Lipson, How transferable are features in deep neural networks?, NIPS 2014",),
        shows_harm=_starves,
        look_alikes=(
            "Layers behind `dead-units` get no gradient either, because nothing flows through them; here their"
            " activations are alive. `updates-too-small` moves every parameter a little. A gradient that arrives is the"
            " optimizer's to use; one that does not was cut off on the way."
        ),
    ),
    Cause(
        "optimizer-state-not-carried",
        "the optimizer forgets each step",
        "optimisation",
        _forgetful,
        _carry,
        _advise_carry,
        "Momentum and step sizes of each parameter are averages over many steps. An optimizer that is initialised in"
        " every step takes its first step over and over: of Adam only the sign of the gradient is left.",
        ("Kingma & Ba, Adam: a method for stochastic optimization, ICLR 2015, section 3",),
        look_alikes=(
            "The loss hardly gives it away, since networks often learn well with it. Every optimizer of Adam's kind"
            " takes a first step of one size for all parameters; one that forgets still does so after a dozen steps."
        ),
    ),
    Cause(
        "weight-decay-too-strong",
        "weight decay outweighs the data",
        "optimisation",
        _decaying,
        _lighten,
        _advise_decay,
        "Decay shrinks every parameter in each step. Where it takes as much as the data give, the weights settle near"
        " zero and the outputs near a constant. A penalty on the parameters in the loss does the same.",
        ("Loshchilov & Hutter, Decoupled weight decay regularization, ICLR 2019",),
        explains=("learning-rate-too-high", "update-goes-uphill", "updates-too-small"),
        look_alikes=(
            "`updates-too-small` leaves the parameters where they are; here they shrink, or grow where the decay has"
            " the wrong sign. The loss at the end is mostly the penalty, and a handful of images can still be learnt,"
            " so a quick test of overfitting finds nothing."
        ),
    ),
)
