"""Runs a program with edits: functions that see, change or read out single values on the way."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnnprobe.tracing import compat
from cnnprobe.tracing.layers import is_open
from cnnprobe.tracing.program import Constant, Op, Operand, Program

Reader = Callable[[Operand], Any]  # the values that were computed before, by operand
Row = Float[Array, "*loops entries"]
Rows = dict[int, Row]


class Edit(NamedTuple):
    """What to do with one value when it has been computed."""

    apply: Callable[[Any, Reader, Any], tuple[Any, Row | None]]  # (value, read, slot) -> (value, reading)
    scans: frozenset[int] = frozenset()  # loops whose turns keep readings of their own
    fold: Callable[[Row], Row] = lambda rows: rows.sum(0)  # readings of several turns -> one reading
    empty: Callable[[tuple[int, ...]], Row] = jnp.zeros  # shape -> the reading of a branch that was not taken


Edits = Mapping[int, Edit]  # by value


class Result(NamedTuple):
    """What a program returns."""

    outputs: list[Any]
    readings: Rows  # by the value that was read


def evaluate(program: Program, inputs: Sequence[Any], edits: Edits, slots: Mapping[int, Any]) -> Result:
    """Runs `program` on `inputs`; `slots` are handed to the edits of the same value."""
    values = {**program.constants, **dict(zip(program.inputs, inputs, strict=True))}
    readings: Rows = {}

    def read(ref: Operand) -> Any:
        """The value behind an operand."""
        return ref.value if isinstance(ref, Constant) else values[ref]

    for op in program.ops:
        arguments = [read(ref) for ref in op.inputs]
        outputs, inner = _run(op, arguments, edits, slots)
        readings |= inner
        values.update(zip(op.outputs, outputs, strict=True))
        for value in op.outputs:
            if value in edits:
                values[value], reading = edits[value].apply(values[value], read, slots.get(value))
                readings |= {} if reading is None else {value: reading}
    outputs = [jnp.asarray(ref.value) if isinstance(ref, Constant) else values[ref] for ref in program.outputs]
    return Result(outputs, readings)


def _run(op: Op, arguments: list[Any], edits: Edits, slots: Mapping[int, Any]) -> Result:
    """Runs one operation, rebuilt around edited bodies where there are any."""
    if not is_open(op) or not (inside := {value for body in op.bodies for value in _edited(body, edits)}):
        return Result(compat.bind(op, arguments), {})
    if compat.is_remat(op):
        rebuilt = compat.remat_like(op, lambda *inputs: tuple(evaluate(op.bodies[0], inputs, edits, slots)))
        return Result(*rebuilt(*arguments))
    if compat.is_branch(op):
        return _run_branch(op, arguments, edits, slots)
    return _run_scan(op, arguments, edits, slots, inside)


def _edited(program: Program, edits: Edits) -> set[int]:
    """The values of a program and its bodies that are edited."""
    return {
        value
        for op in program.ops
        for value in (*op.outputs, *(value for body in op.bodies for value in _edited(body, edits)))
        if value in edits
    }


def _run_branch(op: Op, arguments: list[Any], edits: Edits, slots: Mapping[int, Any]) -> Result:
    """A branch whose bodies return readings; those of the bodies not taken are empty."""
    index, *operands = arguments
    bodies = [lambda *inputs, body=body: tuple(evaluate(body, inputs, edits, slots)) for body in op.bodies]
    shapes = {value: row.shape for body in bodies for value, row in jax.eval_shape(body, *operands)[1].items()}

    def complete(body: Callable[..., tuple], *inputs: Any) -> tuple:
        """A branch with empty readings for what only the other branch measures."""
        outputs, readings = body(*inputs)
        return outputs, {value: edits[value].empty(shape) for value, shape in shapes.items()} | readings

    branches = [functools.partial(complete, body) for body in bodies]
    return Result(*jax.lax.switch(index, branches, *operands))


def _run_scan(op: Op, arguments: list[Any], edits: Edits, slots: Mapping[int, Any], inside: set[int]) -> Result:
    """A loop whose body returns readings: one for each turn where each turn has its own parameters, else folded."""
    parts = compat.scan_parts(op)
    assert parts is not None
    first, last = parts.num_consts, parts.num_consts + parts.num_carry
    constants, carry, slices = arguments[:first], arguments[first:last], arguments[last:]
    stacked = {value for value in inside if op.outputs[0] in edits[value].scans}
    slot_slices = {value: slots[value] for value in stacked if value in slots}

    def body(carry: list[Any], turn: tuple[list[Any], dict[int, Any]]) -> tuple:
        """One turn with its readings."""
        outputs, readings = evaluate(op.bodies[0], [*constants, *carry, *turn[0]], edits, {**slots, **turn[1]})
        return outputs[: parts.num_carry], (outputs[parts.num_carry :], readings)

    carried: list[Any]
    outputs: list[Any]
    rows: Rows
    carried, (outputs, rows) = jax.lax.scan(body, carry, (slices, slot_slices), **parts.settings)
    folded = {value: row if value in stacked else edits[value].fold(row) for value, row in rows.items()}
    return Result([*carried, *outputs], folded)
