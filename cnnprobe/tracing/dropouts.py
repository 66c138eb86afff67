"""Recognising dropout: uniform random numbers compared with a probability, and what is kept divided by it."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cnnprobe.tracing.program import SAME_ENTRIES, Op, Operand, Program, View, known_scalar, root

# What turns random bits into uniform numbers.
UNIFORM_STEPS = SAME_ENTRIES | {"add", "sub", "mul", "div", "max", "or", "shift_right_logical", "bitcast_convert_type"}
LESS, GREATER = frozenset({"lt", "le"}), frozenset({"gt", "ge"})
MAX_STEPS = 16


class Dropout(NamedTuple):
    """One use of dropout."""

    rate: float  # fraction of entries that are set to zero
    compare: Op  # uniform numbers against the threshold
    threshold: int  # which operand of `compare` that is
    is_rate: bool  # whether the threshold is the rate; else it is the share that is kept
    scale: Op | None  # divides by the share that is kept; None if nothing does
    factor: int  # which operand of `scale` holds that share or its inverse
    use: Op  # sets entries to zero by the mask


def find_dropouts(program: Program) -> Iterator[Dropout]:
    """Every dropout of a program and its bodies, in program order."""
    view = View(program)
    for op in program.ops:
        if op.name in LESS | GREATER and (found := _dropout(view, op)) is not None:
            yield found
        for body in op.bodies:
            yield from find_dropouts(body)


def _dropout(view: View, compare: Op) -> Dropout | None:
    """The dropout that `compare` draws the mask for."""
    limits = [known_scalar(view, ref) for ref in compare.inputs]
    threshold = 1 if limits[0] is None else 0
    limit = limits[threshold]
    if limit is None or not 0 < limit < 1 or not _is_uniform(view, compare.inputs[1 - threshold]):
        return None
    for use, mask in _mask_uses(view, compare.outputs[0]):
        marks_kept = use.name == "mul" or not _is_zero(view, use.inputs[2])
        below_marks = (compare.name in LESS) == (threshold == 1)
        is_rate = below_marks != marks_kept
        kept = 1 - limit if is_rate else limit
        scale, factor = _find_scale(view, use, mask, kept) or (None, 0)
        return Dropout(1 - kept, compare, threshold, is_rate, scale, factor, use)
    return None


def _is_uniform(view: View, ref: Operand) -> bool:
    """Whether `ref` is made of random bits by the steps that make uniform numbers."""
    level = [ref]
    for _ in range(MAX_STEPS):
        ops = [op for operand in level if (op := view.producer(operand)) is not None]
        if any(op.name == "random_bits" for op in ops):
            return True
        level = [operand for op in ops if op.name in UNIFORM_STEPS for operand in op.inputs]
    return False


def _mask_uses(view: View, mask: int) -> Iterator[tuple[Op, int]]:
    """Operations that set entries to zero by the mask, with the mask as they read it."""
    for op in view.readers(mask):
        is_select = op.name == "select_n" and op.inputs[0] == mask
        if op.name == "mul" or (is_select and any(_is_zero(view, case) for case in op.inputs[1:])):
            yield op, mask
        elif op.name in SAME_ENTRIES or (op.name == "div" and op.inputs[0] == mask):
            yield from _mask_uses(view, op.outputs[0])


def _is_zero(view: View, ref: Operand) -> bool:
    return known_scalar(view, ref) == 0


def _find_scale(view: View, use: Op, mask: int, kept: float) -> tuple[Op, int] | None:
    """The operation around `use` that divides by `kept`, and which of its operands says so."""
    before = [view.producer(root(view, ref)) for ref in (*use.inputs, mask)]
    for op in (*before, *view.readers(use.outputs[0]), use):
        for factor, ref in enumerate(op.inputs if op and op.name in ("mul", "div") else ()):
            number = known_scalar(view, ref)
            wanted = kept if op and op.name == "div" and factor == 1 else 1 / kept
            if op and number is not None and np.isclose(number, wanted, rtol=1e-2):
                return op, factor
    return None
