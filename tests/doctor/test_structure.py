"""The rows of the network's picture, and what lacks between its layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.doctor.causes import CAUSES
from cnnprobe.doctor.looks.structure import graph_rows, kernel_gains, look_at_structure
from cnnprobe.doctor.remedies_network import insert_relu_behind
from cnnprobe.models.chain import batch_norm, chain, conv, dense, dropout, function
from cnnprobe.models.networks import residual_cnn
from cnnprobe.models.plain import dense as plain_dense
from cnnprobe.models.plain import flatten
from cnnprobe.tracing.graph import model_graph
from cnnprobe.types import Model


def test_rows_of_a_small_network(tiny_bench):
    weights = tiny_bench.problem.model.init(jax.random.key(0), tiny_bench.train.images)
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


FLAT = (function(flatten),)


def stack(*units, between=(), first=FLAT):
    """Dense layers `d0`, `d1`, ... with the same steps between any two."""
    steps = [step for index, size in enumerate(units) for step in (dense(f"d{index}", size), *between)]
    return chain([*first, *steps[: len(steps) - len(between)]])


def branched(params, state, images, *, key, train):
    """Two dense layers side by side, of which neither feeds the other."""
    x = images.reshape(len(images), -1)
    return x @ params["a"] + x @ params["b"], state


SIDE_BY_SIDE = Model(lambda key, images: ({name: jnp.ones((64, 64)) for name in "ab"}, {}), branched)
FEW = [conv("c", 2, stride=8), function(flatten)]  # two values for each image
IDLE = {
    "nothing between": (stack(32, 10), ["d0"]),
    "dropout between": (stack(32, 10, between=(dropout(0.5),)), ["d0"]),
    "three in a row": (stack(32, 16, 10), ["d0", "d1"]),
    "activation between": (stack(32, 10, between=(function(jax.nn.relu),)), []),
    "normalisation between": (chain([function(flatten), dense("a", 32), batch_norm("n"), dense("b", 10)]), []),
    "bottleneck": (stack(4, 10), []),
    "widened for nothing": (stack(32, 10, first=FEW), ["d0"]),
    "side by side": (SIDE_BY_SIDE, []),
    "one layer": (stack(10), []),
}


@pytest.mark.parametrize("name", IDLE)
def test_dense_layers_that_feed_each_other_straight_are_named(name, tiny_bench):
    model, expected = IDLE[name]
    bench = tiny_bench._replace(problem=tiny_bench.problem._replace(model=model))
    facts, names, _ = look_at_structure(bench, model.init(jax.random.key(0), tiny_bench.train.images))
    assert names["idle dense layers"] == ", ".join(expected)
    assert facts["idle dense layers"] == len(expected)


def test_relu_is_put_behind_the_named_layer_alone(tiny_bench):
    model, x = stack(8, 6, 4), jnp.asarray(tiny_bench.train.images)
    problem = insert_relu_behind("d1")(tiny_bench.problem._replace(model=model))
    params, state = model.init(jax.random.key(0), x)
    hidden = jax.nn.relu(plain_dense(params["d1"], plain_dense(params["d0"], flatten(x))))
    outputs, _ = problem.model.apply(params, state, x, key=jax.random.key(0), train=True)
    np.testing.assert_allclose(outputs, plain_dense(params["d2"], hidden), rtol=1e-5)


def test_straight_dense_layers_speak_for_a_missing_activation(healthy):
    seen = healthy._replace(
        facts={**healthy.facts, "idle dense layers": 1.0, "hidden nonlinearities": 3.0},
        names={**healthy.names, "idle dense layers": "dense1"},
    )
    (cause,) = (cause for cause in CAUSES if cause.id == "no-nonlinearity")
    assert "between dense1 and the dense layer behind it" in cause.evidence(seen).sentence
    assert "Put a ReLU behind dense1" in cause.advice(seen).text


def test_gain_of_a_kernel_is_its_size_beside_its_fan_in():
    kernels = {
        "a": np.full((4, 3), 0.5),
        "b": np.full((3, 3, 1, 2), -2.0),
        "head": np.zeros((2, 2)),
        "bias": np.ones(9),
    }
    assert kernel_gains(kernels, {"a": 4, "b": 9, "head": 2}) == pytest.approx([1.0, 6.0])


@pytest.mark.parametrize("factor", [0.1, 1.0, 10.0])
def test_gain_follows_the_scale_of_the_kernels(factor, tiny_bench):
    params, state = tiny_bench.problem.model.init(jax.random.key(0), tiny_bench.train.images)
    scaled = jax.tree.map(lambda leaf: leaf * factor if leaf.ndim > 1 else leaf, params)
    facts, _, _ = look_at_structure(tiny_bench, (scaled, state))
    assert facts["kernel gain"] == pytest.approx(factor * 2**0.5, rel=0.1)  # as He draws them
