"""The structure of a model, exact on parameter totals."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from cnnprobe.tracing.graph import model_graph

from .networks import IMAGES, LinenNet, NnxNet, linen_arguments, plain_outputs, plain_params


@functools.cache
def linen_graph(train=True):
    params, batch_stats, images, _, key = linen_arguments()

    def apply(params, state, images, *, key, train):
        variables = {"params": params, "batch_stats": state}
        return LinenNet().apply(variables, images, train, mutable=["batch_stats"], rngs={"dropout": key})

    return model_graph(apply, params, batch_stats, images, key=key, train=train), params


def test_layers_of_a_linen_model():
    graph, _ = linen_graph()
    rows = [(layer.name, layer.kind, layer.activation, layer.normalisation, layer.num_params) for layer in graph.layers]
    assert rows == [
        ("Conv_0", "conv", "relu", "BatchNorm_0", 3 * 3 * 3 * 6 + 6),
        ("Conv_1", "conv", "relu", "BatchNorm_1", 3 * 3 * 6 * 6),
        ("Dense_0", "dense", "", "", 96 * 4 + 4),
    ]


def test_total_counts_every_parameter():
    graph, params = linen_graph()
    assert graph.num_params == sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(("train", "rates"), [(True, (0.4,)), (False, ())])
def test_dropout_is_seen_while_it_is_active(train, rates):
    assert linen_graph(train)[0].dropout_rates == pytest.approx(rates)


@pytest.mark.parametrize("train", [True, False])
def test_normalisation_is_seen_in_both_modes(train):
    assert linen_graph(train)[0].normalisations == ("BatchNorm_0", "BatchNorm_1")


def test_nnx_model():
    graph_def, params, state = nnx.split(NnxNet(nnx.Rngs(0)), nnx.Param, ...)
    graph = model_graph(lambda p, s, x: nnx.merge(graph_def, p, s)(x), params, state, IMAGES)
    assert [layer.name for layer in graph.layers] == ["conv", "layers/0", "layers/1"]
    assert (graph.layers[0].normalisation, graph.layers[0].num_params) == ("norm", 3 * 3 * 3 * 6 + 6)


def test_shapes_without_arrays():
    params = jax.eval_shape(plain_params)
    images = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    graph = model_graph(lambda p, x: plain_outputs(p, x)["head"], params, images)
    assert (graph.output_shape, graph.layers[1].output_shape) == ((2, 4), (2, 8, 8, 7))
    assert (graph.layers[2].input_shape, graph.layers[2].kernel_shape) == ((2, 448), (448, 4))


@pytest.mark.parametrize(
    ("ending", "name"), [(jax.nn.softmax, "softmax"), (jnp.tanh, "tanh"), (lambda x: x, ""), (lambda x: x.sum(), "")]
)
def test_output_activation(ending, name):
    assert model_graph(lambda w, x: ending(x @ w), jnp.eye(3), jnp.ones((2, 3))).output_activation == name


def test_output_activation_behind_a_pool():
    def fn(w, x):
        return jax.nn.softmax((x @ w).mean(1))

    assert model_graph(fn, jnp.eye(3), jnp.ones((2, 5, 3))).output_activation == "softmax"


def test_shared_kernel_is_counted_once():
    graph = model_graph(lambda w, x: x @ w @ w, jnp.eye(3), jnp.ones((2, 3)))
    assert [layer.num_params for layer in graph.layers] == [9, 0]
    assert graph.num_params == 9


def test_layers_of_a_loop():
    graph = model_graph(
        lambda w, x: jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0], jnp.ones((4, 3, 3)), jnp.ones((2, 3))
    )
    assert (graph.layers[0].num_repeats, graph.layers[0].num_params) == (4, 36)


def test_printed_as_a_table():
    lines = str(linen_graph()[0]).splitlines()
    assert lines[1].split("  ")[0] == "Conv_0"
    assert lines[1].endswith("8x8x6          168         10,368  3x3              batch norm, relu, max pool 2x2")
    assert lines[-1] == "904 parameters, 15,936 multiply-adds per example, output 6x4"


def test_every_parameter_is_in_one_row():
    graph, params = linen_graph()
    rows = [layer.num_params for layer in graph.layers] + [other.num_params for other in graph.others]
    assert graph.others == (("BatchNorm_0", 12), ("BatchNorm_1", 12))
    assert sum(rows) == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_two_kernels_in_one_group_are_counted_once_each():
    params = {"cell": {"wi": jnp.ones((3, 5)), "wh": jnp.ones((5, 5)), "b": jnp.ones(5), "scale": jnp.ones(())}}
    graph = model_graph(
        lambda p, x: jnp.tanh(x @ p["cell"]["wi"] + p["cell"]["b"]) @ p["cell"]["wh"], params, jnp.ones((2, 3))
    )
    assert [layer.num_params for layer in graph.layers] == [20, 25]
    assert graph.others == (("cell", 1),)


def test_no_layers():
    graph = model_graph(lambda p, x: p * x, jnp.ones(3), jnp.ones(3))
    assert (graph.layers, graph.num_params) == ((), 3)


def test_not_a_function():
    with pytest.raises(ValueError, match="fn must be a function, got None"):
        model_graph(None, {})
