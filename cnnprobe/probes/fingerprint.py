"""What a loss does, read off a few constructed logits: no network and no training is needed.

`cnnprobe.probes.losses.name_loss` judges what is measured here.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cnnprobe.checks import check_callable, check_integer, check_optional
from cnnprobe.compiling import quick_jit
from cnnprobe.types import AnyArray, Labels, Outputs

T = TypeVar("T")
Loss = Callable[[Outputs, Labels], Any]
_SURE = 50.0  # the logit of a confident network
_MOST_CLASSES = 16  # classes drawn: few enough that labels repeat, which faults of the batch axis need to show


class LossFingerprint(NamedTuple):
    """How a loss answers to constructed logits; NaN where it could not be read. CE is softmax cross-entropy."""

    floor: float  # loss at +50 on the right class and -50 elsewhere; 0 for CE
    floor_far: float  # the same at 500; tells a temperature from a second softmax
    uniform: float  # loss at logits of 0; ln(num_classes) for CE
    wrong: float  # loss at +50 on a random wrong class; 100 for CE
    next_class: float  # loss at +50 on the class after the right one; low where labels are shifted by one
    previous_class: float  # loss at +50 on the class before the right one
    shift: float  # |change| / loss when each example's logits are shifted by a number of its own; 0 for CE
    row_sum: float  # mean |sum| / sum of |.| over an example's gradient; 0 for CE
    toward_label_share: float  # examples whose gradient raises the logit of the right class, in [0, 1]; 1 for CE
    zero_gradient_share: float  # examples whose gradient is exactly 0, in [0, 1]; 0 for CE
    gradient_at_zero: float  # mean norm over examples of batch * gradient at logits of 0; .949 for CE and 10 classes
    cross_example: float  # relative change of the other examples' gradients when one example changes; 0 for CE
    duplication: float  # loss of the batch repeated twice / loss of the batch; 1 for a mean, 2 for a sum
    recovers: float  # examples whose prediction is right after gradient descent on free logits, in [0, 1]; 1 for CE
    blind_gradient: float  # as at zero, after descent on logits that all examples share; about 1 for CE, and never 0
    num_nonfinite: int  # NaN or infinite numbers among the first six readings and the gradient at random logits
    num_units: int  # width of the constructed logits; 0: logits without that axis
    output_shape: tuple[int, ...]  # what the loss returns; () for a scalar
    failure: str  # what the loss raised, "" if nothing

    @property
    def is_scalar(self) -> bool:
        """Whether the loss returns one number, as `jax.grad` needs."""
        return self.output_shape == () and not math.isnan(self.floor)


class _Case(NamedTuple):
    """The constructed batch: everything that a fingerprint needs besides the loss."""

    ids: Int[np.ndarray, " n"]
    wrong_ids: Int[np.ndarray, " n"]
    labels: Any  # of `ids`, in the user's format
    labels_twice: Any  # of `ids` repeated twice
    shifts: Float[np.ndarray, "n 1"]
    logits: Float[np.ndarray, "n units"]  # standard normal
    other: Float[np.ndarray, "n units"]  # `logits` with another first row


class _Values(NamedTuple):
    """Loss at constructed logits, in the words of `LossFingerprint`."""

    floor: float = math.nan
    floor_far: float = math.nan
    uniform: float = math.nan
    wrong: float = math.nan
    next_class: float = math.nan
    previous_class: float = math.nan
    shift: float = math.nan
    duplication: float = math.nan


class _Slopes(NamedTuple):
    """Gradients of the loss with respect to constructed logits, in the words of `LossFingerprint`."""

    row_sum: float = math.nan
    toward_label_share: float = math.nan
    zero_gradient_share: float = math.nan
    gradient_at_zero: float = math.nan
    cross_example: float = math.nan
    num_nonfinite: int = 0  # entries of the gradient at random logits
    recovers: float = math.nan
    blind_gradient: float = math.nan


def loss_fingerprint(
    loss: Loss,
    num_classes: int,
    *,
    encode: Callable[[Int[np.ndarray, " n"]], Labels] | None = None,
    num_units: int | None = None,
    link: Callable[[Float[Array, "n units"]], Outputs] | None = None,
    num_images: int = 64,
    seed: int = 0,
) -> LossFingerprint:
    """Reads a loss `(outputs, labels) -> number` on constructed logits and random labels.

    A loss that raises is reported in `failure`, never raised. One that cannot be compiled runs uncompiled, one that
    cannot be differentiated gives its values only, and one that returns several numbers is read as their mean.

    Args:
      loss: exactly as the network is trained with it.
      num_classes: at least 2.
      encode: takes integer labels to the form that the loss expects; None: they stay integers.
      num_units: width of the network's output; None: `num_classes`; 1: a single logit, positive for class 1; 0: the
        same without the axis of units.
      link: what stands between logits and the loss: `jax.nn.softmax` for a loss that takes probabilities.
      num_images: examples in the constructed batch.
      seed: of labels and random logits.

    Raises:
      ValueError: an argument is out of range or no function.
    """
    check_callable("loss", loss)
    check_integer("num_classes", num_classes, 2)
    check_integer("num_images", num_images, 2)
    num_units = num_classes if num_units is None else num_units
    check_integer("num_units", num_units, 0)
    check_optional(check_callable, "encode", encode)
    check_optional(check_callable, "link", link)

    def call(logits: Float[Array, "n units"], labels: Any) -> Array:
        """The loss of constructed logits."""
        outputs = logits if num_units else logits[:, 0]
        return _as_array(loss(outputs if link is None else link(outputs), labels))

    values, slopes, failure = _Values(), _Slopes(), ""
    output_shape: tuple[int, ...] = ()
    try:
        case = _construct(num_classes, max(num_units, 1), encode or (lambda ids: ids), num_images, seed)
        output_shape = np.shape(call(jnp.asarray(case.logits), case.labels))
        values = _measure_values(call, case, num_classes)
        slopes = _measure_slopes(call, case)
    except Exception as error:  # whatever the user's functions raise is the reading
        failure = _describe(error)
    num_nonfinite = sum(not math.isfinite(value) for value in values[:6]) + slopes.num_nonfinite
    readings = {**values._asdict(), **slopes._asdict(), "num_nonfinite": num_nonfinite}
    return LossFingerprint(**readings, num_units=num_units, output_shape=output_shape, failure=failure)


def _construct(
    num_classes: int, num_units: int, encode: Callable[[np.ndarray], Any], num_images: int, seed: int
) -> _Case:
    """Draws labels and logits; the labels stay outside of any trace, as in the user's own loader."""
    rng = np.random.default_rng(seed)
    classes = np.linspace(0, num_classes - 1, min(num_classes, _MOST_CLASSES)).round().astype(np.int32)
    ids = rng.choice(classes, num_images)
    logits = rng.normal(size=(num_images, num_units)).astype(np.float32)
    return _Case(
        ids=ids,
        wrong_ids=(ids + rng.integers(1, num_classes, num_images)) % num_classes,
        labels=encode(ids),
        labels_twice=encode(np.concatenate([ids, ids])),
        shifts=3 * rng.normal(size=(num_images, 1)).astype(np.float32),
        logits=logits,
        other=np.concatenate([rng.normal(size=(1, num_units)).astype(np.float32), logits[1:]]),
    )


def _measure_values(call: Loss, case: _Case, num_classes: int) -> _Values:
    """Evaluates the loss at chosen logits."""
    value = _compiled(lambda logits, labels: jnp.mean(call(jnp.asarray(logits), labels)), case.logits, case.labels)

    def at(logits: Float[np.ndarray, "n units"]) -> float:
        """The loss at some logits, on the host."""
        return float(value(logits, case.labels))

    def sure(ids: Int[np.ndarray, " n"], size: float = _SURE) -> float:
        """Logits that are sure of some classes."""
        return at(_sure_logits(ids, case.logits.shape[1], size))

    base = at(case.logits)
    return _Values(
        floor=sure(case.ids),
        floor_far=sure(case.ids, 10 * _SURE),
        uniform=at(np.zeros_like(case.logits)),
        wrong=sure(case.wrong_ids),
        next_class=sure((case.ids + 1) % num_classes),
        previous_class=sure((case.ids - 1) % num_classes),
        shift=abs(_divide(at(case.logits + case.shifts) - base, base)),
        duplication=_divide(float(value(np.concatenate([case.logits] * 2), case.labels_twice)), base),
    )


def _measure_slopes(call: Loss, case: _Case) -> _Slopes:
    """Differentiates the loss at chosen logits and descends it."""
    descent = _descent(call)
    step = _compiled(descent, case.logits, np.float32(1), case.labels)

    def gradient(logits: Float[np.ndarray, "n units"]) -> Float[np.ndarray, "n units"]:
        """The gradient at some logits, on the host."""
        return np.asarray(step(logits, np.float32(0), case.labels)[1])

    def size_of(rows: Float[np.ndarray, "n units"]) -> float:
        """Mean norm of a gradient over examples, of the loss of each alone."""
        return len(rows) * float(np.mean(np.linalg.norm(rows, axis=1)))

    rows, others, at_zero = gradient(case.logits), gradient(case.other), gradient(np.zeros_like(case.logits))
    sizes = np.sum(np.abs(rows), axis=1)
    sums = [_divide(abs(float(row.sum())), float(size)) for row, size in zip(rows, sizes, strict=True)]
    num_steps = 40 if step is descent else 300  # uncompiled, a step is slow
    shared = _descended(step, case, num_steps=num_steps, is_shared=True)
    return _Slopes(
        row_sum=float(np.mean(sums)),
        toward_label_share=float(np.mean(_toward_label(rows, case.ids))),
        zero_gradient_share=float(np.mean(sizes == 0)),
        gradient_at_zero=size_of(at_zero),
        cross_example=_divide(float(np.linalg.norm(others[1:] - rows[1:])), float(np.linalg.norm(rows[1:]))),
        num_nonfinite=int(np.sum(~np.isfinite(rows))),
        recovers=_right_share(_descended(step, case, num_steps=num_steps), case),
        blind_gradient=size_of(gradient(shared)),
    )


def _descent(call: Loss) -> Callable[..., tuple[Array, Array]]:
    """Builds `(logits, length, labels) -> (logits after a step of that length, gradient)`."""
    slope = jax.grad(lambda logits, labels: jnp.mean(call(logits, labels)))

    def step(start: Float[AnyArray, "n units"], length: Float[AnyArray, ""], labels: Any) -> tuple[Array, Array]:
        """One step of gradient descent, and the gradient."""
        logits = jnp.asarray(start)
        gradient = slope(logits, labels)
        finite = jnp.where(jnp.isfinite(gradient), gradient, 0)
        # Measured by the gradient's own size, a step suits sums, means and losses of any scale.
        size = jnp.mean(jnp.max(jnp.abs(finite), axis=1))
        return logits - length * finite / jnp.where(size > 0, size, 1), gradient

    return step


def _descended(
    step: Callable[..., tuple[Array, Array]], case: _Case, *, num_steps: int, is_shared: bool = False
) -> Float[np.ndarray, "n units"]:
    """Free logits after descent; `is_shared`: those of all examples are kept equal, as of a network that is blind."""
    logits: Any = np.zeros_like(case.logits) if is_shared else 0.1 * case.logits
    # A loop and not a scan: this one compiled step gives the gradients above as well.
    for length in np.linspace(1.0, 0.02, num_steps, dtype=np.float32):
        logits, _ = step(logits, length, case.labels)
        logits = np.broadcast_to(np.mean(logits, axis=0), case.logits.shape) if is_shared else logits
    return np.asarray(logits)


def _right_share(logits: Float[np.ndarray, "n units"], case: _Case) -> float:
    """Share of examples whose logits name the right class."""
    if logits.shape[1] > 1:
        return float(np.mean(np.argmax(logits, axis=1) == case.ids))
    # A single unit may separate the classes at 0 or at 1/2: take the middle of what it learned.
    return float(np.mean((logits[:, 0] > (logits.max() + logits.min()) / 2) == (case.ids > 0)))


def _sure_logits(ids: Int[np.ndarray, " n"], num_units: int, size: float) -> Float[np.ndarray, "n units"]:
    """`size` on the named class and -`size` elsewhere; a single unit is positive for classes above 0."""
    units = np.arange(num_units) if num_units > 1 else np.ones(1, int)
    named = ids if num_units > 1 else ids > 0
    return np.where(named[:, None] == units, size, -size).astype(np.float32)


def _toward_label(rows: Float[np.ndarray, "n units"], ids: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Whether descent raises the logit of the right class."""
    if rows.shape[1] == 1:
        return np.where(ids > 0, rows[:, 0] < 0, rows[:, 0] > 0)
    return np.any((rows < 0) & (ids[:, None] == np.arange(rows.shape[1])), axis=1)


def _divide(numerator: float, denominator: float) -> float:
    """Quotient of two numbers; 0 where the denominator is 0."""
    return numerator / denominator if denominator != 0 else 0.0


def _as_array(value: Any) -> Array:
    """What a loss returned, as floats; a loss with extras is no loss."""
    if value is None or isinstance(value, tuple | list | dict):
        raise TypeError(f"the loss must return an array, got a {type(value).__name__}.")
    return jnp.asarray(value).astype(jnp.float32)


def _compiled(fn: Callable[..., T], *args: Any) -> Callable[..., T]:
    """The function compiled, where it can be for such arguments; else as it is.

    Losses that look at values, or take labels that are no arrays, run only as they are.
    """
    compiled = quick_jit(fn)
    try:
        compiled(*args)
    except Exception:  # what fails uncompiled too gives its plainer error there
        return fn
    return compiled


def _describe(error: Exception) -> str:
    """Kind and first line of an error."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]
