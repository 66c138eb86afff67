"""Labels that are wrong at random."""

import math

from cnnprobe.doctor.causes.pairing import MOVED, dealt_anew_share
from cnnprobe.doctor.causes.record import Advice, Cause, graded, highest, is_cross_entropy_of_logits, readings
from cnnprobe.doctor.observation import Observation, fact, pairing_z
from cnnprobe.doctor.remedies_data import drop_suspicious, use_robust_loss
from cnnprobe.types import Dataset, Evidence, Remedy

USUAL = 0.25  # share of wrong labels up to which networks learn nearly as well
BEYOND = 1.15  # times what healthy labels show, from which a share is no chance: it is counted on some hundred images
CLEARLY = 1.6  # times the start, from which nothing but the training is left to ask
SURELY = 1.15  # times the start, from which a training that ends as noise lets it ends so by noise
UNCONFIRMED = 0.85  # strength below what speaks for itself: hard images look like noise to simple features
FOUND = 0.6  # share of the right labels that features must find, or else the images are hard rather than mislabelled
MARGIN = 0.15  # between what noise leaves of accuracy and loss, and what training reaches
LINKED_Z = 4.0  # standard deviations of the permutation null; below, labels have nothing to do with the images
FEWEST_READ = 300  # images
MOST_EXAMPLES = 3000  # that can be judged by the images of the other half within seconds


def noise_start() -> float:
    """Share of contradicted labels from which a gain without them counts."""
    return max(USUAL, highest("contradicted label share", factor=BEYOND))


def contradicted_share(seen: Observation) -> float:
    """Share of labels that images contradict where they leave no doubt; NaN where labels or features cannot tell."""
    share = fact(seen, "contradicted label share")
    linked = pairing_z(seen) > LINKED_Z
    found = fact(seen, "random features accuracy") >= FOUND * (1 - share)
    is_told = linked and found and fact(seen, "images read") >= FEWEST_READ and not dealt_anew_share(seen) > MOVED
    return share if is_told and not _is_refuted(seen, share) else math.nan


def _is_refuted(seen: Observation, share: float) -> bool:
    """Whether the network is right on more labels than such noise leaves, and has not learnt them by heart.

    Then they are not wrong, but hard to tell for simple features: what is learnt by heart does not carry over.
    """
    fitted, reached = fact(seen, "training accuracy"), fact(seen, "validation accuracy")
    return seen.bench.has_valid and min(fitted, reached) > 1 - share + MARGIN and fitted - reached < MARGIN


def is_limited_by_noise(seen: Observation) -> bool:
    """Whether features find noise in the labels, and training fits as much of them as noise leaves.

    The loss of a network that knows every class and every rate of error ends at the entropy of the noise.
    """
    share, fitted = contradicted_share(seen), fact(seen, "training accuracy")
    if not SURELY * noise_start() < share < 1 or not abs(fitted - (1 - share)) < MARGIN:
        return False
    classes = max(seen.bench.num_classes, 2)
    floor = -(1 - share) * math.log(1 - share) - share * math.log(share / (classes - 1))
    return fact(seen, "end loss ratio") > (1 - MARGIN) * floor / math.log(classes)


def _noisy(seen: Observation) -> Evidence | None:
    """Labels that contradict their images where these leave no doubt; decisive where training ends as they make it."""
    share, start = contradicted_share(seen), noise_start()
    strength = graded(share, start, CLEARLY * start)
    if not strength:
        return None
    sentence = f"Where images leave least doubt, {share:.0%} of the labels differ from those of images that look alike"
    limited = is_limited_by_noise(seen)
    sentence += f", and training fits {fact(seen, 'training accuracy'):.0%} of them." if limited else "."
    names = ("contradicted label share", "random features accuracy", "training accuracy", "end loss ratio")
    return Evidence(sentence, readings(seen, *names), strength if limited else UNCONFIRMED * strength)


def _remedies(seen: Observation) -> tuple[Remedy, ...]:
    """Training without the labels that the images contradict, or on a loss that wrong labels pull less."""
    problem, images = seen.bench.problem, seen.bench.train.images
    is_small = isinstance(problem.train, Dataset) and len(problem.train.images) <= MOST_EXAMPLES
    pruned = (drop_suspicious,) if is_small and problem.batches is None and images.ndim == 4 else ()
    return (*pruned, use_robust_loss) if is_cross_entropy_of_logits(seen) else pruned


def _advise(seen: Observation) -> Advice:
    """Clean the labels, or live with them."""
    share = fact(seen, "contradicted label share")
    text = (
        f"About {share:.0%} of the labels are wrong. Look at those that held-out predictions contradict most surely and"
        " correct or drop them; until then a robust loss, label smoothing and an early stop keep a network from"
        " learning them by heart."
    )
    return Advice(text, "suspicious = np.flatnonzero(held_out_scores.argmax(1) != labels)")


CAUSES = (
    Cause(
        "label-noise",
        "many labels are wrong",
        "labels",
        _noisy,
        _remedies,
        _advise,
        "Wrong labels pull against right ones: gradients shrink and training slows down at first, and later the"
        " network learns the wrong ones by heart, which costs accuracy on new images.",
        (
            "Northcutt, Jiang & Chuang, Confident learning, JAIR 2021",
            "Rolnick, Veit, Belongie & Shavit, Deep learning is robust to massive label noise, 2017",
        ),
        is_textbook=True,
        harms_late=True,  # wrong labels cost most once they are learnt by heart
        look_alikes=(
            "`labels-unrelated-to-images` leaves neighbours no better than on shuffled labels; noise leaves them less"
            " than clean labels would. Hard images look like noise to simple features, so the reading is decisive only"
            " where training also ends at the loss that so many wrong labels impose."
        ),
    ),
)
