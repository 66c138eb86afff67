"""Images that do not carry what they should: blank, broken, mixed up, or robbed of it on their way to the model."""

import math

import numpy as np

from cnnprobe.data.sampling import num_examples, sample
from cnnprobe.doctor.causes.record import Advice, Cause, Way, first_of, graded, highest, readings, rising
from cnnprobe.doctor.harm import ENOUGH, ERRORS, LARGE, NOT_DECISIVE
from cnnprobe.doctor.looks.layout import CHANNELS_IN_FRONT, LAYOUTS, ROUGHER
from cnnprobe.doctor.looks.passes import PAIRED_Z, TOLD_Z
from cnnprobe.doctor.observation import Observation, fact, pairing_z
from cnnprobe.doctor.progress import BEHIND, has_learnt
from cnnprobe.doctor.remedies_data import keep_examples, map_images, prepare_anew
from cnnprobe.types import Dataset, Evidence, Remedy

REPEATED = 0.9  # share of repeats that no oversampling of rare classes reaches
FEW = 256  # images whose mean and standard deviation stand for all
FEWEST_LEFT = 10  # sound images a class, below which nothing is left to train on
SMOOTHER = (1.1, 1.25)  # times as rough as in another layout: from where on that speaks for it, and alone suffices


def _sound(seen: Observation) -> np.ndarray | None:
    """Rows of the whole training set that are finite and not blank; None where it is not held as arrays."""
    train = seen.bench.problem.train
    if not isinstance(train, Dataset) or seen.bench.problem.batches is not None:
        return None
    rows = np.asarray(train.images).reshape(len(train.images), -1)
    with np.errstate(invalid="ignore"):
        is_finite = np.isfinite(rows.sum(axis=1, dtype=np.float64))
        return np.flatnonzero(is_finite & (rows.max(axis=1) != rows.min(axis=1)))


def _drop_broken(seen: Observation) -> tuple[Remedy, ...]:
    """Training without the broken images, where enough others are left."""
    kept = _sound(seen)
    if kept is None or not FEWEST_LEFT * seen.bench.num_classes <= len(kept) < num_examples(seen.bench.problem.train):
        return ()
    return (keep_examples(kept),)


def _spoilt(seen: Observation) -> Evidence | None:
    """Labels that images tell as they are stored, and that `preprocess` hides from features and network."""
    own, stored = pairing_z(seen), pairing_z(seen, of="stored ")
    if not stored > TOLD_Z or not _is_prepared(seen) or _reads_prepared(seen):
        return None
    strength = graded(own, PAIRED_Z + 1, 2.0)
    if not strength:
        return None
    sentence = (
        f"Features find the labels of the stored images {stored:.0f} standard deviations better than chance, and those"
        f" of what `preprocess` makes of them {own:.1f}."
    )
    names = ("pixel neighbours z", "random features z", "stored pixel neighbours z", "stored random features z")
    return Evidence(sentence, readings(seen, *names), strength)


def _dimmed(seen: Observation) -> Evidence | None:
    """Labels that features tell less often from what `preprocess` makes of the images than from the stored ones.

    A crop or fewer bits may be wanted, and the network may read what features cannot: the remedy has to gain.
    """
    own, stored = fact(seen, "random features accuracy"), fact(seen, "stored random features accuracy")
    error = math.sqrt(2 * stored * (1 - stored) / max(fact(seen, "images read"), 1.0)) if 0 <= stored <= 1 else math.nan
    if not _is_prepared(seen) or not stored - own >= max(ENOUGH, ERRORS * error):
        return None
    sentence = (
        f"Simple features tell {stored:.0%} of the labels from the stored images and {own:.0%} from what `preprocess`"
        " makes of them."
    )
    names = ("stored random features accuracy", "random features accuracy", "validation accuracy")
    return Evidence(sentence, readings(seen, *names), NOT_DECISIVE * graded(stored - own, 0.0, LARGE))


def _learns_nothing_of_it(seen: Observation) -> bool:
    """Whether `preprocess` hides the labels, and the network has not found them either."""
    return _spoilt(seen) is not None and not has_learnt(seen)


def _is_prepared(seen: Observation) -> bool:
    """Whether it is `preprocess` that stands between stored images and those that the model is fed."""
    return seen.bench.problem.batches is None and seen.bench.problem.preprocess is not None


def _reads_prepared(seen: Observation) -> bool:
    """Whether the network itself gets as far on prepared images as features do on stored ones, or not far from it."""
    chance = 1 / seen.bench.num_classes
    reached = fact(seen, "validation accuracy") - chance
    return seen.bench.has_valid and reached >= BEHIND * (fact(seen, "stored random features accuracy") - chance)


def _as_stored(seen: Observation) -> tuple[Remedy, ...]:
    """The stored images, brought to mean 0 and standard deviation 1, where the model takes images of their shape."""
    bench = seen.bench
    stored = np.asarray(sample(bench.problem.train, FEW, seed=0, seconds=bench.read_seconds).images, np.float32)
    shape = bench.train.images.shape[1:]
    is_taken = stored.shape[1:] in (shape, shape[:-1]) and shape[-1:] in (stored.shape[-1:], (1,))
    return (prepare_anew(float(stored.mean()), float(stored.std()), shape),) if is_taken and stored.std() > 0 else ()


def _blank(seen: Observation) -> Evidence | None:
    """Images that carry nothing: not finite, of one colour, or all the same."""
    broken = {
        "are not finite": fact(seen, "input nonfinite share"),
        "are of one single value": fact(seen, "input blank share"),
        "repeat another image": 1.0 - fact(seen, "input distinct share"),
    }
    strengths = {
        "are not finite": rising(broken["are not finite"], 0.0, 0.3),
        "are of one single value": rising(broken["are of one single value"], highest("input blank share") + 0.05, 0.35),
        "repeat another image": rising(broken["repeat another image"], REPEATED, 0.98),
    }
    worst = max(strengths, key=lambda what: strengths[what])
    if not strengths[worst]:
        return None
    names = ("input nonfinite share", "input blank share", "input distinct share")
    sentence = f"{broken[worst]:.1%} of the images that the model is fed {worst}."
    return Evidence(sentence, readings(seen, *names), max(strengths[worst], 0.9 if worst == "are not finite" else 0.0))


def _laid_otherwise(seen: Observation) -> Evidence | None:
    """Pixels whose neighbours are more alike where the same numbers are laid out in another way."""
    rougher = fact(seen, ROUGHER)
    strength = graded(rougher, *SMOOTHER)
    if not strength:
        return None
    sentence = (
        f"Neighbouring pixels differ {rougher:.2f} times as much as they do where the same numbers are read as images"
        f" that were stored {seen.names.get('other layout', '')}: a reshape has mixed them up."
    )
    return Evidence(sentence, readings(seen, ROUGHER), strength)


def _sides_as_features(seen: Observation) -> Evidence | None:
    """A side of the images that the first convolution takes for their channels."""
    if not fact(seen, "side read as channels") > 0:
        return None
    channels, *_, side = seen.bench.train.images.shape[1:]
    sentence = (
        f"The images have their {channels} channels in front, and the first convolution takes the {side} columns for"
        f" channels: its windows run over the {channels} channels as over a side."
    )
    return Evidence(sentence, readings(seen, "side read as channels"), 1.0)


def _laid_out(name: str) -> tuple[Remedy, ...]:
    """The images in one of the layouts."""
    return (map_images(lambda images: LAYOUTS[name](np.asarray(images))),)


LOOK_AT_PREPROCESS = Advice(
    "Look at an image before and after `preprocess`: whole numbers wrap around where a mean is subtracted from them,"
    " and vanish where they are divided as such, so cast to floats first; a reshape in the place of a transpose mixes"
    " pixels. If it is meant to hide something, such as a mark on the images, that was what told their labels.",
    "images = (images.astype(np.float32) - mean) / std  # the cast comes first",
)
LOOK_AT_BATCH = Advice(
    "Look at a batch as the model gets it, after every cast and division: an integer division, a wrong dtype or an"
    " unread file leaves nothing to learn from.",
    "images, labels = next(iter(loader)); print(images.dtype, images.min(), images.max(), images.std(axis=0).mean())",
)
TRANSPOSE = Advice(
    "Reshape to the axes in the order in which the numbers were stored, then transpose; and look at one of the images:"
    " a reshape alone moves no axis.",
    "images = records.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)",
)
CHANNELS_LAST = Advice(
    "Bring the channels to the end, where layers of Flax and Keras look for them; PyTorch keeps them in front.",
    "images = images.transpose(0, 2, 3, 1)  # [batch, height, width, channels]",
)


CAUSES = (
    Cause(
        "inputs-blank-or-corrupt",
        "the images are blank or corrupt",
        "data",
        *first_of(
            Way(_spoilt, _as_stored, lambda _: LOOK_AT_PREPROCESS),
            Way(_sides_as_features, lambda _: _laid_out(CHANNELS_IN_FRONT), lambda _: CHANNELS_LAST),
            Way(_laid_otherwise, lambda seen: _laid_out(seen.names["other layout"]), lambda _: TRANSPOSE),
            Way(_blank, _drop_broken, lambda _: LOOK_AT_BATCH),
            Way(_dimmed, _as_stored, lambda _: LOOK_AT_PREPROCESS),
        ),
        "A network can only learn what differs between its inputs; constant images give constant outputs, and one NaN"
        " pixel makes every parameter NaN in a single step. A convolution combines numbers that lie side by side, which"
        " must be neighbours in the image.",
        ("Zhang, Chen, Cheung & Xu, An empirical study on TensorFlow program bugs, ISSTA 2018",),
        shows_harm=_learns_nothing_of_it,
        look_alikes=(
            "A network that `learning-rate-too-high` has killed ends with the same zero gradients, but it did not"
            " start with them. Blank images give them before the first step, and neither another loss, optimizer nor"
            " network helps."
        ),
    ),
)
