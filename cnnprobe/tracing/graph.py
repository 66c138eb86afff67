"""The structure of a model, read from one trace: nothing is computed."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cnnprobe.tracing.calls import Call, trace_call
from cnnprobe.tracing.dropouts import find_dropouts
from cnnprobe.tracing.endings import output_activation
from cnnprobe.tracing.layers import Layer, find_structure
from cnnprobe.tracing.program import Constant
from cnnprobe.tracing.provenance import owner_name

Shape = tuple[int, ...]


class LayerNode(NamedTuple):
    """One layer of a model."""

    name: str  # the path of its parameters
    kind: str  # "conv", "depthwise-conv", "grouped-conv", "transposed-conv" or "dense"
    input_shape: Shape  # with the batch axis
    kernel_shape: Shape
    output_shape: Shape  # of the layer's own operation, with the batch axis
    num_params: int  # of its kernel and bias; 0 for a second use of the same kernel
    activation: str  # what its output goes through, or ""
    normalisation: str  # name of the normalisation that its output goes through, or ""
    num_repeats: int  # turns of a loop that hands it new parameters each time; 1 outside


class ModelGraph(NamedTuple):
    """A model as its layers, in program order."""

    layers: tuple[LayerNode, ...]
    num_params: int  # entries of all parameters, those of no layer included
    output_shape: Shape  # of the first output
    output_activation: str  # what the first output went through last: "softmax", ... or ""
    dropout_rates: tuple[float, ...]  # of the dropouts that are active in this trace
    normalisations: tuple[str, ...]  # names of the normalisations behind layers
    skipped: tuple[str, ...]  # what holds layers but could not be looked into

    def __str__(self) -> str:
        """The model as a table."""
        header = ("layer", "kind", "output", "parameters", "then")
        rows = [header, *(_row(layer) for layer in self.layers)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        facts = [
            f"{self.num_params:,} parameters, output {_shape(self.output_shape)} {self.output_activation}".rstrip()
        ]
        facts += [f"dropout {', '.join(f'{rate:g}' for rate in self.dropout_rates)}"] if self.dropout_rates else []
        facts += [f"not looked into: {', '.join(self.skipped)}"] if self.skipped else []
        return "\n".join([*lines, *facts])


def _row(layer: LayerNode) -> tuple[str, ...]:
    """The cells of one layer."""
    repeats = f" x{layer.num_repeats}" if layer.num_repeats > 1 else ""
    then = " ".join(part for part in (layer.normalisation, layer.activation) if part)
    return layer.name + repeats, layer.kind, _shape(layer.output_shape), f"{layer.num_params:,}", then


def _shape(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"


def model_graph(fn: Callable, params: Any, *args: Any, **kwargs: Any) -> ModelGraph:
    """Reads the structure of `fn(params, *args, **kwargs)`.

    Arrays may be given as `jax.ShapeDtypeStruct`. A `fn` without layers gives a graph without layers.

    Raises:
      ValueError: `fn` cannot be called.

    >>> import jax
    >>> model_graph(lambda w, x: jax.nn.relu(x @ w), np.ones((4, 3)), np.ones((2, 4))).layers[0].activation
    'relu'
    """
    call = trace_call(fn, (params, *args), kwargs, [0])
    structure = find_structure(call.program, call.origins)
    ending = output_activation(call.program)
    sizes = {path: math.prod(np.shape(leaf)) for path, leaf in _parameters(call).items()}
    layers = tuple(_node(layer, sizes) for layer in structure.layers)
    return ModelGraph(
        layers=layers,
        num_params=sum(sizes.values()),
        output_shape=_output_shape(call),
        output_activation=ending.name if ending else "",
        dropout_rates=tuple(round(dropout.rate, 6) for dropout in find_dropouts(call.program)),
        normalisations=tuple(dict.fromkeys(layer.normalisation for layer in layers if layer.normalisation)),
        skipped=structure.skipped,
    )


def _parameters(call: Call) -> dict[str, Any]:
    """Parameters by path."""
    pairs = zip(call.origins, call.inputs, strict=True)
    return {path: leaf for origin, leaf in pairs for path in origin.params}


def _node(layer: Layer, sizes: Mapping[str, int]) -> LayerNode:
    """One layer of the graph."""
    kernel, data = (layer.op.equation.invars[index].aval for index in (layer.kernel, 1 - layer.kernel))
    repeats = math.prod(length for _, length in layer.scans)
    return LayerNode(
        name=layer.name,
        kind=layer.kind,
        input_shape=data.shape,
        kernel_shape=kernel.shape,
        output_shape=layer.op.equation.outvars[0].aval.shape,
        num_params=0 if "#" in layer.name else sum(sizes[path] for path in _own_params(layer, sizes)),
        activation=layer.activation,
        normalisation=layer.output.normalisation,
        num_repeats=repeats,
    )


def _own_params(layer: Layer, sizes: Mapping[str, int]) -> set[str]:
    """The kernel, the bias and what else stands in the same group; not the normalisation."""
    groups = {owner_name(path) for path in layer.kernel_params if "/" in path}
    beside = layer.params - layer.output.normalisation_params
    return {path for path in sizes if path in beside or ("/" in path and owner_name(path) in groups)}


def _output_shape(call: Call) -> Shape:
    """Shape of the first output."""
    if not call.program.outputs:
        return ()
    first = call.program.outputs[0]
    return np.shape(first.value) if isinstance(first, Constant) else call.program.types[first].shape
