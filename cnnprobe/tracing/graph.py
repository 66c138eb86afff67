"""The structure of a model, read from one trace: nothing is computed."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cnnprobe.tracing.calls import Call, trace_call
from cnnprobe.tracing.dropouts import find_dropouts
from cnnprobe.tracing.endings import output_activation
from cnnprobe.tracing.fields import field_of
from cnnprobe.tracing.layers import Layer, find_structure
from cnnprobe.tracing.nodes import LayerNode, ModelGraph, OtherParams
from cnnprobe.tracing.ownership import own_params
from cnnprobe.tracing.program import Constant
from cnnprobe.tracing.provenance import owner_name
from cnnprobe.tracing.reach import Reach
from cnnprobe.tracing.roles import Roles, find_roles, own_axes
from cnnprobe.tracing.steps import NOT_YET, Step, find_steps
from cnnprobe.tracing.windows import Shape, conv_window, multiply_adds, shapes_of


def model_graph(fn: Callable, params: Any, *args: Any, **kwargs: Any) -> ModelGraph:
    """Reads the structure of `fn(params, *args, **kwargs)`.

    Arrays may be given as `jax.ShapeDtypeStruct`. A `fn` without layers gives a graph without layers. Of the arrays
    that are no parameters the one with most axes is taken for the images: multiply-adds are for one of them, and
    receptive fields count its places. Statistics and gates that are the same at all places are left out of a field.

    Raises:
      ValueError: `fn` cannot be called.

    >>> import jax
    >>> model_graph(lambda w, x: jax.nn.relu(x @ w), np.ones((4, 3)), np.ones((2, 4))).layers[0].activation
    'relu'
    """
    call = trace_call(fn, (params, *args), kwargs, [0])
    structure = find_structure(call.program, call.origins)
    roles = find_roles(structure, call.origins)
    steps = find_steps(structure, roles)
    ending = output_activation(call.program)
    sizes = {path: math.prod(np.shape(leaf)) for path, leaf in _parameters(call).items()}
    owners = own_params(structure.layers, sizes)
    owned = Counter[str]()
    for path, name in owners.items():
        owned[name] += sizes[path]
    layers = tuple(
        _node(layer, roles, owned[layer.name], steps.get(number, ())) for number, layer in enumerate(structure.layers)
    )
    return ModelGraph(
        layers=layers,
        num_params=sum(sizes.values()),
        input_shape=tuple(length for axis, length in enumerate(roles.shape) if axis != roles.batch),
        input_places=tuple(roles.shape[axis] for axis in roles.places),
        output_shape=_output_shape(call),
        output_activation=ending.name if ending else "",
        dropout_rates=tuple(round(dropout.rate, 6) for dropout in find_dropouts(call.program)),
        normalisations=tuple(dict.fromkeys(layer.normalisation for layer in layers if layer.normalisation)),
        skipped=structure.skipped,
        first_steps=steps.get(NOT_YET, ()),
        others=_others({path: size for path, size in sizes.items() if path not in owners}),
    )


def _parameters(call: Call) -> dict[str, Any]:
    """Parameters by path."""
    pairs = zip(call.origins, call.inputs, strict=True)
    return {path: leaf for origin, leaf in pairs for path in origin.params}


def _others(sizes: Mapping[str, int]) -> tuple[OtherParams, ...]:
    """Parameters of no layer, those of one group together."""
    groups = Counter[str]()
    for path, size in sizes.items():
        groups[owner_name(path)] += size
    return tuple(OtherParams(name, size) for name, size in groups.items())


def _node(layer: Layer, roles: Roles, num_params: int, steps: tuple[Step, ...]) -> LayerNode:
    """One layer of the graph."""
    shapes, output = shapes_of(layer.op)
    kernel, data = shapes[layer.kernel], shapes[1 - layer.kernel]
    window = conv_window(layer.op)
    seen = _seen(layer, roles)
    numbers = layer.op.params["dimension_numbers"]
    return LayerNode(
        name=layer.name,
        kind=layer.kind,
        input_shape=data,
        kernel_shape=kernel,
        output_shape=output,
        num_params=num_params,
        activation=layer.activation,
        normalisation=layer.output.normalisation,
        num_repeats=math.prod(length for _, length in layer.scans),
        num_inputs=kernel[numbers.rhs_spec[1]] if window else math.prod(kernel[i] for i in numbers[0][layer.kernel]),
        num_features=layer.num_features,
        window=window,
        input_places=tuple(data[axis] for axis in numbers.lhs_spec[2:]) if window else (),
        output_places=tuple(output[axis] for axis in numbers.out_spec[2:]) if window else (),
        multiply_adds=multiply_adds(layer.op) * layer.num_turns // _num_examples(layer, roles),
        field=tuple(reach.size for reach in seen),
        field_stride=tuple(reach.stride for reach in seen),
        steps=steps,
    )


def _seen(layer: Layer, roles: Roles) -> list[Reach]:
    """What the outputs of a layer see of each spatial axis of the input."""
    field = field_of(roles.fields, layer.op.outputs[0])
    return [field[source] for source in roles.places if source in field]


def _num_examples(layer: Layer, roles: Roles) -> int:
    """Examples that the layer's operation works on at once."""
    field = field_of(roles.fields, layer.op.outputs[0])
    batch = own_axes(field, () if roles.batch is None else (roles.batch,))
    return layer.op.equation.outvars[0].aval.shape[batch[0]] if batch else 1


def _output_shape(call: Call) -> Shape:
    """Shape of the first output."""
    if not call.program.outputs:
        return ()
    first = call.program.outputs[0]
    return np.shape(first.value) if isinstance(first, Constant) else call.program.types[first].shape
