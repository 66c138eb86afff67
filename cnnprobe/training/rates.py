"""How large a step a training bears: its loss while the step grows from far too small to far too large."""

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float

from cnnprobe.checks import check_at_least, check_integer
from cnnprobe.data.batching import endless_batches
from cnnprobe.training.pipeline import prepare
from cnnprobe.training.predict import count_classes
from cnnprobe.training.progress import progress_bar
from cnnprobe.training.step import init_state, make_train_step
from cnnprobe.training.validate import check_problem
from cnnprobe.types import Problem

FEWEST_STEPS = 100  # of a sweep: lines through fewer than ten of them tell little
WIDTH_SHARE = 0.1  # of the steps, that a line is fitted to: 0.8 decades of the default sweep
CHANCE = 0.01  # that a loss without any trend is said to fall somewhere
LOST = 4.0  # times its fall so far: a loss that is so much above its beginning has diverged


class LearningRateRange(NamedTuple):
    """What a sweep of the step size showed; rates are multiples of the optimizer's own step."""

    rates: Float[np.ndarray, " steps"]  # rising, one for each step that was made
    losses: Float[np.ndarray, " steps"]  # the user's own on the training batch, before the update at that rate
    smoothed: Float[np.ndarray, " steps"]  # the same without the noise of the batches; NaN near both ends
    suggestion: float  # the rate at which the loss falls fastest; NaN: it cannot be told
    upper: float  # the one at which the smoothed loss is lowest: above it the training breaks; NaN likewise
    conclusion: str  # the same in a sentence, or why it cannot be told


class Lines(NamedTuple):
    """Straight lines through the losses of neighbouring steps; NaN where there are no neighbours on one side."""

    levels: Float[np.ndarray, " steps"]  # of the line in its middle
    slopes: Float[np.ndarray, " steps"]  # loss per step
    errors: Float[np.ndarray, " steps"]  # standard errors of the slopes


def learning_rate_range(
    problem: Problem, *, lowest: float = 1e-4, highest: float = 1e4, num_steps: int = 200, progress: bool = True
) -> LearningRateRange:
    """Trains with a step that grows from batch to batch, and says between which two sizes to look for the best.

    The optimizer runs as it is, and what it returns is multiplied: 1 is the user's own step. Where its last act is to
    multiply by the learning rate, this is the same as another learning rate. A schedule goes on below the sweep: take a
    warm-up out first. The sweep ends early where the loss is no number any more, or far above its beginning.

    Slopes are those of lines through a tenth of the steps; a fall counts where it is beyond chance (1 % for the whole
    sweep, Student's t). Only what comes before the lowest loss is looked at, since a loss that exploded falls steeply
    when it recovers. As a rule longer trainings bear less than `upper` and want more than `suggestion`, since the sweep
    has learnt much before it comes to larger steps.

    Args:
      problem: what to train; nothing of it is changed.
      lowest: multiple of the optimizer's own step at the first batch.
      highest: the same at the last one.
      num_steps: batches, spread evenly over the decades; 100 or more.
      progress: shows a bar with the time left.

    Raises:
      ValueError: an argument or the problem is malformed.

    References:
      Smith, Cyclical learning rates for training neural networks, WACV 2017: the sweep. Howard & Gugger, fastai: a
      layered API for deep learning, Information 2020: its steepest point. Savitzky & Golay, Smoothing and
      differentiation of data by simplified least squares procedures, 1964: the slopes.
    """
    check_problem(problem)
    check_integer("num_steps", num_steps, FEWEST_STEPS)
    check_at_least("lowest", lowest, 0.0)
    check_at_least("highest", highest, 0.0)
    if not 0 < lowest < highest < np.inf:
        raise ValueError(f"lowest must be above 0 and below highest, got lowest={lowest!r}, highest={highest!r}.")
    rates = np.geomspace(lowest, highest, num_steps)
    width = round(WIDTH_SHARE * num_steps) // 2 * 2 + 1  # odd, so that a step is in the middle
    losses = _swept_losses(problem, rates, width, progress)
    return _conclude(rates, losses, width)


def fit_lines(losses: Float[np.ndarray, " steps"], width: int) -> Lines:
    """A least-squares line through each step and its neighbours, `width` of them in all, an odd number."""
    if len(losses) < width:
        return Lines(*np.full((3, len(losses)), np.nan))
    windows = np.lib.stride_tricks.sliding_window_view(losses, width)
    places = np.arange(width) - width // 2
    spread = np.sum(places**2)
    levels, slopes = windows.mean(axis=1), windows @ places / spread
    residuals = windows - levels[:, None] - slopes[:, None] * places
    errors = np.sqrt(np.sum(residuals**2, axis=1) / (width - 2) / spread)
    return Lines(*(np.pad(x, width // 2, constant_values=np.nan) for x in (levels, slopes, errors)))


def _swept_losses(
    problem: Problem, rates: Float[np.ndarray, " planned"], width: int, progress: bool
) -> Float[np.ndarray, " steps"]:
    """The loss at every rate, until it is lost."""
    table = jnp.asarray(rates, jnp.float32)
    optimizer = optax.chain(problem.optimizer, optax.scale_by_schedule(lambda count: table[count]))
    swept = problem._replace(optimizer=optimizer)
    step = make_train_step(
        problem.model, problem.loss, optimizer, num_classes=count_classes(problem), predict=problem.predict
    )
    key, state, losses = jax.random.key(problem.seed), None, []
    with progress_bar(shown=progress) as tick:
        for index, batch in enumerate(islice(endless_batches(problem), len(rates))):
            images, labels = prepare(problem, batch, jax.random.fold_in(key, index), train=True)
            state = init_state(swept, key, images) if state is None else state
            state, report = step(state, images, labels)
            losses.append(float(report.loss))
            tick(index + 1, len(rates), f"{rates[index]:.1e} x step  loss {losses[-1]:.3g}")
            if _is_lost(losses, width):
                break
    return np.array(losses)


def _is_lost(losses: Sequence[float], width: int) -> bool:
    """Whether the loss is no number, or has risen above its beginning by several times its fall or its noise."""
    if not np.isfinite(losses[-1]):
        return True
    if len(losses) <= width:
        return False
    begun, now = np.mean(losses[:width]), np.mean(losses[-width // 4 :])
    return bool(now > begun + LOST * max(begun - min(losses), np.std(losses[:width])))


def _conclude(
    rates: Float[np.ndarray, " planned"], losses: Float[np.ndarray, " steps"], width: int
) -> LearningRateRange:
    """Where the loss falls fastest, or why that cannot be told."""
    rates, is_whole = rates[: len(losses)], len(losses) == len(rates)
    lines = fit_lines(losses, width)  # NaN, which is never the lowest, where the last loss is no number
    falls = _is_falling(lines, width)
    bottom = int(np.nanargmin(lines.levels)) if np.isfinite(lines.levels).any() else 0
    fastest = int(np.argmin(np.where(falls[: bottom + 1], lines.slopes[: bottom + 1], np.inf)))
    reason = _reason(rates, lines, falls, fastest, is_whole)
    suggestion, upper = (np.nan, np.nan) if reason else (float(rates[fastest]), float(rates[bottom]))
    told = (
        f"The loss falls fastest at {suggestion:.2g} times the optimizer's own step and is lowest at"
        f" {upper:.2g} times: look between the two."
    )
    return LearningRateRange(
        rates, losses, lines.levels, suggestion, upper, f"Cannot tell: {reason}." if reason else told
    )


def _is_falling(lines: Lines, width: int) -> Bool[np.ndarray, " steps"]:
    """Where the slope is below 0 beyond chance, as many places as there are to be wrong at."""
    from scipy.special import stdtrit

    num = max(int(np.isfinite(lines.slopes).sum()), 1)
    with np.errstate(invalid="ignore"):
        return lines.slopes < stdtrit(width - 2, CHANCE / num) * lines.errors


def _reason(
    rates: Float[np.ndarray, " steps"], lines: Lines, falls: Bool[np.ndarray, " steps"], fastest: int, is_whole: bool
) -> str:
    """Why the fastest fall says nothing; empty: it does."""
    known = np.flatnonzero(np.isfinite(lines.levels))
    first, last = f"{rates[0]:.2g}", f"{rates[-1]:.2g} times the optimizer's own step"
    if not len(known):
        return f"the loss is lost after {len(rates)} steps, at {last}; try a lower one"
    if not falls[fastest]:
        return f"from {first} to {last} the loss does not fall beyond chance"
    if fastest == known[0]:
        return f"the loss falls fastest at the lowest rate of {first} to {last}; try lower ones"
    if is_whole and falls[known[-1]]:
        return f"the loss still falls at the highest rate, {last}; try higher ones"
    return ""
