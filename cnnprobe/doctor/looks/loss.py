"""What the user's loss wants, read from constructed outputs; and what the model gives it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from cnnprobe.compiling import quick_jit
from cnnprobe.doctor.bench import Bench
from cnnprobe.probes.fingerprint import LossFingerprint, loss_fingerprint
from cnnprobe.probes.losses import HEALTHY_LOSSES, name_loss, rescaled
from cnnprobe.types import Labels

BOUNDED = ("relu", "sigmoid", "tanh")  # activations of the output that the trace names more surely than its range
SLOW_LOSSES = ("class-mean", "summed")  # right but for their scale
RECOVERED = 0.95  # share of free logits that descent brings to the right class
NUM_CONSTRUCTED = 64  # examples of the constructed batch


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
            bench.problem.loss,
            bench.num_classes,
            encode=label_encoder(bench),
            num_units=num_units,
            link=link,
            num_images=NUM_CONSTRUCTED,
        )

    logits, probabilities = fingerprint(None), fingerprint(link)
    return LossLook(logits, _name(logits, bench.num_classes), probabilities, _name(probabilities, bench.num_classes))


def _name(fingerprint: LossFingerprint, num_classes: int) -> str:
    """The name of a loss; of a sum over the batch, what else is wrong with it, if anything is."""
    name = name_loss(fingerprint, num_classes)
    if name != "summed":
        return name
    inner = name_loss(rescaled(fingerprint, 1 / NUM_CONSTRUCTED)._replace(duplication=1.0), num_classes)
    return name if inner in HEALTHY_LOSSES or inner == "unknown" else inner


def label_reach(bench: Bench, num_units: int, outputs: str) -> float:
    """Share of what the label of one image changes in the gradient that falls on other images, in [0, 1].

    0 for a loss that holds each image against its own label, near 1 for one that holds every image against every
    label. `outputs` is what the model's outputs look like, as `name_outputs` says it.
    """
    link = {"probabilities": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}.get(outputs, lambda scores: scores)
    encode, num_classes = label_encoder(bench) or (lambda ids: ids), bench.num_classes
    rng = np.random.default_rng(0)
    ids = rng.integers(0, num_classes, NUM_CONSTRUCTED)
    changed = np.concatenate([(ids[:1] + 1) % num_classes, ids[1:]])
    scores = rng.normal(size=(NUM_CONSTRUCTED, max(num_units, 1))).astype(np.float32)
    slope = jax.grad(lambda z, labels: bench.problem.loss(link(z if num_units else z[:, 0]), labels))
    try:
        compiled = quick_jit(slope)
        difference = np.asarray(compiled(scores, encode(changed)) - compiled(scores, encode(ids)))
    except Exception:  # a loss that looks at values runs only as it is
        difference = np.asarray(slope(jnp.asarray(scores), encode(changed)) - slope(jnp.asarray(scores), encode(ids)))
    sizes = np.linalg.norm(difference, axis=1)
    return float(sizes[1:].sum() / sizes.sum()) if sizes.sum() > 0 else float("nan")


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
