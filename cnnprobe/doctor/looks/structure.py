"""What the network is made of, read from its trace; nothing is run."""

import jax
import jax.numpy as jnp

from cnnprobe.doctor.bench import Bench
from cnnprobe.tracing.graph import model_graph
from cnnprobe.types import Images, Outputs, Params, State

NUM_TRACED = 2  # images: enough to tell a batch axis


def look_at_structure(bench: Bench, weights: tuple[Params, State]) -> tuple[dict[str, float], dict[str, str]]:
    """Depth, size, dropout and the activation of the output, in training mode."""
    apply = bench.problem.model.apply

    def outputs(params: Params, state: State, images: Images, key: jax.Array) -> Outputs:
        """The model's outputs alone."""
        return apply(params, state, images, key=key, train=True)[0]

    params, state = weights
    graph = model_graph(outputs, params, state, jnp.asarray(bench.train.images[:NUM_TRACED]), jax.random.key(0))
    facts = {
        "number of layers": float(len(graph.layers)),
        "number of parameters": float(graph.num_params),
        "strongest dropout rate": max(graph.dropout_rates, default=0.0),
    }
    return facts, {"output activation": graph.output_activation, "opaque to taps": ", ".join(graph.skipped)}
