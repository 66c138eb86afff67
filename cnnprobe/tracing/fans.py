"""Fan-in: how many numbers each entry of a layer's result is summed from."""

import math
from collections.abc import Callable
from typing import Any

from cnnprobe.tracing.calls import Call, trace_call
from cnnprobe.tracing.layers import Layer, find_structure


def fan_ins(fn: Callable, params: Any, *args: Any) -> dict[str, int]:
    """Fan-in of each kernel of `fn(params, *args)`, by the path of its parameter, in whatever order its axes stand.

    Kernels of no layer, and those that layers make from several parameters, are left out.

    >>> import numpy as np
    >>> fan_ins(lambda w, x: x @ w.T, np.ones((3, 4)), np.ones((2, 4)))
    {'params': 4}
    """
    return fans_of(trace_call(fn, (params, *args), {}, [0]))


def fans_of(call: Call) -> dict[str, int]:
    """The same of a call that was traced with the origins of its parameters."""
    layers = find_structure(call.program, call.origins).layers
    return {path: _fan_in(layer) for layer in layers if len(layer.kernel_params) == 1 for path in layer.kernel_params}


def _fan_in(layer: Layer) -> int:
    """Entries of the kernel for each feature of the result."""
    kernel = layer.op.equation.invars[layer.kernel].aval.shape
    return math.prod(kernel) // layer.num_features
