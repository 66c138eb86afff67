"""Where each value of a program comes from: which parameters, and whether any data."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from cnnprobe.tracing import compat
from cnnprobe.tracing.program import Op, Operand, Program, size_of

PRODUCTS = frozenset({"conv_general_dilated", "dot_general"})

# Segments that say which array of a layer it is, not which layer. NNX paths end in `value`.
ARRAY_SEGMENTS = frozenset({"kernel", "w", "weight", "weights", "W", "embedding"})
VALUE_SEGMENTS = frozenset({"value", "raw_value"})


class Origin(NamedTuple):
    """What a value derives from."""

    params: frozenset[str] = frozenset()  # paths of parameters
    data: bool = False  # any other array that the function is given or closes over
    scans: frozenset[int] = frozenset()  # the loops that hand it a new slice each turn
    is_kernel: bool = False  # the entries of a parameter, perhaps masked or scaled by data one by one


Origins = dict[int, Origin]


def union(origins: Sequence[Origin]) -> Origin:
    """The origin of something computed from all of `origins`."""
    return Origin(
        frozenset().union(*(origin.params for origin in origins)),
        any(origin.data for origin in origins),
        frozenset().union(*(origin.scans for origin in origins)),
        bool(origins) and all(origin.is_kernel for origin in origins),
    )


def is_parameter(origin: Origin) -> bool:
    """Whether a value is made of parameters alone."""
    return bool(origin.params) and not origin.data


def origin_of(origins: Origins, ref: Operand) -> Origin:
    """The origin of an operand; constants have none."""
    return origins.get(ref, Origin()) if isinstance(ref, int) else Origin()


def trace_origins(program: Program, inputs: Sequence[Origin]) -> Origins:
    """Origins of every value, bodies included, by one pass forward."""
    origins: Origins = {}
    _walk(program, inputs, origins)
    return origins


def _walk(program: Program, inputs: Sequence[Origin], origins: Origins) -> list[Origin]:
    """Fills in `origins` for a program; returns those of its outputs."""
    origins.update(zip(program.inputs, inputs, strict=True))
    origins.update({value: Origin(data=program.types[value].shape != ()) for value in program.constants})
    for op in program.ops:
        arguments = [origin_of(origins, ref) for ref in op.inputs]
        origins.update(zip(op.outputs, _op_origins(program, op, arguments, origins), strict=True))
    return [origin_of(origins, ref) for ref in program.outputs]


def _op_origins(program: Program, op: Op, arguments: list[Origin], origins: Origins) -> list[Origin]:
    """Origins of what one operation makes."""
    if compat.scan_parts(op):
        return _scan_origins(op, arguments, origins)
    if compat.is_remat(op):
        return _walk(op.bodies[0], arguments, origins)
    if compat.is_branch(op):
        branches = [_walk(body, arguments[1:], origins) for body in op.bodies]
        return [union([arguments[0], *outputs]) for outputs in zip(*branches, strict=True)]
    origin = union(arguments)
    if not any(argument.is_kernel for argument in arguments):
        return [origin] * len(op.outputs)
    return [origin._replace(is_kernel=_is_kernel(program, op, origin, arguments, value)) for value in op.outputs]


def _is_kernel(program: Program, op: Op, origin: Origin, arguments: list[Origin], value: int) -> bool:
    """Whether `value` is still a parameter entry by entry: not broadcast over data, nor multiplied with it."""
    if is_parameter(origin) and op.name != "broadcast_in_dim":
        return True
    kernels = [ref for ref, argument in zip(op.inputs, arguments, strict=True) if argument.is_kernel]
    largest = max((size_of(program, ref) for ref in kernels), default=0)
    return op.name not in PRODUCTS and size_of(program, value) <= largest


def _scan_origins(op: Op, arguments: list[Origin], origins: Origins) -> list[Origin]:
    """Origins of a scan's outputs; what is carried is followed until nothing new comes in."""
    parts = compat.scan_parts(op)
    assert parts is not None
    first, last = parts.num_consts, parts.num_consts + parts.num_carry
    slices = [origin._replace(scans=origin.scans | set(op.outputs[:1])) for origin in arguments[last:]]
    carry = arguments[first:last]
    while True:
        outputs = _walk(op.bodies[0], [*arguments[:first], *carry, *slices], origins)
        grown = [union(pair) for pair in zip(carry, outputs[: len(carry)], strict=True)]
        if grown == carry:
            inside = set(op.outputs[:1])
            return [origin._replace(scans=origin.scans - inside) for origin in outputs]
        carry = grown


def layer_name(path: str) -> str:
    """The layer that a parameter belongs to: its path without the name of the array.

    >>> layer_name("conv1/kernel/value"), layer_name("attention/value/w"), layer_name("w1")
    ('conv1', 'attention/value', 'w1')
    """
    segments = _array_path(path)
    is_array = len(segments) > 1 and segments[-1] in ARRAY_SEGMENTS
    return "/".join(segments[:-1] if is_array else segments)


def owner_name(path: str) -> str:
    """The group that a parameter belongs to: `conv1` for `conv1/bias`, `conv1/kernel/value` and `conv1` itself.

    >>> owner_name("block/conv1/bias/value"), owner_name("w1")
    ('block/conv1', 'w1')
    """
    segments = _array_path(path)
    return "/".join(segments[:-1] or segments)


def _array_path(path: str) -> list[str]:
    """The segments of a path up to the array, without the ends of an NNX variable."""
    segments = path.split("/")
    while len(segments) > 1 and segments[-1] in VALUE_SEGMENTS:
        segments.pop()
    return segments


def shared_name(paths: frozenset[str]) -> str:
    """One name for a kernel: its layer's; of several parameters that of the one called kernel, else their common front.

    >>> shared_name(frozenset({"conv/kernel", "norm/scale"})), shared_name(frozenset({"a/mean", "a/scale"}))
    ('conv', 'a')
    """
    kernels = [path for path in paths if re.sub("/(raw_)?value$", "", path).split("/")[-1] in ARRAY_SEGMENTS]
    names = sorted({layer_name(path) for path in kernels} if len(kernels) == 1 else map(layer_name, paths))
    if len(names) == 1:
        return names[0]
    front = [
        first for first, *others in zip(*(name.split("/") for name in names), strict=False) if {first} == {*others}
    ]
    return "/".join(front) if front else "+".join(names)
