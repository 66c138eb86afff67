"""One call of a user's function, traced: which arguments are arrays, what they are called, how to return the result."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnprobe.checks import check_callable
from cnnprobe.tracing import compat
from cnnprobe.tracing.program import Program
from cnnprobe.tracing.provenance import Origin
from cnnprobe.tracing.support import check_jax
from cnnprobe.trees import leaf_name


class Call(NamedTuple):
    """A traced call."""

    program: Program
    inputs: list[Any]  # the arrays among the arguments, as the program takes them
    origins: list[Origin]  # of the inputs
    owners: list[int | str]  # the argument that each input belongs to: its position or its keyword
    rebuild: Callable[[Sequence[Any]], Any]  # the program's outputs -> what the function returns


def is_array(leaf: Any) -> bool:
    """Whether a leaf is traced; everything else (numbers, strings, functions) stays as it is, as under `jax.grad`."""
    if isinstance(leaf, np.ndarray):
        return leaf.dtype.kind not in "OSU"
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)


def is_number(leaf: Any) -> bool:
    """Whether a leaf that is no array can be a parameter."""
    return isinstance(leaf, bool | int | float | complex | np.number | np.bool_)


def _as_input(leaf: Any) -> Any:
    """An array as jax sees it."""
    return jnp.asarray(leaf) if isinstance(leaf, np.ndarray) or is_number(leaf) else leaf


def trace_call(
    fn: Callable, args: tuple, kwargs: dict[str, Any], params_argnums: Sequence[int], *, option: str = "argnums"
) -> Call:
    """Traces `fn(*args, **kwargs)`; the arguments at `params_argnums` hold the parameters.

    What the arguments hold beside arrays and numbers (strings, functions) stays as it is. Errors call `params_argnums`
    by the name of the caller's `option`.

    Raises:
      ValueError: `fn` cannot be called, or there is no such argument.
      RuntimeError: this version of jax describes programs in an unknown way.
    """
    check_callable("fn", fn)
    check_jax()
    argnums = [_position(option, argnum, len(args)) for argnum in params_argnums]
    leaves, treedef = jax.tree_util.tree_flatten_with_path((args, kwargs))
    owners = [path[1].idx if path[0].idx == 0 else path[1].key for path, _ in leaves]
    traced = [
        is_array(leaf) or (owner in argnums and is_number(leaf))
        for owner, (_, leaf) in zip(owners, leaves, strict=True)
    ]
    results: dict[str, Any] = {}

    def flat(*inputs: Any) -> list[Any]:
        """The function of its traced leaves alone."""
        arrays = iter(inputs)
        filled = [next(arrays) if is_traced else leaf for is_traced, (_, leaf) in zip(traced, leaves, strict=True)]
        positional, named = jax.tree.unflatten(treedef, filled)
        outputs, results["tree"] = jax.tree.flatten(fn(*positional, **named))
        results["leaves"] = [None if is_array(output) else output for output in outputs]
        return [output for output in outputs if is_array(output)]

    def rebuild(outputs: Sequence[Any]) -> Any:
        """Flat results in the tree that the function returns."""
        arrays = iter(outputs)
        return jax.tree.unflatten(
            results["tree"], [next(arrays) if leaf is None else leaf for leaf in results["leaves"]]
        )

    inputs = [_as_input(leaf) for is_traced, (_, leaf) in zip(traced, leaves, strict=True) if is_traced]
    program = compat.linearise(jax.make_jaxpr(flat)(*inputs))
    origins = [
        _origin(path, owner, args, argnums)
        for is_traced, owner, (path, _) in zip(traced, owners, leaves, strict=True)
        if is_traced
    ]
    used = [owner for is_traced, owner in zip(traced, owners, strict=True) if is_traced]
    return Call(program, inputs, origins, used, rebuild)


def _position(name: str, argnum: int, num_args: int) -> int:
    """A position counted from the front."""
    if isinstance(argnum, bool) or not isinstance(argnum, int) or not -num_args <= argnum < num_args:
        raise ValueError(
            f"{name} must name positional arguments of the call, which has {num_args}, got {argnum!r}. "
            "Parameters cannot be given by keyword."
        )
    return argnum % num_args


def _origin(path: tuple, owner: int | str, args: tuple, argnums: Sequence[int]) -> Origin:
    """What an input is: a parameter with its path, or data.

    Of a Flax variable dictionary, `{"params": ..., "batch_stats": ...}`, only the parameters are parameters.
    """
    if owner not in argnums:
        return Origin(data=True)
    inner = path[2:]
    is_collection = isinstance(args[owner], dict) and "params" in args[owner]  # type: ignore[index]
    if is_collection and getattr(inner[0], "key", None) != "params":
        return Origin(data=True)
    name = leaf_name(inner[1:] if is_collection else inner)
    prefix = [str(owner)] if len(argnums) > 1 else []
    return Origin(frozenset({"/".join([*prefix, *([name] if name else [])]) or "params"}), is_kernel=True)
