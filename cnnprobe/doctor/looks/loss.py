"""What the user's loss wants, read from constructed outputs; and what the model gives it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from cnnprobe.doctor.bench import Bench
from cnnprobe.probes.fingerprint import LossFingerprint, loss_fingerprint
from cnnprobe.probes.losses import name_loss
from cnnprobe.types import Labels

HEALTHY_LOSSES = ("cross-entropy", "smoothed cross-entropy", "focal", "one-vs-rest", "hinge")
SLOW_LOSSES = ("squared-error", "class-mean")  # they lead to the right answer, slowly


class LossLook(NamedTuple):
    """The loss under each way of handing it scores."""

    of_logits: LossFingerprint
    name_of_logits: str  # `name_loss` when it is fed logits
    of_probabilities: LossFingerprint
    name_of_probabilities: str  # when it is fed their softmax (sigmoid for one unit)

    @property
    def wants(self) -> str:
        """`logits`, `probabilities`, `either` or `neither`: what makes it a loss that leads to the right class."""
        logits = self.name_of_logits in HEALTHY_LOSSES + SLOW_LOSSES
        probabilities = self.name_of_probabilities in HEALTHY_LOSSES + SLOW_LOSSES
        return {(True, True): "either", (True, False): "logits", (False, True): "probabilities"}.get(
            (logits, probabilities), "neither"
        )

    def fed_with(self, outputs: str) -> LossFingerprint:
        """The fingerprint that tells how the loss behaves on outputs of this name."""
        return self.of_probabilities if outputs in ("probabilities", "sigmoid") else self.of_logits


def label_encoder(bench: Bench) -> Callable[[Int[np.ndarray, " n"]], Labels] | None:
    """Class ids written in the user's own label format, by example; None where some class has no example."""
    ids = bench.train.ids
    if ids is None or not set(range(bench.num_classes)) <= set(ids.tolist()):
        return None
    rows = np.asarray([np.flatnonzero(ids == c)[0] for c in range(bench.num_classes)])
    examples = np.asarray(bench.train.labels)[rows]
    return lambda wanted: examples[np.asarray(wanted)]


def look_at_loss(bench: Bench, num_units: int) -> LossLook:
    """Fingerprints the user's loss as it is and behind a softmax."""
    link = jax.nn.sigmoid if num_units == 1 else jax.nn.softmax

    def fingerprint(link: Callable | None) -> LossFingerprint:
        """The reading behind `link`."""
        return loss_fingerprint(
            bench.problem.loss, bench.num_classes, encode=label_encoder(bench), num_units=num_units, link=link
        )

    logits, probabilities = fingerprint(None), fingerprint(link)
    return LossLook(
        logits, name_loss(logits, bench.num_classes), probabilities, name_loss(probabilities, bench.num_classes)
    )


def name_outputs(scores: Float[np.ndarray, "batch units"]) -> str:
    """What outputs look like: `logits`, `probabilities`, `log-probabilities`, `sigmoid`, `relu` or `constant`."""
    finite = scores[np.all(np.isfinite(scores), axis=1)]
    if not len(finite) or np.ptp(finite) == 0:
        return "constant"
    if np.all(finite >= 0):
        return _name_positive(finite)
    if np.allclose(jnp.sum(jnp.exp(finite), axis=1), 1.0, atol=1e-3):
        return "log-probabilities"
    return "logits"


def _name_positive(scores: Float[np.ndarray, "batch units"]) -> str:
    """Names outputs of which none is negative."""
    if scores.shape[1] > 1 and np.allclose(scores.sum(axis=1), 1.0, atol=1e-3):
        return "probabilities"
    if np.mean(scores == 0) > 0.05:
        return "relu"
    return "sigmoid" if np.all(scores < 1) else "logits"
