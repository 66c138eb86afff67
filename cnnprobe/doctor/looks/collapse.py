"""Whether the network names one class for a whole batch, and which mechanism makes it."""

from collections.abc import Iterable
from itertools import islice

import jax
import numpy as np
from jaxtyping import Int

from cnnprobe.data.batching import endless_batches
from cnnprobe.data.sampling import in_time
from cnnprobe.doctor.bench import Bench, decide
from cnnprobe.doctor.compiled import class_counts
from cnnprobe.doctor.run import Run, outputs_of
from cnnprobe.probes.collapse import BatchCollapse, batch_collapse, collapse_split
from cnnprobe.training.pipeline import prepare
from cnnprobe.types import Curve

SETTLED = 0.3  # share of the steps after which predictions are held to be the run's own
FEWEST = 5  # steps that say anything
NUM_BATCHES = 40  # of each frozen condition
SPLIT_FROM = 0.1  # collapse index from which the mechanism is worth three more passes


def stream_collapse(curve: Curve) -> BatchCollapse | None:
    """Collapse of the run's own predictions, batch after batch."""
    start = int(SETTLED * len(curve.loss))
    predictions, labels = curve.prediction_counts[start:], curve.label_counts[start:]
    return None if len(predictions) < FEWEST else batch_collapse(predictions, labels)


def collapse_facts(own: BatchCollapse) -> dict[str, float]:
    """How far the run's own predictions follow the batch."""
    return {
        "collapse index": float(own.index),
        "collapse z": float(own.z),
        "top prediction share": float(own.top_share),
        "lag agreement over chance": float(own.lag_agreement) / max(float(own.lag_chance), 1e-9),
    }


def _frozen(bench: Bench, run: Run, batches: Iterable[np.ndarray], *, train_mode: bool) -> BatchCollapse:
    """Collapse of the trained network, not updated any more, on some batches."""
    counts: list[Int[np.ndarray, " classes"]] = []
    for index, images in enumerate(batches):
        key = jax.random.key(index)
        outputs = outputs_of(bench.problem, run.last, images, train_mode=train_mode, key=key, deadline=bench.deadline)
        counts.append(np.asarray(class_counts(decide(outputs, bench.num_classes), bench.num_classes)))
    return batch_collapse(np.stack(counts))


def _random_batches(bench: Bench) -> list[np.ndarray]:
    """Batches of the user's size drawn from the sample."""
    rng, num = np.random.default_rng(bench.problem.seed), len(bench.train.images)
    size = min(bench.problem.batch_size, num)
    return [bench.train.images[rng.choice(num, size, replace=False)] for _ in range(NUM_BATCHES)]


def look_at_collapse(bench: Bench, run: Run) -> tuple[dict[str, float], dict[str, str]]:
    """The collapse index of the run; where it is high, the mechanism, from three passes with frozen parameters."""
    own = stream_collapse(run.curve)
    if own is None:
        return {}, {}
    facts = collapse_facts(own)
    if not own.index > SPLIT_FROM:
        return facts, {"collapse mechanism": "none"}
    key = jax.random.key(bench.problem.seed)
    batches = in_time(islice(endless_batches(bench.problem), NUM_BATCHES), bench.read_seconds)
    loader = (prepare(bench.problem, batch, key, train=True).images for batch in batches)
    drawn = _random_batches(bench)
    split = collapse_split(
        own,
        _frozen(bench, run, (np.asarray(images) for images in loader), train_mode=True),
        _frozen(bench, run, drawn, train_mode=True),
        _frozen(bench, run, drawn, train_mode=False),
    )
    facts |= {
        f"collapse index, {name.replace('_', ' ')}": value
        for name, value in split._asdict().items()
        if "frozen" in name
    }
    return facts, {"collapse mechanism": split.mechanism}
