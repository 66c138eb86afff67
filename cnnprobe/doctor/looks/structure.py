"""What the network is made of, read from its trace; nothing is run."""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from cnnprobe.doctor.bench import Bench
from cnnprobe.doctor.looks.linearity import idle_layers, look_between_layers
from cnnprobe.tracing.calls import trace_call
from cnnprobe.tracing.dropouts import find_dropouts
from cnnprobe.tracing.fans import fans_of
from cnnprobe.tracing.graph import model_graph
from cnnprobe.tracing.nodes import LayerNode, ModelGraph, field_text
from cnnprobe.tracing.windows import shape_text
from cnnprobe.trees import leaf_name
from cnnprobe.types import GraphRow, Images, Outputs, Params, State

NUM_TRACED = 2  # images: enough to tell a batch axis


def _outputs(bench: Bench, *, train: bool) -> Callable:
    """`(params, state, images, key) -> outputs` in one mode."""
    apply = bench.problem.model.apply

    def outputs(params: Params, state: State, images: Images, key: jax.Array) -> Outputs:
        """The model's outputs alone."""
        return apply(params, state, images, key=key, train=train)[0]

    return outputs


def look_at_structure(
    bench: Bench, weights: tuple[Params, State]
) -> tuple[dict[str, float], dict[str, str], tuple[GraphRow, ...]]:
    """Depth, size, dropout in both modes, what is not linear, the activation of the output; and the network to draw."""
    args = (*weights, jnp.asarray(bench.train.images[:NUM_TRACED]), jax.random.key(0))
    graph = model_graph(_outputs(bench, train=True), *args)
    call = trace_call(_outputs(bench, train=False), args, {}, [0, 1])
    facts = {
        "number of layers": float(len(graph.layers)),
        "number of parameters": float(graph.num_params),
        "strongest dropout rate": max(graph.dropout_rates, default=0.0),
        "dropout rate in evaluation": max((dropout.rate for dropout in find_dropouts(call.program)), default=0.0),
    }
    traced = trace_call(_outputs(bench, train=False), args, {}, [0])
    idle, gains = idle_layers(traced), kernel_gains(weights[0], fans_of(traced))
    facts |= {**look_between_layers(call), "idle dense layers": float(len(idle))}
    facts["kernel gain"] = float(np.median(gains)) if gains else math.nan
    names = {"output activation": graph.output_activation, "opaque to taps": ", ".join(graph.skipped)}
    names["idle dense layers"] = ", ".join(idle)
    return facts, names, graph_rows(graph)


def kernel_gains(params: Params, fans: Mapping[str, int]) -> list[float]:
    """Root mean square of each kernel times the root of its fan-in: 1 as LeCun draws it, 1.4 as He does.

    That is by how much a layer changes the size of what it is given. Kernels of zeros, with which residual branches and
    heads may start, are left out.
    """
    leaves = {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    sizes = {name: float(np.sqrt(np.mean(np.square(np.asarray(leaves[name], np.float64))))) for name in fans}
    return [size * math.sqrt(fans[name]) for name, size in sizes.items() if 0 < size < math.inf]


def graph_rows(graph: ModelGraph) -> tuple[GraphRow, ...]:
    """The input and every layer, as they are drawn."""
    first = tuple(step.text for step in graph.first_steps)
    shape = shape_text(graph.input_shape) if graph.input_shape else ""
    return (GraphRow("input", "input", "", shape, "", 0, 0, first, ()), *map(_graph_row, graph.layers))


def _graph_row(layer: LayerNode) -> GraphRow:
    """One layer as it is drawn."""
    return GraphRow(
        name=layer.name,
        kind=layer.kind,
        window=f"{layer.window} {layer.padding}" if layer.window else "",
        output=shape_text((*layer.output_places, layer.num_features)),
        field=field_text(layer),
        num_params=layer.num_params,
        multiply_adds=layer.multiply_adds,
        steps=tuple(step.text for step in layer.steps),
        branches=tuple(number + 1 for step in layer.steps for number in step.branches),
    )
