"""Running statistics: what a training pass keeps of them, and where many passes bring them."""

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cnnprobe.trees import is_floating
from cnnprobe.types import AnyArray, Batch, State

Pass = Callable[[State, int, Batch], State]  # (state, number of the batch, batch) -> state
EXACT = 1e-3  # relative difference that rounding leaves of what is an average


def momentum(step: Pass, state: State, batch: Batch) -> float:
    """Share of the old state that a pass keeps, the median over its vectors: 1 for statistics that never move.

    The new state is an average of the old one and the batch, so two old states that are 1 apart give two new ones that
    are the momentum apart. NaN without a real vector.
    """
    shifted = jax.tree.map(lambda x: x + 1 if is_floating(x) else x, state)
    pairs = zip(*(jax.tree.leaves(jax.device_get(step(old, 0, batch))) for old in (state, shifted)), strict=True)
    kept = [np.mean(high - low) for low, high in pairs if is_floating(low) and _is_vector(low)]
    return float(np.median(kept)) if kept else float("nan")


def _is_vector(leaf: AnyArray) -> bool:
    """Whether at most one axis is longer than 1, as of statistics of channels."""
    return sum(axis > 1 for axis in np.shape(leaf)) < 2


def end_of_averages(step: Pass, state: State, batches: Iterator[Batch]) -> State | None:
    """Where a state ends whose passes do nothing but average: a pass takes s to `m s + (1 - m) b`, so at the mean b.

    From a state of zeros a pass gives `(1 - m) b`, and from one of ones m more. None where something else moves, as a
    counter does, where numbers are too coarse to tell m, or where the averages are no such ones.
    """
    old, structure = jax.tree.flatten(state)
    first = next(batches)
    once = step(state, 0, first)
    if str(jax.tree.structure(once)) != str(structure):
        return None
    new = jax.tree.leaves(once)
    moves = [not _is_same(a, b) for a, b in zip(old, new, strict=True)]
    if any(moved and not is_floating(leaf) for leaf, moved in zip(old, moves, strict=True)):
        return None

    def passed(value: float, index: int, batch: Batch) -> list[np.ndarray]:
        """What a pass makes of the leaves that move, from one value everywhere."""
        filled = [np.full_like(leaf, value) if moved else leaf for leaf, moved in zip(old, moves, strict=True)]
        return _chosen(jax.tree.leaves(step(jax.tree.unflatten(structure, filled), index, batch)), moves)

    total, ones = (passed(value, 0, first) for value in (0.0, 1.0))
    kept = [one - zero for zero, one in zip(total, ones, strict=True)]
    if not all(map(_is_average, kept, total, _chosen(old, moves), _chosen(new, moves))):
        return None
    num = 1
    for num, batch in enumerate(batches, start=2):
        total = [a + b for a, b in zip(total, passed(0.0, num - 1, batch), strict=True)]
    ends = iter([leaf / num / (1 - share.mean()) for leaf, share in zip(total, kept, strict=True)])
    leaves = [next(ends).astype(leaf.dtype) if moved else leaf for leaf, moved in zip(old, moves, strict=True)]
    return jax.tree.unflatten(structure, leaves)


def _chosen(leaves: Sequence[AnyArray], moves: Sequence[bool]) -> list[np.ndarray]:
    """Those that move, in float64."""
    return [np.asarray(leaf, np.float64) for leaf, moved in zip(leaves, moves, strict=True) if moved]


def _is_same(a: AnyArray, b: AnyArray) -> bool:
    """Whether two leaves are equal; random keys are, whatever they are."""
    return bool(jnp.issubdtype(a.dtype, jax.dtypes.prng_key) or np.array_equal(a, b, equal_nan=is_floating(a)))


def _is_average(kept: np.ndarray, zero: np.ndarray, old: np.ndarray, new: np.ndarray) -> bool:
    """Whether all entries of a leaf keep one share, and the leaf is moved as an average with that share is."""
    share = float(kept.mean())
    is_one = 0 < share < 1 and float(np.ptp(kept)) < EXACT * (1 - share)
    return is_one and bool(np.allclose(new, share * old + zero, rtol=EXACT, atol=EXACT * np.abs(zero).max()))
