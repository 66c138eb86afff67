"""Max pools whose gradient a CPU computes several times as fast as that of `lax.reduce_window`, to the same bit.

XLA scatters the gradient of a max pool window by window on one core, which takes longer than all convolutions of a
small network together. Here the largest entry of each window is found among shifted copies of the image instead.
"""

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnnprobe.tracing.interpret import Edit, Edits, Reader
from cnnprobe.tracing.program import Op, Program, all_ops

LARGEST_WINDOW = 9  # entries, each of which is a shifted copy
MOST_COPIES = 3  # of the image in memory: windows that an entry lies in, on average


def has_slow_pools() -> bool:
    """Whether programs run on a CPU; an accelerator has good kernels of its own."""
    return jax.default_backend() == "cpu"


def pool_edits(program: Program) -> Edits:
    """Replaces the max pools of a program, where they are slow."""
    if not has_slow_pools():
        return {}
    return {
        op.outputs[0]: Edit(functools.partial(_pool_again, op)) for op in all_ops(program) if _is_plain(program, op)
    }


def _is_plain(program: Program, op: Op) -> bool:
    """Whether `op` is a max pool of floating-point numbers over small windows that overlap little and have no holes."""
    if op.name != "reduce_window_max":
        return False
    size, step = math.prod(op.params["window_dimensions"]), math.prod(op.params["window_strides"])
    if size > min(LARGEST_WINDOW, MOST_COPIES * step):
        return False
    has_holes = {*op.params["base_dilation"], *op.params["window_dilation"]} != {1}
    return not has_holes and jnp.issubdtype(program.types[op.outputs[0]].dtype, jnp.floating)


def _pool_again(op: Op, _value: Array, read: Reader, _slot: None) -> tuple[Array, None]:
    """The value of a pool, with the quick gradient."""
    x, padding = read(op.inputs[0]), op.params["padding"]
    padded = jnp.pad(x, padding, constant_values=-jnp.inf) if any(map(any, padding)) else x
    return max_pool(padded, tuple(op.params["window_dimensions"]), tuple(op.params["window_strides"])), None


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def max_pool(x: Float[Array, "..."], window: tuple[int, ...], strides: tuple[int, ...]) -> Float[Array, "..."]:
    """Largest entry of each window that fits; `window` and `strides` have a number for each axis.

    Its gradient goes to the first of equal entries, as that of `lax.reduce_window` does.
    """
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, "VALID")


@max_pool.defjvp
def _max_pool_jvp(
    window: tuple[int, ...], strides: tuple[int, ...], primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    """What enters the largest entry of a window comes out."""
    entries = _entries(*primals, window, strides)
    first = jnp.argmax(entries, axis=-2, keepdims=True)
    is_first = lax.broadcasted_iota(first.dtype, entries.shape, entries.ndim - 2) == first
    passed = jnp.where(is_first, _entries(*tangents, window, strides), 0).sum(-2)
    return max_pool(*primals, window, strides), passed


def _entries(x: Array, window: tuple[int, ...], strides: tuple[int, ...]) -> Float[Array, "... entries channels"]:
    """The entries of each window, side by side in front of the last axis."""
    counts = [(size - width) // stride + 1 for size, width, stride in zip(x.shape, window, strides, strict=True)]

    def shifted(starts: tuple[int, ...]) -> Any:
        """One entry of all windows."""
        ends = [start + (n - 1) * stride + 1 for start, n, stride in zip(starts, counts, strides, strict=True)]
        return lax.slice(x, starts, ends, strides)

    return jnp.stack([shifted(starts) for starts in itertools.product(*map(range, window))], axis=-2)
