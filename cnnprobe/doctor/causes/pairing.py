"""Labels of other images: always the same ones, or others in each pass over the data."""

from cnnprobe.data.sampling import num_examples
from cnnprobe.doctor.causes.record import Advice, Cause, Way, first_of, graded, readings
from cnnprobe.doctor.looks.displaced import AS_STORED, FIRST, IN_ORDER, MENDED, ORDERS, Displaced, Z, places_of_labels
from cnnprobe.doctor.looks.passes import FEWEST_FOR_PAIRING, PAIRED_Z, TOLD_Z, UNSURE_Z
from cnnprobe.doctor.observation import Observation, fact, pairing_z
from cnnprobe.doctor.progress import beats_chance
from cnnprobe.doctor.remedies_data import keep_first_labels, take_labels_from, train_as_stored
from cnnprobe.types import Evidence, Remedy

FEWEST_CONFLICTS = 3  # images
MOVED = 0.05  # share of the labels dealt anew, below which they may be rare defects of the data
CLEARLY_MOVED = 0.4
CLEARLY_MENDED = 0.3  # share of the labels that another order must mend to be sure
IN_VALID = ", validation"  # behind the names of the same readings there


def dealt_anew_share(seen: Observation) -> float:
    """Share of the labels that are dealt anew between two passes; of those, one in `num_classes` stays by chance."""
    num_classes = seen.bench.num_classes
    return fact(seen, "label conflict share") * num_classes / (num_classes - 1)


def _reshuffled(seen: Observation) -> Evidence | None:
    """The same image, another label."""
    conflicts, twice = fact(seen, "label conflict share"), fact(seen, "images seen twice")
    strength = graded(dealt_anew_share(seen), MOVED, CLEARLY_MOVED)
    if not strength or conflicts * twice < FEWEST_CONFLICTS:
        return None
    sentence = (
        f"Of {twice:.0f} images that were read in two passes, {conflicts:.0%} came with another label the second time."
    )
    names = ("label conflict share", "images seen twice", "pixel neighbours z", "stored pixel neighbours z")
    return Evidence(sentence, readings(seen, *names), strength)


def _remedies(seen: Observation) -> tuple[Remedy, ...]:
    """The stored pairs, or the loader's first ones."""
    return (train_as_stored, keep_first_labels) if seen.bench.problem.batches else ()


def _advise(seen: Observation) -> Advice:
    """One permutation for both."""
    text = (
        f"{fact(seen, 'label conflict share'):.0%} of the labels move between two passes: images and labels are"
        " shuffled apart. Draw one order an epoch and index both with it."
    )
    return Advice(text, "order = rng.permutation(len(images)); images, labels = images[order], labels[order]")


def _displaced(seen: Observation, *, of: str = "") -> Evidence | None:
    """Labels that belong to images some places away; `of=", validation"`: in validation, in the order of training."""
    stored, told = fact(seen, AS_STORED + of), fact(seen, IN_ORDER + of)
    strength = graded(told - stored, MENDED, CLEARLY_MENDED)
    if not strength or not fact(seen, Z + of) > UNSURE_Z:
        return None
    moved = _moved(seen, of=of)
    begin = f" from image {moved.first} on" if moved.first else ""
    sentence = (
        f"Simple features tell {stored:.0%} of the labels, and {told:.0%} where{begin} the label of each image is the"
        f" one {ORDERS[moved.order][0]}."
    )
    return Evidence(sentence, readings(seen, AS_STORED + of, IN_ORDER + of, FIRST + of), 0.5 + 0.5 * strength)


def _moved(seen: Observation, *, of: str = "") -> Displaced:
    """The order that was found, and where it begins."""
    return Displaced(int(fact(seen, "order that fits the labels")), int(fact(seen, FIRST + of)))


def _unrelated(seen: Observation) -> Evidence | None:
    """Neither neighbours nor random features find the labels in the images, and nor did the network."""
    pixels, features = fact(seen, "pixel neighbours z"), fact(seen, "random features z")
    enough = fact(seen, "images read") >= FEWEST_FOR_PAIRING or pairing_z(seen, of="stored ") > TOLD_Z
    # Without held-out images the network's own accuracy may be memory, and says nothing.
    generalises = seen.bench.has_valid and beats_chance(seen)
    if not (enough and pixels < PAIRED_Z and features < PAIRED_Z and not generalises) or _is_loaders_doing(seen):
        return None
    sentence = (
        "Images that look alike have unlike labels: nearest neighbours and random features predict them no better than "
        f"shuffled ones ({pixels:.1f} and {features:.1f} standard deviations above), nor does the trained network."
    )
    names = ("pixel neighbours z", "random features z", "pixel neighbours accuracy", "validation accuracy")
    return Evidence(sentence, readings(seen, *names), graded(max(pixels, features), PAIRED_Z + 1, 2.0))


def _is_loaders_doing(seen: Observation) -> bool:
    """Whether labels change from pass to pass, or stored images tell labels that those the model is fed do not."""
    problem = seen.bench.problem
    is_prepared = problem.batches is None and problem.preprocess is not None
    is_changed = is_prepared or fact(seen, "images seen twice") == 0
    by_images = pairing_z(seen, of="stored ") > TOLD_Z and is_changed
    return dealt_anew_share(seen) > MOVED or by_images


def _look_up(seen: Observation) -> tuple[Remedy, ...]:
    """Labels from where they stand."""
    train, valid = seen.bench.problem.train, seen.bench.problem.valid
    places = places_of_labels(_moved(seen), num_examples(train))
    if valid is None or _displaced(seen, of=IN_VALID) is None:
        return (take_labels_from(places),)
    return (take_labels_from(places, places_of_labels(_moved(seen, of=IN_VALID), num_examples(valid))),)


def _advise_look_up(seen: Observation) -> Advice:
    """Names, not places."""
    moved = _moved(seen)
    return Advice(
        f"Look at the images around number {moved.first} beside their labels: a header or a file that was skipped"
        " on one side alone, or two listings in different orders, leave each with another's: its own is the one"
        f" {ORDERS[moved.order][0]}. Keep names with images, and look each label up by name.",
        "labels = [label_of[path.name] for path in paths]  # of the very paths that were read as images",
    )


def _pair_as_stored(seen: Observation) -> tuple[Remedy, ...]:
    """The stored pairs, where those are sound."""
    return (train_as_stored,) if pairing_z(seen, of="stored ") > TOLD_Z else ()


def _advise_pair(seen: Observation) -> Advice:
    """Where the pairing usually breaks."""
    where = " The stored pairs are sound: it is the loader that breaks them." if _pair_as_stored(seen) else ""
    return Advice(
        "Look at twenty images beside their labels. Images and labels were probably shuffled, sorted or filtered"
        f" apart; permute both with the same indices.{where}",
        "order = rng.permutation(len(images)); images, labels = images[order], labels[order]",
    )


CAUSES = (
    Cause(
        "labels-unrelated-to-images",
        "the labels do not belong to these images",
        "labels",
        *first_of(
            Way(_displaced, _look_up, _advise_look_up),
            Way(_unrelated, _pair_as_stored, _advise_pair),
        ),
        "A network can memorise random labels, and then its training loss falls, but nothing carries over to new"
        " images.",
        (
            (
                "Zhang, Bengio, Hardt, Recht & Vinyals, Understanding deep learning requires rethinking"
                " generalization, ICLR 2017"
            ),
        ),
        look_alikes=(
            "`cross-example-leak` gives chance on new images after a perfect fit too, but there nearest neighbours"
            " find the labels. `label-noise` leaves them something to find, up to about nine wrong labels in ten."
            " Faults of optimisation leave the neighbours' accuracy as it is."
        ),
    ),
    Cause(
        "labels-reshuffled-each-epoch",
        "labels are dealt anew in every epoch",
        "labels",
        _reshuffled,
        _remedies,
        _advise,
        "What one epoch teaches of an image the next one contradicts, so that the best answer to every image is the"
        " same guess. The loss falls within an epoch and jumps back where the next begins.",
        ("Zhang, Chen, Cheung & Xu, An empirical study on TensorFlow program bugs, ISSTA 2018",),
        look_alikes=(
            "`labels-unrelated-to-images` is wrong in the same way in every epoch, so it can be learnt by heart. Here"
            " an image that is read twice comes with two labels, and the loss jumps back where an epoch begins."
        ),
    ),
)
