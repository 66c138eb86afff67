"""What the network is made of, read from its trace; nothing is run."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from cnnprobe.doctor.bench import Bench
from cnnprobe.tracing.calls import Call, trace_call
from cnnprobe.tracing.dropouts import find_dropouts
from cnnprobe.tracing.graph import model_graph
from cnnprobe.tracing.layers import Structure, find_structure, is_open
from cnnprobe.tracing.program import SAME_ENTRIES, Op, all_ops
from cnnprobe.tracing.provenance import Origins, origin_of
from cnnprobe.types import Images, Outputs, Params, State

NUM_TRACED = 2  # images: enough to tell a batch axis
PRODUCTS = frozenset({"mul", "dot_general", "conv_general_dilated"})  # linear in each operand
LINEAR = SAME_ENTRIES | {
    *("add", "add_any", "sub", "neg", "reduce_sum", "reduce_window_sum", "cumsum", "stop_gradient", "rev"),
    *("concatenate", "pad", "slice", "dynamic_slice", "gather", "split"),
}


def _outputs(bench: Bench, *, train: bool) -> Callable:
    """`(params, state, images, key) -> outputs` in one mode."""
    apply = bench.problem.model.apply

    def outputs(params: Params, state: State, images: Images, key: jax.Array) -> Outputs:
        """The model's outputs alone."""
        return apply(params, state, images, key=key, train=train)[0]

    return outputs


def look_at_structure(bench: Bench, weights: tuple[Params, State]) -> tuple[dict[str, float], dict[str, str]]:
    """Depth, size, dropout in both modes, what is not linear, and the activation of the output."""
    args = (*weights, jnp.asarray(bench.train.images[:NUM_TRACED]), jax.random.key(0))
    graph = model_graph(_outputs(bench, train=True), *args)
    call = trace_call(_outputs(bench, train=False), args, {}, [0, 1])
    facts = {
        "number of layers": float(len(graph.layers)),
        "number of parameters": float(graph.num_params),
        "strongest dropout rate": max(graph.dropout_rates, default=0.0),
        "dropout rate in evaluation": max((dropout.rate for dropout in find_dropouts(call.program)), default=0.0),
    }
    facts |= _look_between_layers(call)
    return facts, {"output activation": graph.output_activation, "opaque to taps": ", ".join(graph.skipped)}


def _look_between_layers(call: Call) -> dict[str, float]:
    """How many operations between the first layer and the last are not linear in the images; needs two layers."""
    structure = find_structure(call.program, call.origins)
    if len(structure.layers) < 2 or structure.skipped:
        return {}
    bends = [op.name for op in _between(structure) if not _is_linear(op, structure.origins)]
    num_pools = sum(name.startswith("reduce_window_m") for name in bends)
    return {"hidden nonlinearities": float(len(bends) - num_pools), "max pools": float(num_pools)}


def _between(structure: Structure) -> Iterator[Op]:
    """The operations from the first layer's to the last layer's, in program order."""
    ops = list(all_ops(structure.program))
    places = {id(op): index for index, op in enumerate(ops)}
    first, last = (places[id(structure.layers[end].op)] for end in (0, -1))
    yield from ops[first:last]


def _is_linear(op: Op, origins: Origins) -> bool:
    """Whether what an operation makes is linear in the images; a loop or branch is what its own operations are."""
    from_images = [origin_of(origins, ref).data for ref in op.inputs]
    if is_open(op) or not any(from_images) or op.name in LINEAR:
        return True
    if op.name == "div":
        return not from_images[1]
    return op.name in PRODUCTS and sum(from_images) == 1
