"""What depends on the version of jax: the only file that knows jax's insides.

Supported: jax 0.10.2 and newer. Where a newer jax names things differently the difference is found by looking, never
by a version number, and an operation whose bodies are not understood is run whole, as it was traced.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax._src import source_info_util
from jax.extend.core import Literal

from cnnprobe.tracing.program import Constant, Op, Operand, Program

INLINED = frozenset({"jit", "pjit", "closed_call", "core_call"})
REMAT = frozenset({"checkpoint", "remat", "remat2"})
BODY_PARAMS = ("jaxpr", "call_jaxpr", "fun_jaxpr", "branches", "cond_jaxpr", "body_jaxpr")  # where bodies are kept
SCAN_SETTINGS = ("length", "reverse", "unroll")


class ScanParts(NamedTuple):
    """How a scan divides its operands and what it was called with."""

    num_consts: int
    num_carry: int
    settings: dict[str, Any]  # length, reverse, unroll


def linearise(closed: Any) -> Program:
    """Turns a closed jaxpr into a program; nested `jit` is inlined, and what nobody uses is left out."""
    numbers, types = itertools.count(), dict[int, jax.ShapeDtypeStruct]()

    def number(var: Any) -> int:
        """A new number for a variable, with its type noted."""
        value = next(numbers)
        types[value] = jax.ShapeDtypeStruct(getattr(var.aval, "shape", ()), getattr(var.aval, "dtype", None))
        return value

    def inline(closed: Any, env: dict, constants: dict, ops: list[Op]) -> list[Operand]:
        """The operations of a jaxpr, appended to `ops`; returns its results."""
        jaxpr, consts = _open(closed)
        for var, const in zip(jaxpr.constvars, consts, strict=True):
            env[var] = number(var)
            constants[env[var]] = const
        for eqn in jaxpr.eqns:
            inputs = tuple(_read(env, atom) for atom in eqn.invars)
            if eqn.primitive.name in INLINED and len(found := list(_bodies(eqn.params))) == 1:
                inner = dict(zip(_open(found[0])[0].invars, inputs, strict=True))
                env.update(zip(eqn.outvars, inline(found[0], inner, constants, ops), strict=True))
                continue
            outputs = tuple(number(var) for var in eqn.outvars)
            env.update(zip(eqn.outvars, outputs, strict=True))
            bodies = tuple(convert(body) for body in _bodies(eqn.params))
            ops.append(Op(eqn.primitive.name, eqn.params, inputs, outputs, eqn, bodies))
        return [_read(env, atom) for atom in jaxpr.outvars]

    def convert(closed: Any) -> Program:
        """A jaxpr as a program of its own."""
        invars = _open(closed)[0].invars
        env, constants, ops = {var: number(var) for var in invars}, dict[int, Any](), list[Op]()
        inputs = tuple(env[var] for var in invars)
        outputs = inline(closed, env, constants, ops)
        return Program(inputs, tuple(outputs), _used(ops, outputs), types, constants)

    return convert(closed)


def _used(ops: Sequence[Op], outputs: Sequence[Operand]) -> tuple[Op, ...]:
    """The operations that the outputs depend on, and those with effects, such as prints.

    An activation whose result is thrown away is none.
    """
    needed, used = {ref for ref in outputs if isinstance(ref, int)}, list[Op]()
    for op in reversed(ops):
        if needed.intersection(op.outputs) or op.equation.effects or not op.outputs:
            needed.update(ref for ref in op.inputs if isinstance(ref, int))
            used.append(op)
    return tuple(reversed(used))


def _open(closed: Any) -> tuple[Any, Sequence[Any]]:
    """The jaxpr and its constants, whether or not it is closed."""
    return getattr(closed, "jaxpr", closed), getattr(closed, "consts", ())


def _bodies(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs among an equation's parameters."""
    for name in BODY_PARAMS:
        for value in params[name] if name == "branches" and name in params else [params.get(name)]:
            if hasattr(_open(value)[0], "eqns"):
                yield value


def _read(env: dict, atom: Any) -> Operand:
    """The operand that stands for a jaxpr's variable or literal."""
    return Constant(atom.val) if isinstance(atom, Literal) else env[atom]


def bind(op: Op, arguments: Sequence[Any]) -> list[Any]:
    """Runs one operation as it was traced: same primitive, parameters, derivative rule and context."""
    eqn = op.equation
    params = eqn.primitive.get_bind_params(eqn.params) if hasattr(eqn.primitive, "get_bind_params") else eqn.params
    name_stack = source_info_util.current_name_stack() + eqn.source_info.name_stack
    context = eqn.ctx.manager if hasattr(eqn, "ctx") else contextlib.nullcontext()
    with source_info_util.user_context(eqn.source_info.traceback, name_stack=name_stack), context:
        result = eqn.primitive.bind(*arguments, **params)
    return list(result) if eqn.primitive.multiple_results else [result]


def scan_parts(op: Op) -> ScanParts | None:
    """What is needed to rebuild a scan; None for another operation, or where this jax describes scans otherwise."""
    sizes = _scan_sizes(op.params) if op.name == "scan" and len(op.bodies) == 1 else None
    if sizes is None or not set(SCAN_SETTINGS) <= set(op.params):
        return None
    return ScanParts(*sizes, {name: op.params[name] for name in SCAN_SETTINGS})


def _scan_sizes(params: Mapping[str, Any]) -> tuple[int, int] | None:
    """Numbers of constants and of carried values: two counts up to jax 0.10, a tree of three parts from 0.11 on."""
    if {"num_consts", "num_carry"} <= set(params):
        return params["num_consts"], params["num_carry"]
    if hasattr(params.get("ft_in"), "unpack") and len(parts := list(params["ft_in"].unpack())) == 3:
        return len(list(parts[0])), len(list(parts[1]))
    return None


def is_branch(op: Op) -> bool:
    """Whether `op` chooses one of its bodies by its first operand."""
    return op.name == "cond" and len(op.bodies) > 0


def is_remat(op: Op) -> bool:
    """Whether `op` runs its body and recomputes it for the gradient."""
    return op.name in REMAT and len(op.bodies) == 1


def remat_like(op: Op, fn: Callable) -> Callable:
    """`fn` under the `jax.checkpoint` settings of `op`."""
    return jax.checkpoint(fn, prevent_cse=op.params.get("prevent_cse", True), policy=op.params.get("policy"))


def is_custom_derivative(op: Op) -> bool:
    """Whether `op` carries its own derivative rule and so must be run whole."""
    return op.name.startswith(("custom_jvp_call", "custom_vjp_call"))


def is_backward(op: Op) -> bool:
    """Whether `op` belongs to a backward pass that is part of the traced function itself."""
    return "transpose(" in str(op.equation.source_info.name_stack)
