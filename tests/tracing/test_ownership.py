"""Every parameter belongs to one layer or to none."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from cnnprobe.tracing.graph import model_graph

IMAGES = jnp.ones((2, 6, 6, 3))


class Shared(nn.Module):
    """One convolution used twice, weight normalisation, a scale and an embedding that is not used."""

    @nn.compact
    def __call__(self, x):
        conv = nn.Conv(3, (3, 3))
        x = nn.LayerNorm()(conv(nn.relu(conv(x)))) * self.param("gain", nn.initializers.ones, (3,))
        self.param("unused", nn.initializers.ones, (7, 5))
        return nn.WeightNorm(nn.Dense(4))(x.mean((1, 2)))


def test_a_shared_module_counts_once():
    params = jax.eval_shape(Shared().init, jax.random.key(0), IMAGES)
    graph = model_graph(Shared().apply, params, IMAGES)
    rows = {layer.name: layer.num_params for layer in graph.layers}
    others = {other.name: other.num_params for other in graph.others}
    assert (rows["Conv_0"], rows["Conv_0#1"]) == (3 * 3 * 3 * 3 + 3, 0)
    assert others["unused"] == 35
    assert sum(rows.values()) + sum(others.values()) == sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("names", [("w1", "b1", "w2"), ("a/w", "a/b", "b/w"), ("a/w1", "a/b1", "a/w2")])
def test_rows_add_up_however_parameters_are_grouped(names):
    shapes = dict(zip(names, [(3, 5), (5,), (5, 2)], strict=True))
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    first, bias, second = names
    graph = model_graph(lambda p, x: jax.nn.relu(x @ p[first] + p[bias]) @ p[second], params, jnp.ones((4, 3)))
    assert [layer.num_params for layer in graph.layers] == [20, 10]
