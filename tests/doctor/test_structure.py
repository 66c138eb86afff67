"""The rows of the network's picture."""

import jax
import jax.numpy as jnp

from cnnprobe.doctor.looks.structure import graph_rows, look_at_structure
from cnnprobe.models.networks import residual_cnn
from cnnprobe.tracing.graph import model_graph


def test_rows_of_a_small_network(tiny_bench):
    weights = jax.eval_shape(tiny_bench.problem.model.init, jax.random.key(0), tiny_bench.train.images)
    facts, _, rows = look_at_structure(tiny_bench, weights)
    assert [row.name for row in rows] == ["input", "conv1", "conv2", "dense1", "dense2"]
    assert sum(row.num_params for row in rows) == facts["number of parameters"]
    assert rows[2] == (
        "conv2",
        "conv",
        "3x3 same",
        "4x4x32",
        "7x7/2",
        4640,
        73728,
        ("relu", "max pool 2x2", "flatten"),
        (),
    )


def test_branches_point_at_the_rows_they_come_from():
    model, images = residual_cnn(10, widths=(4,)), jnp.ones((2, 8, 8, 1))
    params, state = jax.eval_shape(model.init, jax.random.key(0), images)
    graph = model_graph(lambda p, s, x: model.apply(p, s, x, key=None, train=True)[0], params, state, images)
    assert [row.branches for row in graph_rows(graph)] == [(), (), (), (1,), ()]
