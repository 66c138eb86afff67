"""Receptive fields: which part of the input every value of a program sees, by one pass forward."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from cnnprobe.tracing import compat
from cnnprobe.tracing.activations import NUMPY
from cnnprobe.tracing.program import Op, Operand, Program
from cnnprobe.tracing.reach import Reach, Sliding, axis_reach, join, pick, reshape, slide, whole

Field: TypeAlias = dict[int, Reach]  # what a value sees, by axis of the input; empty: nothing
Fields: TypeAlias = dict[int, Field]  # by value
Shape: TypeAlias = tuple[int, ...]
Move: TypeAlias = Callable[[Reach], Reach]

ELEMENTWISE = frozenset(NUMPY) | {
    *("acos", "asin", "atan2", "convert_element_type", "erf_inv", "integer_pow", "nextafter", "rem"),
    *("sharding_constraint", "xor"),
}
MAX_TURNS = 64  # of a loop, after which it is held to see no more


def find_fields(program: Program, source: int) -> Fields:
    """What every value sees of the value `source`, bodies included."""
    fields: Fields = {}
    shape = program.types[source].shape
    own = {axis: axis_reach(axis, length) for axis, length in enumerate(shape) if length}
    _walk(program, [own if value == source else {} for value in program.inputs], fields)
    return fields


def field_of(fields: Fields, ref: Operand) -> Field:
    """What an operand sees; constants see nothing."""
    return fields.get(ref, {}) if isinstance(ref, int) else {}


def _walk(program: Program, inputs: Iterable[Field], fields: Fields) -> list[Field]:
    """Fills in `fields` for a program; returns those of its outputs."""
    fields.update(zip(program.inputs, inputs, strict=True))
    for op in program.ops:
        seen = [field_of(fields, ref) for ref in op.inputs]
        fields.update(zip(op.outputs, _results(op, seen, fields), strict=False))
    return [field_of(fields, ref) for ref in program.outputs]


def _results(op: Op, seen: list[Field], fields: Fields) -> list[Field]:
    """What each result of an operation sees."""
    if not any(seen):
        return [{}] * len(op.outputs)
    if compat.scan_parts(op):
        return _after_loop(op, seen, fields)
    if compat.is_branch(op):
        branches = [_walk(body, seen[1:], fields) for body in op.bodies]
        return [_joined(results) for results in zip(*branches, strict=True)]
    if len(op.bodies) == 1 and len(op.bodies[0].inputs) == len(seen) and not op.name.startswith("while"):
        return _walk(op.bodies[0], seen, fields)
    shapes = [atom.aval.shape for atom in op.equation.invars]
    return [_result(op, seen, shapes, index) for index in range(len(op.outputs))]


def _result(op: Op, seen: list[Field], shapes: list[Shape], index: int) -> Field:
    """What one result of an operation without bodies sees."""
    shape = op.equation.outvars[index].aval.shape
    moves = MOVES[op.name](op, shapes, shape, index) if op.name in MOVES else None
    if moves is None:
        moves = [_unknown(before, shape) for before in shapes]
    return _joined([_moved(field, move) for field, move in zip(seen, moves, strict=True)])


def _moved(field: Field, move: Move) -> Field:
    """A field where each reach along an axis of the value has moved on."""
    return {source: reach if reach.axis is None else move(reach) for source, reach in field.items()}


def _joined(fields: Iterable[Field]) -> Field:
    """What an elementwise function of several values sees."""
    fields = list(fields)
    sources = sorted({source for field in fields for source in field})
    return {source: join([field[source] for field in fields if source in field]) for source in sources}


def _after_loop(op: Op, seen: list[Field], fields: Fields) -> list[Field]:
    """What a scan's results see: its turns are followed until nothing more comes into view."""
    parts = compat.scan_parts(op)
    assert parts is not None
    first, last = parts.num_consts, parts.num_consts + parts.num_carry
    slices = [_moved(field, lambda reach: _shifted(reach, [0])) for field in seen[last:]]
    carry, outputs = seen[first:last], list[Field]()
    for _ in range(min(parts.settings["length"], MAX_TURNS)):
        outputs = _walk(op.bodies[0], [*seen[:first], *carry, *slices], fields)
        carry = outputs[: len(carry)]
    stacked = [
        _moved(field, lambda reach: reach._replace(axis=(reach.axis or 0) + 1)) for field in outputs[len(carry) :]
    ]
    return [*carry, *stacked]


# --- one move an operand: from a reach along its axis to the same in the result ------------------------------------


def _unknown(before: Shape, after: Shape) -> Move:
    """An operation of which nothing is known mixes everything, but for the examples of a batch."""

    def move(reach: Reach) -> Reach:
        """Keeps the first axis apart if it is still there."""
        return reach if reach.axis == 0 and before[:1] == after[:1] else whole(reach)

    return move


def _shifted(reach: Reach, removed: Sequence[int]) -> Reach:
    """The reach once the axes `removed` are gone."""
    if reach.axis is None or reach.axis in removed:
        return whole(reach, is_mixed=reach.is_mixed)
    return reach._replace(axis=reach.axis - sum(axis < reach.axis for axis in removed))


def _elementwise(_op: Op, shapes: list[Shape], *_: object) -> list[Move]:
    return [lambda reach: reach for _ in shapes]


def _reduce(op: Op, shapes: list[Shape], *_: object) -> list[Move]:
    return [lambda reach: _shifted(reach, op.params["axes"]) for _ in shapes]


def _squeeze(op: Op, *_: object) -> list[Move]:
    return [lambda reach: _shifted(reach, op.params["dimensions"])]


def _transpose(op: Op, *_: object) -> list[Move]:
    return [lambda reach: reach._replace(axis=op.params["permutation"].index(reach.axis))]


def _reshape(_op: Op, shapes: list[Shape], after: Shape, _index: int) -> list[Move]:
    return [lambda reach: reshape(reach, shapes[0], after)] + [lambda reach: reach for _ in shapes[1:]]


def _broadcast(op: Op, shapes: list[Shape], after: Shape, _index: int) -> list[Move]:
    def move(reach: Reach) -> Reach:
        """An axis that is repeated shows the same everywhere."""
        axis = op.params["broadcast_dimensions"][reach.axis]
        is_kept = shapes[0][reach.axis or 0] == after[axis]
        return reach._replace(axis=axis) if is_kept else whole(reach, is_mixed=reach.is_mixed)

    return [move, *(whole for _ in shapes[1:])]


def _convolution(op: Op, shapes: list[Shape], after: Shape, _index: int) -> list[Move]:
    numbers = op.params["dimension_numbers"]
    slides = conv_slides(op, shapes, after)

    def move(reach: Reach) -> Reach:
        """Batch to batch, places through the window; channels are summed over."""
        role = numbers.lhs_spec.index(reach.axis)
        if role == 1:
            return whole(reach)
        moved = reach if role == 0 else slide(reach, slides[role - 2])
        return moved._replace(axis=numbers.out_spec[role])

    return [move, whole]


def conv_slides(op: Op, shapes: Sequence[Shape], after: Shape) -> list[Sliding]:
    """How the kernel of a convolution slides along each spatial axis."""
    params, numbers = op.params, op.params["dimension_numbers"]
    return [
        Sliding(after[out], shapes[1][tap], stride, dilation, base, padding[0])
        for out, tap, stride, dilation, base, padding in zip(
            numbers.out_spec[2:],
            numbers.rhs_spec[2:],
            params["window_strides"],
            params["rhs_dilation"],
            params["lhs_dilation"],
            params["padding"],
            strict=True,
        )
    ]


def _product(op: Op, shapes: list[Shape], *_: object) -> list[Move]:
    contracting, batch = op.params["dimension_numbers"]

    def moves(side: int) -> Move:
        """The move of one operand: batch axes first, then the free ones of the left and of the right."""
        free = [a for a in range(len(shapes[side])) if a not in (*contracting[side], *batch[side])]
        start = len(batch[0]) + side * (len(shapes[0]) - len(contracting[0]) - len(batch[0]))
        places = {axis: i for i, axis in enumerate(batch[side])} | {axis: start + i for i, axis in enumerate(free)}
        return lambda reach: reach._replace(axis=places[reach.axis]) if reach.axis in places else whole(reach)

    return [moves(0), moves(1)]


def _pool(op: Op, shapes: list[Shape], after: Shape, _index: int) -> list[Move]:
    params = op.params

    def move(reach: Reach) -> Reach:
        """Through the window of the reach's own axis."""
        axis = reach.axis or 0
        sliding = Sliding(
            after[axis],
            params["window_dimensions"][axis],
            params["window_strides"][axis],
            params["window_dilation"][axis],
            params["base_dilation"][axis],
            params["padding"][axis][0],
        )
        return slide(reach, sliding)

    return [move for _ in shapes]


def _pad(op: Op, _shapes: list[Shape], after: Shape, _index: int) -> list[Move]:
    def move(reach: Reach) -> Reach:
        """A window of one tap."""
        low, _, interior = op.params["padding_config"][reach.axis]
        return slide(reach, Sliding(after[reach.axis or 0], base_dilation=interior + 1, padding=low))

    return [move, whole]


def _slice(op: Op, *_: object) -> list[Move]:
    starts, limits = op.params["start_indices"], op.params["limit_indices"]
    strides = op.params["strides"] or [1] * len(starts)
    return [lambda reach: pick(reach, slice(starts[reach.axis], limits[reach.axis], strides[reach.axis]))]


def _split(op: Op, _shapes: list[Shape], _after: Shape, index: int) -> list[Move]:
    axis, sizes = op.params["axis"], op.params["sizes"]
    part = slice(sum(sizes[:index]), sum(sizes[: index + 1]))
    return [lambda reach: pick(reach, part) if reach.axis == axis else reach]


def _reverse(op: Op, *_: object) -> list[Move]:
    turned = op.params["dimensions"]
    return [lambda reach: pick(reach, slice(None, None, -1)) if reach.axis in turned else reach]


def _concatenate(op: Op, shapes: list[Shape], after: Shape, _index: int) -> list[Move]:
    axis = op.params["dimension"]
    starts = [sum(shape[axis] for shape in shapes[:i]) for i in range(len(shapes))]

    def moves(start: int) -> Move:
        """The move of one part: its place in the whole."""
        sliding = Sliding(after[axis], padding=start)
        return lambda reach: slide(reach, sliding) if reach.axis == axis else reach

    return [moves(start) for start in starts]


def _dynamic_slice(_op: Op, shapes: list[Shape], after: Shape, _index: int) -> list[Move]:
    def move(reach: Reach) -> Reach:
        """Axes that are taken whole stay."""
        axis = reach.axis or 0
        return reach if shapes[0][axis] == after[axis] else whole(reach)

    return [move, *(whole for _ in shapes[1:])]


MOVES: Mapping[str, Callable[..., list[Move]]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"), _reduce),
    **dict.fromkeys(("argmax", "argmin"), _reduce),
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max", "reduce_window_min"), _pool),
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "dynamic_slice": _dynamic_slice,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _reverse,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "transpose": _transpose,
}
