"""A traced function as plain data: a list of operations on numbered values."""

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np


class Constant(NamedTuple):
    """An operand that is known before the program runs."""

    value: Any


Operand: TypeAlias = "int | Constant"


class Op(NamedTuple):
    """One operation; `jit` is inlined, so what has bodies is a loop, a branch, a `remat` or a custom derivative."""

    name: str  # the primitive: "conv_general_dilated", "add", "scan"
    params: Mapping[str, Any]
    inputs: tuple[Operand, ...]
    outputs: tuple[int, ...]
    equation: Any  # what `compat.bind` needs to run it
    bodies: tuple["Program", ...] = ()


class Program(NamedTuple):
    """A function of arrays; value numbers are unique over a program and all its bodies."""

    inputs: tuple[int, ...]
    outputs: tuple[Operand, ...]
    ops: tuple[Op, ...]
    types: dict[int, jax.ShapeDtypeStruct]  # of every value, bodies' values included
    constants: dict[int, Any]  # arrays that the function closes over


class View:
    """A program with its edges indexed both ways."""

    def __init__(self, program: Program):
        self.program = program
        self.types = program.types

    @cached_property
    def producers(self) -> dict[int, int]:
        """Index of the operation that makes each value."""
        return {value: index for index, op in enumerate(self.program.ops) for value in op.outputs}

    @cached_property
    def consumers(self) -> dict[int, list[int]]:
        """Indices of the operations that read each value, in program order."""
        found: dict[int, list[int]] = {}
        for index, op in enumerate(self.program.ops):
            for value in {ref for ref in op.inputs if isinstance(ref, int)}:
                found.setdefault(value, []).append(index)
        return found

    def producer(self, ref: Operand) -> Op | None:
        """The operation that makes `ref`; None for inputs and constants."""
        index = self.producers.get(ref) if isinstance(ref, int) else None
        return None if index is None else self.program.ops[index]

    def readers(self, value: int) -> list[Op]:
        """The operations that read `value`, in program order."""
        return [self.program.ops[index] for index in self.consumers.get(value, ())]

    def shape(self, ref: Operand) -> tuple[int, ...]:
        """Shape of an operand."""
        return np.shape(ref.value) if isinstance(ref, Constant) else self.types[ref].shape

    def size(self, ref: Operand) -> int:
        """Number of entries of an operand."""
        return size_of(self.program, ref)


def size_of(program: Program, ref: Operand) -> int:
    """Number of entries of an operand."""
    return np.size(ref.value) if isinstance(ref, Constant) else math.prod(program.types[ref].shape)


SAME_ENTRIES = frozenset(
    {"broadcast_in_dim", "convert_element_type", "copy", "copy_p", "expand_dims", "name", "reshape", "squeeze"}
    | {"reduce_precision", "sharding_constraint", "transpose"}
)


FOLDED: Mapping[str, Callable[..., np.float64]] = {
    "add": operator.add,
    "div": operator.truediv,
    "mul": operator.mul,
    "stop_gradient": lambda x: x,
    "sub": operator.sub,
}


def root(view: View, ref: Operand) -> Operand:
    """The operand that `ref` was reshaped, transposed, converted or broadcast from."""
    while (op := view.producer(ref)) is not None and op.name in SAME_ENTRIES:
        ref = op.inputs[0]
    return ref


def known_scalar(view: View, ref: Operand) -> float | None:
    """The number that every entry of `ref` is known to equal, or None."""
    source = root(view, ref)
    op = view.producer(source)
    if op is not None:
        return _folded(view, op)
    value = source.value if isinstance(source, Constant) else view.program.constants.get(source)
    dtype = getattr(value, "dtype", type(value))
    if value is None or isinstance(value, jax.core.Tracer) or np.size(value) != 1:
        return None
    is_number = dtype in (bool, int, float) or jax.dtypes.issubdtype(dtype, np.number)
    return float(np.asarray(value).reshape(())) if is_number else None


def _folded(view: View, op: Op) -> float | None:
    """The number that an operation makes of known numbers, such as the share that a dropout of a known rate keeps."""
    if op.name not in FOLDED or view.size(op.outputs[0]) != 1:
        return None
    numbers = [known_scalar(view, ref) for ref in op.inputs]
    if any(number is None for number in numbers):
        return None
    with np.errstate(all="ignore"):
        return float(FOLDED[op.name](*(np.float64(number) for number in numbers if number is not None)))


def all_ops(program: Program) -> Iterator[Op]:
    """Every operation, those of bodies after their owner."""
    for op in program.ops:
        yield op
        for body in op.bodies:
            yield from all_ops(body)
