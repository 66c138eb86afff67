"""What the probed run of the user's own configuration shows."""

import jax
import numpy as np
from jaxtyping import Bool, Float

from cnnprobe.doctor.run import ROWS, Run
from cnnprobe.trees import is_floating, per_layer
from cnnprobe.types import AnyArray, Curve, State

SMOOTHING = 5  # steps in a moving average: a single small batch may have a large loss by chance
HELD, EDGE = "share of weights in the state", "spectral edge of held weights"
MOST_KERNELS, MOST_ROWS, FEWEST_ROWS = 20, 512, 16  # that are looked at; rows and columns of each
TAIL = 0.1  # share of the steps that count as the end
FLOOR = 1e-30  # of squares, under the logarithm
STRAIGHT_UP = -0.9  # cosine with the way down; a parameter of one number has 1 or -1, so most steps must agree
MOST, FEWEST = 0.9, 20  # share of the steps, and steps with an update and a gradient, that tell a direction


def _smooth(loss: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " windows"]:
    """Moving average."""
    width = min(SMOOTHING, len(loss))
    return np.convolve(loss, np.ones(width) / width, mode="valid")


def _tail(values: np.ndarray) -> np.ndarray:
    """The last tenth of the steps, ten at least."""
    return values[-max(10, int(TAIL * len(values))) :]


def look_at_loss_curve(curve: Curve, blind: float) -> dict[str, float]:
    """Level, jumps and breaks of the loss; `blind` is the loss of a guess that ignores the images (NaN: not known)."""
    loss = np.asarray(curve.loss, np.float64)
    finite = np.isfinite(loss)
    facts = {
        "number of steps": float(len(loss)),
        "non finite loss share": float(np.mean(~finite)),
        "first non finite step": float(np.argmin(finite)) if not finite.all() else float("nan"),
        "training batch accuracy": float(np.mean(_tail(curve.accuracy))),
    }
    if not finite.any():
        return facts
    smooth = _smooth(loss[finite])
    reference = np.nanmax([loss[finite][0], blind])  # the first loss itself: an average of five may hold the jump
    end = float(np.mean(_tail(loss[finite])))
    if blind > 0:
        facts["first training loss ratio"] = float(loss[finite][0] / blind)
    if reference > 0:
        facts["largest loss ratio"] = float(np.max(smooth) / reference)
        facts["end loss ratio"] = end / (blind if blind > 0 else reference)
    facts["loss drop"] = float(smooth[0] - end)
    return facts


def _row(run: Run, name: str) -> Float[np.ndarray, "steps leaves"]:
    """One of the sums of `leaf_readings`, in float64."""
    return np.asarray(run.leaves[:, ROWS.index(name)], np.float64)


def _log10_ratios(run: Run) -> Float[np.ndarray, "steps leaves"]:
    """log10 of |update| / |parameters|; -inf where nothing moves."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 0.5 * np.log10(_row(run, "update") / np.maximum(_row(run, "param"), FLOOR))


def _kernels(run: Run) -> np.ndarray:
    """Which leaves are kernels: those with two axes or more."""
    return np.asarray([np.ndim(leaf) >= 2 for leaf in jax.tree.leaves(run.first[0])])


def _float16_leaves(run: Run) -> Bool[np.ndarray, " leaves"]:
    """Parameters whose numbers end at 6e-8 and 65504; those of bfloat16 reach as far as those of float32."""
    return np.asarray([leaf.dtype == np.float16 for leaf in jax.tree.leaves(run.first[0])], bool)


def look_at_updates(run: Run) -> dict[str, float]:
    """Size, direction and reach of the updates."""
    sizes = np.asarray(run.leaf_sizes, np.float64)
    update, grad = _row(run, "update"), _row(run, "gradient")
    ratios = _log10_ratios(run)[:, _kernels(run)]
    moving = ratios[np.isfinite(ratios)]
    frozen, cut, climbs = frozen_leaves(run), np.all(grad == 0, axis=0), uphill_leaves(run)
    zeros = _row(run, "zeros").sum(axis=1) / sizes.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        norm_ratio = np.sqrt(update.sum(axis=1) / grad.sum(axis=1))
    return {
        "log10 of update over parameter": float(np.median(moving)) if moving.size else -np.inf,
        "update over gradient": _finite_median(norm_ratio),
        "update cosine": _median_cosine(run, np.ones_like(climbs)),
        "frozen parameter share": float(sizes[frozen].sum() / sizes.sum()),
        "uphill parameter share": float(sizes[climbs].sum() / sizes.sum()),
        "update cosine of the others": _median_cosine(run, ~climbs),
        "cut gradient share": float(sizes[cut].sum() / sizes.sum()),
        "float16 parameter share": float(sizes[_float16_leaves(run)].sum() / sizes.sum()),
        "number of updates": float(np.sum(update.sum(axis=1) > 0)),
        "last update": float(np.max(np.flatnonzero(update.sum(axis=1) > 0), initial=-1)) + 1.0,
        "log10 of late over early step": _late_over_early(np.sqrt(update.sum(axis=1)), np.sqrt(grad.sum(axis=1))),
        # An output layer that starts at zero passes no gradient in the first step.
        "first zero gradient share": float(np.min(zeros[:5])),
        "last zero gradient share": float(np.mean(_tail(zeros))),
        "parameter growth": float(np.sqrt(_row(run, "param")[-1].sum() / max(_row(run, "param")[0].sum(), FLOOR))),
    }


def _median_cosine(run: Run, chosen: Bool[np.ndarray, " leaves"]) -> float:
    """Cosine of the chosen parameters' updates with the way down, in the first steps."""
    rows = (_row(run, name)[:5, chosen].sum(axis=1) for name in ("update", "gradient", "descent"))
    return _finite_median(_cosines(*rows))


def _cosines(update: np.ndarray, grad: np.ndarray, descent: np.ndarray) -> np.ndarray:
    """Cosines with the way down, of sums over parameters; NaN where nothing moves or no gradient is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return descent / np.sqrt(update * grad)


def _late_over_early(updates: Float[np.ndarray, " steps"], grads: Float[np.ndarray, " steps"]) -> float:
    """log10 of how long updates are beside their gradients in the second half of the steps, against the first half.

    Sums over many steps, since gradients may be gathered before each update. -inf where the second half has none; NaN
    where the first half has none, or one of them no gradient.
    """
    finite = np.isfinite(updates + grads)
    halves = [half[finite[half]] for half in np.array_split(np.arange(len(updates)), 2)]
    moved, asked = (np.array([values[half].sum() for half in halves]) for values in (updates, grads))
    if not (moved[0] > 0 and np.all(asked > 0)):
        return float("nan")
    with np.errstate(divide="ignore"):
        return float(np.log10(moved[1] / asked[1]) - np.log10(moved[0] / asked[0]))


def _finite_median(values: np.ndarray) -> float:
    """Median of the finite values; NaN without any."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")


def frozen_leaves(run: Run) -> Bool[np.ndarray, " leaves"]:
    """Which parameters learnt nothing: no update, or no gradient, since weight decay alone moves too."""
    return np.all(_row(run, "update") == 0, axis=0) | np.all(_row(run, "gradient") == 0, axis=0)


def look_at_held(run: Run) -> tuple[dict[str, float], dict[str, str]]:
    """Kernels in the state, which nothing trains: their share of all weights, how random they look, and their names."""
    kernels, num_trained = held_kernels(run.first[1], run.last[1]), sum(run.leaf_sizes)
    num = sum(kernel.size for kernel in kernels.values())
    edges = np.asarray([spectral_edge(kernel) for kernel in list(kernels.values())[:MOST_KERNELS]])
    facts = {HELD: num / (num + num_trained), EDGE: _finite_median(edges)}
    return facts, {"held": _listed(list(kernels))}


def held_kernels(first: State, last: State) -> dict[str, AnyArray]:
    """Arrays of real numbers with several rows and columns that stay as they were, by name."""
    before, after = (per_layer(lambda leaf: leaf, state) for state in (first, last))
    return {
        name: leaf
        for name, leaf in before.items()
        if is_floating(leaf) and sum(axis > 1 for axis in np.shape(leaf)) > 1
        if name in after and np.array_equal(leaf, after[name])
    }


def spectral_edge(kernel: AnyArray) -> float:
    """Largest singular value over what independent entries of the same variance give: about 1 as drawn.

    Training adds directions that stand out. Read from some 512 rows and columns at most; NaN for a kernel of fewer than
    16 of either, whose largest one is any, or of equal entries.

    References:
      Bai & Yin, Limit of the smallest eigenvalue of a large dimensional sample covariance matrix, 1993.
      Martin & Mahoney, Implicit self-regularization in deep neural networks, JMLR 2021.
    """
    units = [axis for axis in np.shape(kernel) if axis > 1][-1]
    rows = np.asarray(kernel, np.float32).reshape(-1, units)
    rows = rows[:: -(-len(rows) // MOST_ROWS), :: -(-units // MOST_ROWS)]
    if min(rows.shape) < FEWEST_ROWS or not rows.std() > 0:
        return float("nan")
    return float(np.linalg.norm(rows, 2) / (rows.std() * np.sqrt(rows.shape).sum()))


def uphill_leaves(run: Run) -> Bool[np.ndarray, " leaves"]:
    """Which parameters are moved along their own gradient in most steps, nearly straight up."""
    cosines = _cosines(_row(run, "update"), _row(run, "gradient"), _row(run, "descent"))
    told = [leaf[np.isfinite(leaf)] for leaf in cosines.T]
    return np.asarray([len(leaf) >= FEWEST and np.quantile(leaf, MOST) < STRAIGHT_UP for leaf in told], bool)


def name_leaves(run: Run, chosen: Bool[np.ndarray, " leaves"]) -> str:
    """The chosen parameters by name, three at most."""
    return _listed([name for name, is_chosen in zip(run.leaf_names, chosen, strict=True) if is_chosen])


def _listed(names: list[str]) -> str:
    """Three of them at most."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
