"""Faults of what differs between training and evaluation."""

import math

import jax

from cnnprobe.doctor.causes.record import Advice, Cause, Way, first_of, graded, graded_log, highest, readings, rising
from cnnprobe.doctor.harm import NOT_DECISIVE
from cnnprobe.doctor.looks.modes import NUM_MASKS, NUM_PROBED
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.doctor.remedies import faster_statistics, thin_dropout, use_batch_statistics
from cnnprobe.doctor.remedies_network import (
    each_image_alone,
    evaluate_without_dropout,
    keep_outputs,
    train_as_evaluated,
)
from cnnprobe.trees import is_floating
from cnnprobe.types import Evidence, Remedy

FEWEST_ZEROS = 0.02  # share of the scores that training sets to zero, from which dropout stands behind the last layer
ROUNDING = 1e-9  # variance over masks, beside that over images, which is none
QUICK = 0.91  # momentum of an average that arrives in a few dozen steps, as measured in bfloat16 at worst
MOVE_NOISE = (
    "Move noise that training alone has behind the last batch normalisation: it adds a variance that evaluation lacks."
)
MOVE_DROPOUT = f"Dropout stands in front of a batch normalisation. {MOVE_NOISE}"
ARRIVED = 0.05  # share of the first statistics that may be left at the end of the user's own training


def _noisy(seen: Observation) -> Evidence | None:
    """Dropout whose noise drowns what differs between images."""
    rate, ratio = fact(seen, "strongest dropout rate"), fact(seen, "mask variance ratio")
    band = highest("mask variance ratio")
    # Masks also outweigh images where images make no difference for another reason, so the ratio alone decides nothing.
    drowned = min(rising(ratio, 1.5 * band, 5 * band), NOT_DECISIVE)
    strength = max(rising(rate, highest("strongest dropout rate"), 0.95), drowned)
    if not strength or not rate > 0:
        return None
    # Dropout that stands in the wrong place is noisy too: there its place is the fault, and not its rate.
    strength = min(strength, NOT_DECISIVE) if _misplaced(seen) else strength
    noise = f"; its noise has {ratio:.3g} times the variance of what differs between images" if ratio >= 0 else ""
    sentence = f"Dropout sets {rate:.0%} of a layer's units to zero{noise}."
    names = ("strongest dropout rate", "mask variance ratio", "train mode minus eval mode accuracy")
    return Evidence(sentence, readings(seen, *names), max(strength, 0.3))


def _drowned(seen: Observation) -> Evidence | None:
    """The same of noise that is no dropout's, in a network that could be trained without."""
    ratio, band = fact(seen, "mask variance ratio"), highest("mask variance ratio")
    strength = min(rising(ratio, 1.5 * band, 5 * band), NOT_DECISIVE)
    if not strength or fact(seen, "strongest dropout rate") > 0 or not _is_stateless(seen):
        return None
    sentence = (
        f"What the network draws at random in training has {ratio:.3g} times the variance of what differs between"
        " images."
    )
    return Evidence(sentence, readings(seen, "mask variance ratio", "train mode minus eval mode accuracy"), strength)


def _is_stateless(seen: Observation) -> bool:
    """Whether the network keeps no numbers beside its parameters, such as running statistics."""
    return seen.run is not None and not any(map(is_floating, jax.tree.leaves(seen.run.last[1])))


WEAKER_NOISE = Advice(
    "Weaken the noise that training adds, or measure it beside what it is added to: it drowns that now.",
    "x = x + 0.1 * jax.lax.stop_gradient(x.std()) * jax.random.normal(key, x.shape)",
)


def _advise_dropout(seen: Observation) -> Advice:
    """Rate against keep probability."""
    rate = fact(seen, "strongest dropout rate")
    return Advice(
        f"The rate is the share that is dropped. If {rate:.2g} was meant as the share to keep, the rate is"
        f" {1 - rate:.2g}.",
        f"nn.Dropout(rate={1 - rate:.2g})",
    )


def _shared(seen: Observation) -> Evidence | None:
    """One mask for the whole batch, or for all steps."""
    sharing = fact(seen, "mask sharing")
    names = ("mask sharing", "strongest dropout rate", "collapse index", "collapse index, frozen random")
    if not fact(seen, "strongest dropout rate") > 0:
        return None
    if _is_constant(seen):
        sentence = "Dropout leaves out the same units whatever key it is given: its key is a constant."
        return Evidence(sentence, readings(seen, "mask variance ratio", *names[:2]), 0.9)
    chance = 1 / math.sqrt(NUM_MASKS * min(NUM_PROBED, len(seen.bench.train.images)) / 2)
    start = max(2 * highest("mask sharing"), 3 * chance)
    strength = graded_log(sharing, start, 4 * start)
    if not strength:
        return None
    sentence = (
        f"{sharing:.0%} of what dropout changes is the same for two copies of one image in a batch, where masks of each"
        " image's own have nothing in common: one mask is used for all."
    )
    return Evidence(sentence, readings(seen, *names), strength)


def _is_constant(seen: Observation) -> bool:
    """Whether no key changes the masks, though training differs from evaluation."""
    return fact(seen, "mask variance ratio") < ROUNDING and fact(seen, "mode gap") > 0


def _unshare(seen: Observation) -> tuple[Remedy, ...]:
    """A mask of each image's own at the user's own rate; no dropout where the key is a constant, or batches matter."""
    return (thin_dropout(0.0),) if _is_constant(seen) else (each_image_alone, thin_dropout(0.0))


def _advise_unshared(_: Observation) -> Advice:
    """A mask for each image."""
    return Advice(
        "Draw a mask of the shape of the whole batch, and a new key for every step.",
        "mask = jax.random.bernoulli(key, keep, x.shape)  # not x.shape[1:]",
    )


def _misplaced(seen: Observation) -> Evidence | None:
    """Dropout behind the last layer, or in evaluation."""
    noise, rate = fact(seen, "evaluation noise"), fact(seen, "dropout rate in evaluation")
    if rate > 0 and noise > 0:
        sentence = (
            f"In evaluation mode {rate:.0%} of a layer's units are still dropped: from one key to another the outputs"
            f" for the same images change by {noise:.0%}."
        )
        names = ("dropout rate in evaluation", "evaluation noise", "mode gap")
        return Evidence(sentence, readings(seen, *names), 0.8 + 0.2 * graded_log(noise, 0.01, 0.1))
    share, strongest = fact(seen, "dropped output share"), fact(seen, "strongest dropout rate")
    is_rectified = seen.names.get("outputs") == "relu"  # it makes zeros of its own of what dropout before it moves
    if is_rectified or not (share > highest("output zero share") + FEWEST_ZEROS and strongest > 0):
        return None
    sentence = (
        f"In training {share:.0%} of the scores themselves are exactly zero, in evaluation none of these: dropout"
        " stands behind the last layer."
    )
    found = readings(seen, "dropped output share", "strongest dropout rate", "train mode minus eval mode accuracy")
    return Evidence(sentence, found, 1.0)


def _put_right(seen: Observation) -> tuple[Remedy, ...]:
    """Evaluation without dropout; or training without the dropout of the scores."""
    if fact(seen, "dropout rate in evaluation") > 0:
        return (evaluate_without_dropout,)
    return (keep_outputs(fact(seen, "dropped output share")),)


def _advise_place(seen: Observation) -> Advice:
    """Before the last layer, and in training alone."""
    if fact(seen, "dropout rate in evaluation") > 0:
        return Advice("Switch dropout off in evaluation.", "nn.Dropout(rate, deterministic=not train)(x)")
    rate = fact(seen, "strongest dropout rate")
    return Advice(
        "Move the dropout in front of the last layer: a score that is dropped is a wrong answer.",
        f"x = nn.Dropout({rate:.2g}, deterministic=not train)(x)\nlogits = nn.Dense({seen.bench.num_classes})(x)",
    )


def _stale(seen: Observation) -> Evidence | None:
    """Better on the same training images with the batch's statistics than with the stored ones."""
    gap = fact(seen, "batch minus running statistics accuracy")
    start = max(0.03, highest("batch minus running statistics accuracy"))
    strength = graded(gap, start, start + 0.1)
    # Parameters that climb grow without end, and no average follows the maps that they make.
    climbs = fact(seen, "uphill parameter share") > 0
    if not strength or climbs or _is_still_coming(seen) or _is_too_short(seen) or _is_stateless(seen):
        return None
    momentum = fact(seen, "statistics momentum")
    why = "are those of other maps" if momentum <= QUICK else "have not arrived"
    known = "" if math.isnan(momentum) else f" (momentum {momentum:.4g})"
    sentence = (
        f"On the same training images the network is {100 * gap:.0f} points better with the statistics of the batch"
        f" than with the stored ones: the stored ones {why}{known}."
    )
    return Evidence(
        sentence,
        readings(seen, "batch minus running statistics accuracy", "statistics momentum", "mode gap"),
        strength,
    )


def _is_still_coming(seen: Observation) -> bool:
    """Whether the user's own training, of which the run is a part, is long enough for the statistics to arrive.

    However late the clock cuts a run, the statistics may still be behind weights that come to rest in the end.
    """
    whole, momentum = fact(seen, "steps of the whole training"), fact(seen, "statistics momentum")
    arrives = 0 < momentum < 1 and whole > fact(seen, "number of steps") and momentum**whole < ARRIVED
    return arrives and not fact(seen, "settling passes") > 0


def _is_too_short(seen: Observation) -> bool:
    """Whether a training of so few steps has no time for statistics of a healthy momentum: the steps are missing.

    Weights that move fast, as they do at first, leave the average behind for as long again as it takes to arrive.
    """
    whole, momentum = fact(seen, "steps of the whole training"), fact(seen, "statistics momentum")
    return 0 < momentum <= highest("statistics momentum") and momentum ** (whole / 2) >= ARRIVED


def _fresh_statistics(seen: Observation) -> tuple[Remedy, ...]:
    """A faster average where there is one; the batch's own statistics else."""
    momentum = fact(seen, "statistics momentum")
    if QUICK < momentum < 1.0:
        return (faster_statistics(momentum), use_batch_statistics)
    return (use_batch_statistics,)


def _advise_statistics(seen: Observation) -> Advice:
    """Where they get lost."""
    momentum = fact(seen, "statistics momentum")
    if not momentum < 1.0:
        return Advice(
            "Carry the updated statistics from step to step: keep what `apply(..., mutable=['batch_stats'])` returns.",
            "outputs, updated = model.apply(variables, images, train=True, mutable=['batch_stats'])",
        )
    drops = _drops_before_normalising(seen)
    if momentum > QUICK:
        text = f"Lower the momentum of the batch statistics from {momentum:.4g} to 0.9, or train longer."
        return Advice(f"{text} {MOVE_DROPOUT}" if drops else text, "nn.BatchNorm(momentum=0.9)")
    text = MOVE_DROPOUT if drops else f"The average is quick: something makes training's maps differ. {MOVE_NOISE}"
    return Advice(text, "x = nn.Dropout(rate, deterministic=not train)(nn.relu(nn.BatchNorm(not train)(x)))")


def _drops_before_normalising(seen: Observation) -> bool:
    """Whether dropout stands in front of a batch normalisation."""
    steps = [step for row in seen.graph for step in row.steps]
    dropped = [index for index, step in enumerate(steps) if step.startswith("dropout")]
    return bool(dropped) and "batch norm" in steps[dropped[0] :]


CAUSES = (
    Cause(
        "dropout-too-strong",
        "dropout or other noise drowns the signal",
        "regularisation",
        *first_of(
            Way(_noisy, lambda _: (thin_dropout(0.5), thin_dropout(0.2)), _advise_dropout),
            Way(_drowned, lambda _: (train_as_evaluated,), lambda _: WEAKER_NOISE),
        ),
        "A unit kept with probability p is divided by p, so its noise has (1 - p) / p times its power: 0.25 at a rate"
        " of 0.2, 19 at 0.95.",
        ("Srivastava et al., Dropout, JMLR 2014, section 10",),
        look_alikes=(
            "`learning-rate-too-high` has many zero gradients too, but evaluation is no better than training there."
            " Here the same images are predicted far better with dropout off. `dropout-mask-shared` changes all images"
            " of a batch alike; here each has noise of its own."
        ),
    ),
    Cause(
        "dropout-mask-shared",
        "all images of a batch share one dropout mask",
        "regularisation",
        _shared,
        _unshare,
        _advise_unshared,
        "With one mask for the batch each step trains one thinned network on all images at once, so the noise does not "
        "average out within the batch: whole batches get one class.",
        ("Srivastava et al., Dropout, JMLR 2014, section 4",),
        look_alikes=(
            "`dropout-too-strong` gives each image noise of its own; here what dropout changes is the same for a whole"
            " batch, which then gets one class, even drawn at random and with the parameters held still."
            " `batches-not-shuffled` swings with dropout off as well."
        ),
    ),
    Cause(
        "dropout-on-logits",
        "dropout where it does not belong",
        "regularisation",
        _misplaced,
        _put_right,
        _advise_place,
        "Dropout thins features, of which others can take the place. The score of a class has no substitute, and"
        " evaluation is no place for noise.",
        ("Srivastava et al., Dropout, JMLR 2014, section 4",),
        look_alikes=(
            "`dropout-too-strong` thins hidden layers; here the scores themselves are exactly zero in training, and in"
            " evaluation they are not. Where dropout is left on in evaluation, two evaluations of the same images"
            " differ."
        ),
        explains=("dropout-too-strong",),
    ),
    Cause(
        "batch-statistics-mismatch",
        "evaluation uses statistics that training never reached",
        "regularisation",
        _stale,
        _fresh_statistics,
        _advise_statistics,
        "Batch normalisation trains with the statistics of each batch and evaluates with a running average. With a"
        " momentum m the average needs several times 1 / (1 - m) steps to arrive; until then every layer is scaled"
        " wrongly in evaluation alone.",
        (
            "Ioffe & Szegedy, Batch normalization, ICML 2015",
            "Li et al., Understanding the disharmony between dropout and batch normalization, CVPR 2019",
        ),
        look_alikes=(
            "Overfitting shows on validation images alone; this shows on the training images once they are evaluated"
            " with the stored statistics. Dropout makes the two modes differ the other way round: it makes training the"
            " worse one. `train-valid-mismatch` leaves training images alone."
        ),
    ),
)
