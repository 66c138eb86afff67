"""Faults of the labels, their balance and their order."""

from functools import partial

import numpy as np

from cnnprobe.doctor.bench import halfway
from cnnprobe.doctor.causes.generalisation import more_images_help
from cnnprobe.doctor.causes.record import Advice, Cause, costs, graded, is_cross_entropy_of_logits, lowest, readings
from cnnprobe.doctor.harm import DECISIVE, ENOUGH, ERRORS
from cnnprobe.doctor.learning_curve import FITTED
from cnnprobe.doctor.looks.numbering import best_numbering
from cnnprobe.doctor.looks.passes import UNSURE_Z
from cnnprobe.doctor.looks.splits import training_ids
from cnnprobe.doctor.observation import Observation, fact, pairing_z
from cnnprobe.doctor.remedies import expect_shares, use_cross_entropy
from cnnprobe.doctor.remedies_data import balance_classes, map_labels, renumber_valid, shuffle_batches
from cnnprobe.doctor.run import valid_outputs
from cnnprobe.types import Dataset, Evidence, Remedy

MISREAD = ("shifted-labels", "labels-out-of-range")  # names of losses that pull towards another class
RENUMBERED = "accuracy with classes renumbered"
GIVEN_BACK = 0.7  # of the training accuracy
LOST = "accuracy lost to rare classes"


def _misread(seen: Observation) -> Evidence | None:
    """Labels outside of what the loss can read."""
    labels = np.asarray(seen.bench.train.labels)
    outside, fractions = fact(seen, "label out of range share"), fact(seen, "label non integer share")
    if labels.size == len(labels) and seen.bench.train.ids is not None and (outside > 0 or fractions > 0):
        low, high = fact(seen, "label min"), fact(seen, "label max")
        sentence = (
            f"The labels run from {low:.4g} to {high:.4g}, but the classes are 0 to {seen.bench.num_classes - 1}."
        )
        names = ("label out of range share", "label non integer share", "label min", "label max")
        return Evidence(sentence, readings(seen, *names), 1.0)
    if _is_misreading(seen):
        sentence = f"The loss is smallest for a class other than the label: it behaves like {_loss_name(seen)}."
        return Evidence(sentence, readings(seen, "loss floor", "loss wrong", "loss recovers"), 1.0)
    return _numbered_otherwise(seen)


def _numbered_otherwise(seen: Observation) -> Evidence | None:
    """Classes that validation numbers otherwise than training: the network knows them by other names.

    Training labels must belong to their images: from others a network learns one class for each kind of image, too.
    """
    if not _is_numbered_otherwise(seen):
        return None
    sentence = (
        f"With other numbers for the classes of the validation images ({seen.names['classes numbered otherwise']}) the"
        f" network is right for {fact(seen, RENUMBERED):.0%} of them, as they stand for"
        f" {fact(seen, 'validation accuracy'):.0%}: the two splits number the classes differently."
    )
    return Evidence(sentence, readings(seen, RENUMBERED, "validation accuracy", "training accuracy"), 1.0)


def _is_numbered_otherwise(seen: Observation) -> bool:
    """Whether other numbers give back most of what the network reaches in training, and not by chance."""
    # Images of a class that was never trained on may all get one other name, too.
    others = ("label out of range share", "label non integer share", "classes missing from training")
    if any(fact(seen, name) > 0 for name in others):
        return False
    is_paired = pairing_z(seen) > UNSURE_Z
    regained = fact(seen, RENUMBERED) > GIVEN_BACK * fact(seen, "training accuracy")
    fits = fact(seen, "training accuracy") > halfway(seen.bench)
    return is_paired and fits and regained and fact(seen, "accuracy gained by other class numbers") > 2 * ENOUGH


def _loss_name(seen: Observation) -> str:
    """What the loss is on the outputs that the model gives it."""
    return seen.loss.name_fed_with(seen.names.get("outputs", "")) if seen.loss else ""


def _is_misreading(seen: Observation) -> bool:
    """Whether the loss, whatever it is fed, pulls towards another class than the label."""
    pulls_away = _loss_name(seen) in MISREAD and fact(seen, "loss num nonfinite") == 0
    return seen.loss is not None and seen.loss.wants == "neither" and pulls_away


def _ranks(seen: Observation) -> tuple[Remedy, ...]:
    """Labels by rank among the distinct values, one numbering for both splits, or a loss that reads them right."""
    labels = np.asarray(seen.bench.train.labels)
    values = np.unique(labels)
    if _is_numbered_otherwise(seen):
        return _one_numbering(seen)
    if _is_misreading(seen) and not fact(seen, "label out of range share"):
        return (use_cross_entropy,)
    if labels.size != len(labels) or len(values) > seen.bench.num_classes:
        return ()
    return (map_labels(partial(_by_rank, values)),)


def _one_numbering(seen: Observation) -> tuple[Remedy, ...]:
    """Validation labels as the network numbers them, where they are integers."""
    labels = np.asarray(seen.bench.valid.labels)
    if seen.run is None or labels.ndim > 1 or not np.issubdtype(labels.dtype, np.integer):
        return ()
    found = best_numbering(seen.bench, valid_outputs(seen.bench, seen.run))
    return (renumber_valid(found.number),) if found else ()


def _by_rank(values: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """Each label's place among the training labels; a split that is written otherwise is left as it is."""
    flat = raw.reshape(len(raw))
    return np.searchsorted(values, flat).astype(np.int32) if np.isin(flat, values).all() else raw


def _advise_encoding(seen: Observation) -> Advice:
    """How labels should look."""
    if _is_numbered_otherwise(seen):
        return Advice(
            "Number the classes once, for both splits: maps that are made separately, as from two listings of folders,"
            " differ where the order or the classes found differ.",
            "number = {name: index for index, name in enumerate(sorted({*train_names, *valid_names}))}",
        )
    text = (
        f"Number the classes 0 to {seen.bench.num_classes - 1} without a gap, as integers, and let the loss use them"
        " unchanged."
    )
    return Advice(text, "values, labels = np.unique(labels, return_inverse=True)")


def _imbalance(seen: Observation) -> float:
    """How far the labels are out of balance, in [0, 1]."""
    low = lowest("label entropy", factor=0.95)
    return graded(fact(seen, "label entropy"), low, low - 0.3)


def _imbalanced(seen: Observation) -> Evidence | None:
    """One class that makes the blind guess good."""
    strength, majority = _imbalance(seen), fact(seen, "label majority share")
    if not strength:
        return None
    sentence = f"One class holds {majority:.1%} of the training labels; guessing it blindly is right that often."
    if costs(seen, LOST):
        sentence += (
            " Were rare classes recognised as well as the others, balanced accuracy would be"
            f" {100 * fact(seen, LOST):.0f} points higher."
        )
    names = ("label entropy", "label majority share", "validation accuracy", LOST)
    return Evidence(sentence, readings(seen, *names), max(strength, 0.3))


def _neglects_rare_classes(seen: Observation) -> bool:
    """Whether rare classes are fitted and yet recognised worse than others, for want of images.

    Drawing a class of two images more often may gain nothing. Classes may differ in difficulty, too: that it is their
    number which matters is said by a gain from more images, or where rare classes are recognised more seldom than by
    a blind guess though training images are fitted: a rule that is drawn to common classes does so.
    """
    if not costs(seen, LOST):
        return False
    at_most = fact(seen, "recall of rare classes") + ERRORS * fact(seen, "error of the recall of rare classes")
    is_shunned = at_most < 1 / seen.bench.num_classes and fact(seen, "training accuracy") > FITTED
    return is_shunned or more_images_help(seen)


def _balance(seen: Observation) -> tuple[Remedy, ...]:
    """Logits that are held against the shares of the classes; rare classes repeated, where the data are arrays."""
    problem = seen.bench.problem
    repeated = (balance_classes,) if isinstance(problem.train, Dataset) and problem.batches is None else ()
    return (*_expected_shares(seen), *repeated)


def _expected_shares(seen: Observation) -> tuple[Remedy, ...]:
    """A cross-entropy of logits that knows the shares of the training labels."""
    if not _may_expect_shares(seen):
        return ()
    ids, num_classes = training_ids(seen.bench), seen.bench.num_classes
    if ids is None:
        return ()
    counts = 1 + np.bincount(ids[(ids >= 0) & (ids < num_classes)], minlength=num_classes)  # none is impossible
    return (expect_shares(counts / counts.sum()),)


def _may_expect_shares(seen: Observation) -> bool:
    """Whether rare classes are lost to labels far out of balance, and one score for each class is all that is read.

    A loss with the shares trades common classes for rare ones wherever these overlap: it is not for a mild imbalance.
    """
    is_far = _imbalance(seen) >= DECISIVE and costs(seen, LOST)
    is_single = fact(seen, "number of outputs") == 1 and is_cross_entropy_of_logits(seen)
    return is_far and is_single and fact(seen, "output width") == seen.bench.num_classes


def _advise_balance(seen: Observation) -> Advice:
    """Shares in the loss where that was tried, or weights; and more draws."""
    adjusted = _may_expect_shares(seen)
    first = (
        "Add the log of each class's share to the logits, in the loss alone"
        if adjusted
        else "Weigh the loss of rare classes by the inverse of their share"
    )
    return Advice(
        f"{first}, or draw rare classes more often, and judge by balanced accuracy. Frequent classes pay for it: where"
        " new images have the same shares and each of them counts alike, leave the loss as it is. Where nothing helps,"
        " rare classes have too few images to learn them from: collect more of those.",
        "counts = 1 + np.bincount(class_ids, minlength=num_classes); "
        + (
            "loss = cross_entropy(logits + jnp.log(counts / counts.sum()), class_ids)"
            if adjusted
            else "loss = (losses * (len(class_ids) / counts)[class_ids]).mean() / num_classes"
        ),
    )


def _ordered(seen: Observation) -> Evidence | None:
    """Batches of one class where random draws would mix them."""
    ratio, z = fact(seen, "batch label entropy ratio"), fact(seen, "batch label entropy z")
    start = lowest("batch label entropy ratio", factor=0.9)
    strength = graded(ratio, start, start - 0.3) if z < -5 else 0.0
    if not strength:
        return None
    sentence = (
        f"Batches hold {ratio:.0%} of the label entropy that random draws would have: the classes come one after the"
        " other."
    )
    return Evidence(
        sentence, readings(seen, "batch label entropy ratio", "batch label entropy z", "collapse index"), strength
    )


def _advise_order(_: Observation) -> Advice:
    """Shuffle."""
    return Advice(
        "Shuffle the training set anew every epoch; a shuffle buffer must be as large as the set.",
        "order = rng.permutation(len(images)); images, labels = images[order], labels[order]  # every epoch",
    )


CAUSES = (
    Cause(
        "label-encoding",
        "the labels do not say what the loss reads",
        "labels",
        _misread,
        _ranks,
        _advise_encoding,
        "A label outside the classes has no target: one-hot rows become zero, an index is clamped to the last class"
        " or gives NaN, and the network is pulled to the wrong answer.",
        ("Humbatova et al., Taxonomy of real faults in deep learning systems, ICSE 2020",),
        look_alikes=(
            "`loss-broadcast-bug` stays at the loss of a blind guess too, but with sound labels, each of which reaches"
            " the gradient of other images. `labels-unrelated-to-images` has labels that are sound as numbers and"
            " belong to other images."
        ),
    ),
    Cause(
        "class-imbalance",
        "one class outweighs the others",
        "labels",
        _imbalanced,
        _balance,
        _advise_balance,
        "The fastest way down for the loss is to answer with the common class, and gradients of rare classes are too"
        " few to undo that.",
        (
            (
                "Buda, Maki & Mazurowski, A systematic study of the class imbalance problem in convolutional neural"
                " networks, 2018"
            ),
            "Menon et al., Long-tail learning via logit adjustment, ICLR 2021",
        ),
        look_alikes=(
            "A network that `learning-rate-too-high` has killed names one class too, but its gradients are zero and"
            " its labels balanced. Here gradients flow, and an accuracy that equals the share of the common class is no"
            " sign of learning: balanced accuracy tells."
        ),
        shows_harm=_neglects_rare_classes,
    ),
    Cause(
        "batches-not-shuffled",
        "the batches are not shuffled",
        "labels",
        _ordered,
        lambda _: (shuffle_batches,),
        _advise_order,
        "Every run of one class teaches the network to answer with that class; the next run undoes it. It predicts"
        " one class for a whole batch and another for the next.",
        ("Bengio, Practical recommendations for gradient-based training of deep architectures, 2012, section 2.1.1",),
        look_alikes=(
            "`learning-rate-too-high` swings from class to class too, but it follows the labels of the batch before,"
            " in mixed batches. `dropout-mask-shared` swings even in random batches, until its masks are switched off."
            " Here the batches themselves hold few classes, and random draws of the same images end the swing."
        ),
    ),
)
