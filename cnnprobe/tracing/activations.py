"""Recognising an activation by what it computes, not by how it is spelled.

The elementwise operations that follow a value are evaluated on a few fixed points and compared with the known
functions, so `nn.relu`, `jnp.maximum(x, 0)`, `jnp.where(x > 0, x, 0)` and `x * (x > 0)` are all the same thing.
"""

import heapq
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cnnprobe.tracing import compat
from cnnprobe.tracing.program import Op, Operand, Program, View, known_scalar

POINTS = np.array([-9.0, -4.0, -2.5, -1.2, -0.6, -0.1, 0.0, 0.1, 0.6, 1.2, 2.5, 4.0, 9.0])
MAX_OPS = 60  # elementwise operations looked at behind one value
TOLERANCE = 1e-4

_erf = np.vectorize(math.erf, otypes=[float])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(x, 0)


def _elu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


KNOWN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "elu": _elu,
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * _elu(x)),
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "gelu (tanh)": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x * _sigmoid(x),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "softplus": _softplus,
    "sigmoid": _sigmoid,
    "log_sigmoid": lambda x: -_softplus(-x),
    "tanh": np.tanh,
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "hard_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hard_silu": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "soft_sign": lambda x: x / (1 + np.abs(x)),
    "squareplus": lambda x: (x + np.sqrt(x * x + 4)) / 2,
}
_KNOWN_VALUES = np.stack([fn(POINTS) for fn in KNOWN.values()])


def activation_name(values: Float[np.ndarray, " points"]) -> str:
    """The activation that takes `POINTS` to `values`, or ""."""
    with np.errstate(all="ignore"):
        errors = np.abs(values - _KNOWN_VALUES) <= TOLERANCE * (1 + np.abs(_KNOWN_VALUES))
    matches = np.flatnonzero(errors.all(axis=1))
    return list(KNOWN)[matches[0]].removesuffix(" (tanh)") if len(matches) else _leaky_name(values)


def _leaky_name(values: Float[np.ndarray, " points"]) -> str:
    """Recognises leaky ReLU with any slope in (0, 1) and ELU (or CELU) with any scale."""
    positive, negative = POINTS >= 0, POINTS < 0
    if not np.abs(values[positive] - POINTS[positive]).max() < TOLERANCE:
        return ""
    slopes = values[negative] / POINTS[negative]
    if np.ptp(slopes) < TOLERANCE:
        return "leaky_relu" if TOLERANCE < slopes[0] < 1 - TOLERANCE else ""
    scales = values[negative] / np.expm1(POINTS[negative])
    return "elu" if np.ptp(scales) < TOLERANCE and scales[0] > TOLERANCE else ""


NUMPY: dict[str, Callable[..., np.ndarray]] = {
    "abs": np.abs, "add": np.add, "add_any": np.add, "and": np.logical_and, "copy": np.asarray, "copy_p": np.asarray,
    "div": np.divide, "eq": np.equal, "erf": _erf, "erfc": lambda x: 1 - _erf(x), "exp": np.exp, "exp2": np.exp2,
    "expm1": np.expm1, "ge": np.greater_equal, "gt": np.greater, "is_finite": np.isfinite, "le": np.less_equal,
    "log": np.log, "log1p": np.log1p, "logistic": _sigmoid, "lt": np.less, "max": np.maximum, "min": np.minimum,
    "mul": np.multiply, "name": np.asarray, "ne": np.not_equal, "neg": np.negative, "not": np.logical_not,
    "or": np.logical_or, "pow": np.power, "reduce_precision": np.asarray, "rsqrt": lambda x: 1 / np.sqrt(x),
    "select_n": lambda which, *cases: np.where(which, cases[-1], cases[0]), "sign": np.sign, "sqrt": np.sqrt,
    "square": np.square, "stop_gradient": np.asarray, "sub": np.subtract, "tanh": np.tanh,
    "asinh": np.arcsinh, "atan": np.arctan, "cbrt": np.cbrt, "ceil": np.ceil, "cos": np.cos, "cosh": np.cosh,
    "floor": np.floor, "round": np.round, "sin": np.sin, "sinh": np.sinh, "tan": np.tan,
    "clamp": lambda low, x, high: np.clip(x, low, high),
}  # fmt: skip


def _evaluate(op: Op, arguments: list[Any]) -> list[np.ndarray] | None:
    """One elementwise operation in float64; None if it is not one."""
    if compat.is_custom_derivative(op) and op.bodies:
        return _evaluate_body(op.bodies[0], arguments)
    if op.name == "integer_pow":
        return [arguments[0] ** op.params["y"]]
    if op.name == "convert_element_type":
        return [np.asarray(arguments[0], bool if np.dtype(op.params["new_dtype"]).kind == "b" else float)]
    if op.name == "broadcast_in_dim" and np.ndim(arguments[0]) == 0:
        return [arguments[0]]
    return [NUMPY[op.name](*arguments)] if op.name in NUMPY else None


def _evaluate_body(body: Program, arguments: list[Any]) -> list[np.ndarray] | None:
    """The body of a custom derivative in float64; None if anything in it is not elementwise."""
    view = View(body)
    values = dict(zip(body.inputs, arguments, strict=False))
    for op in body.ops:
        operands = [_operand(view, ref, values) for ref in op.inputs]
        results = None if any(operand is None for operand in operands) else _evaluate(op, operands)
        if results is None:
            return None
        values.update(zip(op.outputs, results, strict=True))
    return [_operand(view, ref, values) for ref in body.outputs]


def elementwise_values(view: View, value: int) -> dict[int, np.ndarray]:
    """Every value that is an elementwise function of `value` alone, evaluated on `POINTS`, in program order."""
    values = {value: POINTS}
    queue = list(view.consumers.get(value, ()))
    seen = set(queue)
    heapq.heapify(queue)  # program order: operands come before the operation that reads them
    with np.errstate(all="ignore"):
        while queue and len(values) <= MAX_OPS:
            op = view.program.ops[heapq.heappop(queue)]
            for output, result in zip(op.outputs, _results(view, op, values, value), strict=False):
                values[output] = result
                fresh = set(view.consumers.get(output, ())) - seen
                seen |= fresh
                for index in fresh:
                    heapq.heappush(queue, index)
    return values


def _results(view: View, op: Op, values: dict[int, np.ndarray], value: int) -> list[np.ndarray]:
    """What `op` makes of `values`; nothing if it reads anything else or changes the shape."""
    if view.shape(op.outputs[0]) != view.shape(value):
        return []
    operands = [_operand(view, ref, values) for ref in op.inputs]
    if any(operand is None for operand in operands):
        return []
    return _evaluate(op, operands) or []


def _operand(view: View, ref: Operand, values: dict[int, np.ndarray]) -> Any:
    """An operand on `POINTS`, or the number it is known to be, or None."""
    return values[ref] if isinstance(ref, int) and ref in values else known_scalar(view, ref)


class Activation(NamedTuple):
    """A non-linear function that a program applies to one value."""

    name: str  # "relu", "softmax", ...
    source: int  # the value it is applied to
    result: int  # the value it makes


def find_activation(view: View, value: int) -> Activation | None:
    """The activation that is applied to `value`: the last recognised function of it, or a softmax."""
    found = [
        Activation(name, value, result)
        for result, values in elementwise_values(view, value).items()
        if values.dtype != bool and (name := activation_name(values))
    ]
    of_a_loss = [activation for activation in found if activation.name == "log_sigmoid"]
    chosen = of_a_loss or found[-1:]
    return chosen[0] if chosen else find_softmax(view, value)


def find_softmax(view: View, value: int) -> Activation | None:
    """A softmax or log-softmax of `value`, with or without the maximum taken off first."""
    shifted = [op.outputs[0] for op in view.readers(value) if op.name == "sub" and _is_maximum(view, op, value)]
    starts = [value, *shifted]
    exponentials = _results_of(view, starts, "exp")
    for total in _ops_on(view, exponentials, "reduce_sum"):
        for name, operation, tops in (("softmax", "div", exponentials), ("log_softmax", "sub", starts)):
            for op in _ops_on(view, tops, operation):
                if op.inputs[0] in tops and derives(view, op.inputs[1], total.outputs[0]):
                    return Activation(_softmax_name(name, total, view.shape(value)), value, op.outputs[0])
    return None


def _ops_on(view: View, values: list[int], name: str) -> list[Op]:
    """The operations of one name that read any of `values`, in any precision."""
    readers = [op for value in values for op in view.readers(value)]
    converted = [op.outputs[0] for op in readers if op.name == "convert_element_type"]
    return [op for op in (*readers, *(op for value in converted for op in view.readers(value))) if op.name == name]


def _results_of(view: View, values: list[int], name: str) -> list[int]:
    """What the operations of one name make of `values`."""
    return [op.outputs[0] for op in _ops_on(view, values, name)]


def _softmax_name(name: str, total: Op, shape: tuple[int, ...]) -> str:
    """Says so where a softmax is taken over another axis than the last."""
    axes = tuple(total.params["axes"])
    return name if axes == (len(shape) - 1,) else f"{name}[axes={axes}]"


def _is_maximum(view: View, op: Op, value: int) -> bool:
    """Whether `op` takes the maximum of `value` off `value`."""
    maxima = [reader.outputs[0] for reader in view.readers(value) if reader.name == "reduce_max"]
    return op.inputs[0] == value and any(derives(view, op.inputs[1], maximum) for maximum in maxima)


def derives(view: View, ref: Operand, source: int, depth: int = 8) -> bool:
    """Whether `ref` is computed from `source` in at most `depth` steps."""
    if ref == source:
        return True
    op = view.producer(ref)
    return depth > 0 and op is not None and any(derives(view, operand, source, depth - 1) for operand in op.inputs)
