"""Labels that change from one pass over the data to the next."""

from cnnprobe.doctor.causes.record import Advice, Cause, graded, readings
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.doctor.remedies_data import keep_first_labels, train_as_stored
from cnnprobe.types import Evidence, Remedy

FEWEST_CONFLICTS = 3  # images
MOVED = 0.05  # share of the labels dealt anew, below which they may be rare defects of the data
CLEARLY_MOVED = 0.4


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


CAUSES = (
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
