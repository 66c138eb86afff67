"""Augmentation that leaves nothing to learn."""

from cnnprobe.doctor.causes.record import Advice, Cause, graded, lowest, readings
from cnnprobe.doctor.looks.passes import PAIRED_Z, TOLD_Z
from cnnprobe.doctor.observation import Observation, fact, pairing_z
from cnnprobe.doctor.progress import is_behind
from cnnprobe.doctor.remedies_data import drop_augmentation, train_as_stored
from cnnprobe.doctor.remedies_network import feed_as_evaluated
from cnnprobe.types import Evidence, Remedy

LITTLE = 0.35  # of the signal: flips, shifts, crops and noise that help leave more of it
MUCH_OF_IT = 0.6  # of the whole training, from which a network that augmentation slows down has had its time
BARE = 0.15  # of the signal, at which nothing is left that a network could find
LOST_Z = 5.0  # standard deviations of the permutation null that the loss of signal must exceed
LEARNT_SHARE = 0.8  # of what features reach on clean images; a network that does so on augmented ones can read them


def _destroyed(seen: Observation) -> Evidence | None:
    """Labels that can be told from the images as they are, and not from what augmentation makes of them."""
    return _by_loader(seen) if _is_loaders(seen) else _by_augment(seen)


def _is_loaders(seen: Observation) -> bool:
    """Whether it is the user's loader that destroys them."""
    return seen.bench.problem.batches is not None and not (_is_inside(seen) and _by_loader(seen) is None)


def _is_inside(seen: Observation) -> bool:
    """Whether the model augments its images itself."""
    return fact(seen, "augments inside") > 0


def _by_augment(seen: Observation) -> Evidence | None:
    """The user's `augment`, or the model's own layers.

    What leaves some of the signal may slow a network down and still help it in the end, so that it is suspected only
    where the network stays far behind for much of its training.
    """
    start = lowest("augmented signal share", factor=0.8)
    start = start if _stays_behind(seen) else min(LITTLE, start)
    strength = graded(fact(seen, "augmented signal share"), start, BARE)
    if not strength or fact(seen, "z of the signal lost") < LOST_Z or _is_read(seen):
        return None
    before = fact(seen, "accuracy of features on clean images")
    after = fact(seen, "accuracy of features on augmented images")
    sentence = (
        f"Simple features tell {before:.0%} of the labels from the images as they are and {after:.0%} from augmented"
        " ones"
    )
    # A model that augments may scale its images too.
    moments = () if _is_inside(seen) else ("augmented std ratio", "augmented mean shift")
    scale = f", whose standard deviation is {fact(seen, 'augmented std ratio'):.3g} times theirs" if moments else ""
    names = ("augmented signal share", *moments, "training batch accuracy")
    return Evidence(f"{sentence}{scale}.", readings(seen, *names), strength)


def _stays_behind(seen: Observation) -> bool:
    """Whether much of the training leaves the network far below what features reach that need none."""
    return is_behind(seen) and fact(seen, "number of steps") >= MUCH_OF_IT * fact(seen, "steps of the whole training")


def _is_read(seen: Observation) -> bool:
    """Whether the network itself tells augmented training images apart nearly as well as features tell clean ones."""
    chance = fact(seen, "label majority share")
    reached = fact(seen, "training batch accuracy") - chance
    return reached > LEARNT_SHARE * (fact(seen, "accuracy of features on clean images") - chance)


def _by_loader(seen: Observation) -> Evidence | None:
    """A loader that never yields an image twice, and whose images say nothing of labels that stored ones tell."""
    own, stored = pairing_z(seen), pairing_z(seen, of="stored ")
    if not (own < PAIRED_Z and stored > TOLD_Z and fact(seen, "images seen twice") == 0):
        return None
    sentence = (
        f"Features find the labels of the stored images {stored:.0f} standard deviations better than chance, and those"
        f" of what the loader makes of them {own:.1f}."
    )
    names = ("pixel neighbours z", "random features z", "stored pixel neighbours z", "stored random features z")
    return Evidence(sentence, readings(seen, *names), graded(own, PAIRED_Z + 1, 2.0))


def _remedies(seen: Observation) -> tuple[Remedy, ...]:
    """The same images, not augmented."""
    if _is_loaders(seen):
        return (train_as_stored,)
    return (feed_as_evaluated,) if _is_inside(seen) else (drop_augmentation,)


def _advise(seen: Observation) -> Advice:
    """Where to look."""
    if _is_loaders(seen):
        text = "Look at twenty images beside their labels as the loader yields them; leave its augmentation out."
        return Advice(text, "images, labels = next(iter(loader)); print(images.mean(), images.std(), labels)")
    if _is_inside(seen):
        return _advise_inside(seen)
    share = fact(seen, "augmented signal share")
    text = (
        f"Augmentation leaves {max(share, 0):.0%} of what the images say of their labels. Train without it, then bring"
        " back one change at a time, each in the range of the pixels: most are written either for 0 to 255 or for 0"
        " to 1."
    )
    return Advice(text, "problem._replace(augment=None)")


def _advise_inside(seen: Observation) -> Advice:
    """Layers of the model."""
    text = (
        f"The random layers in front of the model leave {max(fact(seen, 'augmented signal share'), 0):.0%} of what the"
        " images say of their labels: a flip makes left of right, a rotation one arrow of another. Take them out, then"
        " bring back those that leave every image in its class."
    )
    return Advice(text, "model = keras.Sequential([...])  # without RandomFlip, RandomRotation, ...")


CAUSES = (
    Cause(
        "augmentation-destroys-signal",
        "augmentation destroys what the labels depend on",
        "data",
        _destroyed,
        _remedies,
        _advise,
        "Augmentation must keep what makes an image belong to its class. Where it does not, the labels of augmented"
        " images are noise, and a network can learn nothing from them that holds for clean ones.",
        (
            "Shorten & Khoshgoftaar, A survey on image data augmentation for deep learning, Journal of Big Data 2019,"
            " section on label preservation",
        ),
        look_alikes=(
            "`labels-unrelated-to-images` holds the training loss at that of a blind guess too, but there the clean"
            " images do not tell their labels either. Here simple features find the labels on clean images and lose"
            " them on augmented ones."
        ),
    ),
)
