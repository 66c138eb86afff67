"""What the user's loss wants, read from constructed outputs; and what the model gives it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from cnnprobe.doctor.bench import Bench
from cnnprobe.probes.fingerprint import LossFingerprint, loss_fingerprint
from cnnprobe.probes.losses import HEALTHY_LOSSES, name_loss
from cnnprobe.types import Labels

BOUNDED = ("relu", "sigmoid", "tanh")  # activations of the output that the trace names more surely than its range
SLOW_LOSSES = ("class-mean", "summed")  # right but for their scale
RECOVERED = 0.95  # share of free logits that descent brings to the right class


def _leads_right(name: str, fingerprint: LossFingerprint) -> bool:
    """Whether descent on the loss leads to the right class, at whatever pace."""
    return name in HEALTHY_LOSSES or name in SLOW_LOSSES or (name == "unknown" and fingerprint.recovers >= RECOVERED)


class LossLook(NamedTuple):
    """The loss under each way of handing it scores."""

    of_logits: LossFingerprint
    name_of_logits: str  # `name_loss` when it is fed logits
    of_probabilities: LossFingerprint
    name_of_probabilities: str  # when it is fed their softmax (sigmoid for one unit)

    @property
    def wants(self) -> str:
        """`logits`, `probabilities`, `either` or `neither`: what makes it a loss that leads to the right class."""
        logits = _leads_right(self.name_of_logits, self.of_logits)
        probabilities = _leads_right(self.name_of_probabilities, self.of_probabilities)
        if logits and probabilities:
            return "either"
        return "logits" if logits else "probabilities" if probabilities else "neither"

    def name_fed_with(self, outputs: str) -> str:
        """What the loss is on outputs of this name."""
        return self.name_of_probabilities if outputs in ("probabilities", "sigmoid") else self.name_of_logits

    def fed_with(self, outputs: str) -> LossFingerprint:
        """The fingerprint that tells how the loss behaves on outputs of this name."""
        return self.of_probabilities if outputs in ("probabilities", "sigmoid") else self.of_logits


def label_encoder(bench: Bench) -> Callable[[Int[np.ndarray, " n"]], Labels] | None:
    """Class ids written in the user's own label format; None for plain integers.

    One example of each class shows the format, whatever it is; where a class has none, rows are written as one-hot.
    """
    ids, labels = bench.train.ids, np.asarray(bench.train.labels)
    if ids is not None:
        known, first = np.unique(ids, return_index=True)
        if len(known) == bench.num_classes:
            return lambda wanted: labels[first][np.asarray(wanted)]
    if labels.ndim == 2 and labels.shape[1] == bench.num_classes:
        return lambda wanted: np.eye(bench.num_classes, dtype=labels.dtype)[np.asarray(wanted)]
    if labels.ndim == 2:
        return lambda wanted: np.asarray(wanted)[:, None].astype(labels.dtype)
    return None


def look_at_loss(bench: Bench, num_units: int) -> LossLook:
    """Fingerprints the user's loss as it is and behind a softmax."""
    link = jax.nn.sigmoid if num_units <= 1 else jax.nn.softmax

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
