"""Labels that are wrong at random."""

from cnnprobe.doctor.causes.pairing import MOVED, dealt_anew_share
from cnnprobe.doctor.causes.record import Advice, Cause, fact, graded, highest, readings
from cnnprobe.doctor.observation import Observation
from cnnprobe.doctor.remedies_data import drop_suspicious, use_robust_loss
from cnnprobe.types import Dataset, Evidence, Remedy

USUAL = 0.25  # share of wrong labels up to which networks learn nearly as well
CLEARLY = 1.4  # times the start, from which a share is no chance: it is counted on some hundred images
UNCONFIRMED = 0.85  # strength below what speaks for itself: hard images look like noise to simple features
BY_HEART = 0.9  # training accuracy from which a network says nothing of wrong labels any more
LINKED_Z = 4.0  # standard deviations of the permutation null; below, labels have nothing to do with the images
FEWEST_READ = 300  # images
MOST_EXAMPLES = 3000  # that can be judged by the images of the other half within seconds


def noise_start() -> float:
    """Share of contradicted labels from which they count as noise."""
    return max(USUAL, highest("contradicted label share", factor=1.3))


def _noisy(seen: Observation) -> Evidence | None:
    """Labels that contradict their images where these leave no doubt, to simple features and to the network."""
    share, start = fact(seen, "contradicted label share"), noise_start()
    linked = max(fact(seen, "pixel neighbours z"), fact(seen, "random features z")) > LINKED_Z
    strength = graded(share, start, CLEARLY * start)
    if not (strength and linked and fact(seen, "images read") >= FEWEST_READ) or dealt_anew_share(seen) > MOVED:
        return None
    by_network = fact(seen, "label share contradicted by the network")
    if by_network < start / 2 and fact(seen, "training accuracy") < BY_HEART:
        return None  # the images are hard for simple features, not for the network
    sentence = (
        f"Where images leave least doubt, {share:.0%} of the labels say something else than images that look alike"
    )
    sentence += f", and {by_network:.0%} from what the trained network says." if by_network > start else "."
    names = ("contradicted label share", "label share contradicted by the network", "random features accuracy")
    return Evidence(sentence, readings(seen, *names), strength if by_network > start else UNCONFIRMED * strength)


def _remedies(seen: Observation) -> tuple[Remedy, ...]:
    """Training without the labels that the images contradict, or on a loss that wrong labels pull less."""
    problem, images = seen.bench.problem, seen.bench.train.images
    is_small = isinstance(problem.train, Dataset) and len(problem.train.images) <= MOST_EXAMPLES
    pruned = (drop_suspicious,) if is_small and problem.batches is None and images.ndim == 4 else ()
    is_plain = seen.names.get("loss of logits") == "cross-entropy" and seen.names.get("outputs") == "logits"
    return (*pruned, use_robust_loss) if is_plain else pruned


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
    ),
)
