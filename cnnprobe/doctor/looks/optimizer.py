"""What the user's optimizer does with made-up gradients: its rule, its memory, its weight decay. Nothing is trained."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnprobe.compiling import quick_jit
from cnnprobe.doctor.bench import Bench
from cnnprobe.doctor.run import ROWS, Run
from cnnprobe.types import AnyArray, Params

NUM_STEPS = 12  # Adam's first steps are like the sign of the gradient for everyone
ALIKE = 0.01  # relative distance from the median below which two steps are of one size
MOST = 0.9  # share of the parameters that makes a rule
PARALLEL = 0.999  # cosine
TOWARD = 0.5  # cosine of a decay with the way to zero; Adam makes signs of it when it is added to the gradient
RESTS = (64, 256)  # steps without gradients: a momentum of .9 has forgotten all after the first
FORGOTTEN = 0.05  # share of a step that past gradients make
LARGEST = 2**20  # parameters, of which some hundred steps take a second or two
TINY = 1e-30

Step = Callable[[Params, Any, Params], tuple[Params, Any]]


class _Asked(NamedTuple):
    """What the optimizer answered."""

    grads: Params
    first: Params  # update of a fresh state, without parameters to decay
    late: Params  # update to the same gradients after a dozen steps
    late_still: Params  # the same without parameters to decay
    fresh_state: Any  # after that gradient as the first one
    late_state: Any  # after that gradient as the thirteenth


def _turning(grads: tuple[Params, Params]) -> Iterator[Params]:
    """A dozen gradients that turn from one draw to another."""
    for turn in np.linspace(0.5, 2.5, NUM_STEPS):
        yield jax.tree.map(lambda a, b, t=float(turn): math.cos(t) * a + math.sin(t) * b, *grads)


def _ask(step: Step, opt_state: Any, params: Params, grads: tuple[Params, Params]) -> _Asked:
    """A dozen steps whose gradients turn from one draw to another, then one more beside a fresh state."""
    still = jax.tree.map(np.zeros_like, params)
    state = opt_state
    for mixed in _turning(grads):
        _, state = step(mixed, state, params)
    late, late_state = step(grads[0], state, params)
    first, fresh_state = step(grads[0], opt_state, still)
    return _Asked(grads[0], first, late, step(grads[0], state, still)[0], fresh_state, late_state)


def _way(cosine: float) -> int:
    """1 where a vector points straight enough along another one, -1 where it points against it, else 0."""
    return int(np.sign(cosine)) if abs(cosine) > TOWARD else 0


def _pull(step: Step, opt_state: Any, params: Params) -> int:
    """Whether steps without gradients still take parameters toward zero (1), or away from it (-1).

    Averages of the parameters, which some optimizers keep, differ from other parameters too, but pull on none of their
    own.
    """
    nothing, update, moved = jax.tree.map(np.zeros_like, params), params, params
    for _ in range(NUM_STEPS):
        update, opt_state = step(nothing, opt_state, moved)
        moved = jax.tree.map(np.add, moved, jax.device_get(update))
    return _way(_cosine(-_flat(update), _flat(moved)))


def _flat(tree: Params) -> np.ndarray:
    """All entries of a tree in one vector."""
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(jax.device_get(tree))])


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of the angle between two vectors; NaN where one of them is 0."""
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms > 0 else float("nan")


def _sign_share(update: np.ndarray) -> float:
    """Share of the entries that move by one and the same distance; NaN where nothing moves."""
    sizes = np.abs(update[update != 0])
    return float(np.mean(np.abs(sizes / np.median(sizes) - 1) < ALIKE)) if sizes.size else float("nan")


def _rule(asked: _Asked) -> tuple[str, float]:
    """What a first step is like, and the step size that it shows; of the parameters that move."""
    update, grad = _flat(asked.first), _flat(asked.grads)
    moving = update != 0
    if not moving.any():
        return "", float("nan")
    if _sign_share(update) > MOST:
        return "sign", float(np.median(np.abs(update[moving])))
    if _cosine(update[moving], -grad[moving]) > PARALLEL:
        return "slope", float(np.linalg.norm(update[moving]) / np.linalg.norm(grad[moving]))
    return "", float("nan")


def _memory(asked: _Asked, num_entries: int) -> float:
    """Share of the state's arrays that tell what came before; NaN for an optimizer that keeps no arrays."""
    if not num_entries:
        return float("nan")
    pairs = zip(jax.tree.leaves(asked.fresh_state), jax.tree.leaves(asked.late_state), strict=True)
    return float(np.mean([not np.array_equal(_on_host(a), _on_host(b)) for a, b in pairs]))


def _on_host(leaf: AnyArray) -> np.ndarray:
    """An array as numpy has it; of a random key its numbers."""
    return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


def _kept(step: Step, opt_state: Any, grads: tuple[Params, Params]) -> float:
    """Share of what past gradients do to a step that is still there after some hundred steps without any, in [0, 1].

    Their part in a step is what changes its sign with theirs: neither noise nor averages of squares do, and it needs no
    scale, so that rules whose steps are all of one length are read too.
    """
    nothing = jax.tree.map(np.zeros_like, grads[0])
    past, opposite = [*_turning(grads)], [*_turning(jax.tree.map(np.negative, grads))]
    starts = [_after(step, (nothing, opt_state), history) for history in (past, opposite)]
    parts = [_odd_part(step, starts, grads[0])]
    for num in RESTS:
        starts = [_after(step, start, [nothing] * num) for start in starts]
        parts.append(_odd_part(step, starts, grads[0]))
        if not parts[-1] > FORGOTTEN:
            return 0.0
    return min(parts[-1] / parts[0], 1.0)


def _after(step: Step, start: tuple[Params, Any], history: Iterable[Params]) -> tuple[Params, Any]:
    """Parameters and state behind such gradients."""
    params, opt_state = start
    for grads in history:
        update, opt_state = step(grads, opt_state, params)
        params = jax.tree.map(np.add, params, jax.device_get(update))
    return params, opt_state


def _odd_part(step: Step, starts: Sequence[tuple[Params, Any]], grads: Params) -> float:
    """Half of the difference between the directions of the steps from two starts, relative to half of their sum.

    Rules that find their own step size may make one of the steps longer.
    """
    steps = (_flat(step(grads, opt_state, params)[0]) for params, opt_state in starts)
    one, other = (each / max(float(np.linalg.norm(each)), TINY) for each in steps)
    return float(np.linalg.norm(one - other)) / max(float(np.linalg.norm(one + other)), TINY)


def _draws(run: Run) -> tuple[Params, Params]:
    """Two random gradients, each leaf as large as in the first steps of the run."""
    sums = np.asarray(run.leaves[:NUM_STEPS, ROWS.index("gradient")], np.float64).mean(axis=0)
    scales = np.sqrt(sums / np.asarray(run.leaf_sizes))
    scales = np.where(np.isfinite(scales) & (scales > 0), scales, 1.0)
    leaves, structure = jax.tree.flatten(run.first[0])

    def draw(rng: np.random.Generator) -> Params:
        """One normal array a leaf."""
        pairs = zip(leaves, scales, strict=True)
        drawn = [(s * rng.standard_normal(np.shape(x), np.float32)).astype(x.dtype) for x, s in pairs]
        return jax.tree.unflatten(structure, drawn)

    rng = np.random.default_rng(0)
    return draw(rng), draw(rng)


def _step_share(run: Run, rate: float) -> float:
    """Size of the decay beside that of a whole step, about the step at which the rate was measured."""
    rows = np.asarray(run.leaves[NUM_STEPS // 2 : 2 * NUM_STEPS], np.float64).sum(axis=2)
    if not len(rows):
        return float("nan")
    update, param = rows[:, ROWS.index("update")], rows[:, ROWS.index("param")]
    return float(np.median(rate * np.sqrt(param / np.maximum(update, TINY))))


def look_at_optimizer(bench: Bench, run: Run) -> tuple[dict[str, float], dict[str, str]]:
    """The rule of a first step with its size, what the state remembers and keeps, and how fast parameters decay.

    A decay below zero makes them grow.
    """
    optimizer = optax.with_extra_args_support(bench.problem.optimizer)

    @quick_jit
    def step(grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
        """One update."""
        return optimizer.update(grads, state, params, value=1.0, grad=grads, value_fn=lambda _: jnp.float32(1.0))

    params = jax.tree.map(np.asarray, run.first[0])
    opt_state = quick_jit(optimizer.init)(params)
    grads = _draws(run)
    asked = _ask(step, opt_state, params, grads)
    num_entries = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(opt_state) if np.ndim(leaf))
    decay, weights = _flat(asked.late) - _flat(asked.late_still), _flat(params)
    rule, size = _rule(asked)
    pull = _way(_cosine(-decay, weights))
    is_decay = pull != 0 and pull == _pull(step, opt_state, params)
    may_keep = num_entries > 0 and weights.size <= LARGEST
    rate = float(-decay @ weights / max(weights @ weights, TINY)) if is_decay else 0.0
    return {
        "optimizer state numbers": float(num_entries),
        "optimizer memory": _memory(asked, num_entries),
        "past gradients kept": _kept(step, opt_state, grads) if may_keep else float("nan"),
        "sign update share": _sign_share(_flat(asked.late_still)),
        "step size": size,
        "decay a step": rate,
        "decay share of a step": _step_share(run, rate),
    }, {"update rule": rule}
