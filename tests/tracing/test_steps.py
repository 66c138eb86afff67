"""What stands between the layers, in every way of writing it."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest

from cnnprobe.models.networks import residual_cnn
from cnnprobe.tracing.graph import model_graph

IMAGES = jnp.ones((4, 8, 8, 3))


def texts(layer):
    return [step.text for step in layer.steps]


def between(fn, *, train=False):
    """The steps between a convolution of six channels and a dense layer."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = fn(nn.Conv(6, (3, 3))(x))
            return nn.Dense(4)(x.reshape(len(x), -1))

    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = jax.eval_shape(Net().init, rngs, IMAGES)
    graph = model_graph(
        lambda v, x, k: Net().apply(v, x, rngs={"dropout": k}, mutable=True)[0], variables, IMAGES, rngs["dropout"]
    )
    return texts(graph.layers[0])


STEPS = {
    "relu": (nn.relu, ["relu", "flatten"]),
    "maximum": (lambda x: jnp.maximum(x, 0), ["relu", "flatten"]),
    "where": (lambda x: jnp.where(x > 0, x, 0), ["relu", "flatten"]),
    "leaky relu": (lambda x: nn.leaky_relu(x, 0.3), ["leaky_relu 0.3", "flatten"]),
    "gelu": (nn.gelu, ["gelu", "flatten"]),
    "silu": (nn.silu, ["silu", "flatten"]),
    "elu": (nn.elu, ["elu", "flatten"]),
    "softmax": (nn.softmax, ["softmax", "flatten"]),
    "an activation without a name": (jnp.sin, ["f(-1.2) = -0.932, f(1.2) = 0.932", "flatten"]),
    "a scale": (lambda x: 2 * x + 1, ["times 2 plus 1", "flatten"]),
    "max pool": (lambda x: nn.max_pool(nn.relu(x), (2, 2), (2, 2)), ["relu", "max pool 2x2", "flatten"]),
    "overlapping pool": (lambda x: nn.avg_pool(x, (3, 3), (2, 2), "SAME"), ["average pool 3x3/2 same", "flatten"]),
    "global pool": (lambda x: nn.relu(x).mean((1, 2)), ["relu", "global average pool"]),
    "global pool as a window": (lambda x: nn.avg_pool(x, (8, 8)), ["global average pool"]),
    "global max pool": (lambda x: x.max((1, 2)), ["global max pool"]),
    "batch norm": (nn.BatchNorm(False), ["batch norm", "flatten"]),
    "batch norm at rest": (nn.BatchNorm(True), ["batch norm", "flatten"]),
    "norm behind the activation": (lambda x: nn.BatchNorm(False)(nn.relu(x)), ["relu", "batch norm", "flatten"]),
    "layer norm": (nn.LayerNorm(), ["layer norm", "flatten"]),
    "layer norm over the whole map": (nn.LayerNorm(reduction_axes=(1, 2, 3)), ["layer norm", "flatten"]),
    "group norm": (nn.GroupNorm(3), ["group norm", "flatten"]),
    "instance norm": (nn.InstanceNorm(), ["instance norm", "flatten"]),
    "rms norm": (nn.RMSNorm(), ["rms norm", "flatten"]),
    "dropout": (nn.Dropout(0.3, deterministic=False), ["dropout 0.3", "flatten"]),
}


def wrapped(fn):
    """Modules are made anew inside the network."""
    return (lambda x: fn.copy(name="part")(x)) if isinstance(fn, nn.Module) else fn


@pytest.mark.parametrize("name", STEPS)
def test_steps(name):
    fn, expected = STEPS[name]
    assert between(wrapped(fn)) == expected


def test_a_join_belongs_to_the_last_layer_of_its_branches():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(6, (3, 3))(x)
            return nn.relu(x + nn.Conv(6, (1, 1))(x))

    graph = model_graph(Net().apply, jax.eval_shape(Net().init, jax.random.key(0), IMAGES), IMAGES)
    assert [texts(layer) for layer in graph.layers] == [[], ["add", "relu"]]


def test_a_gate_and_a_concatenation():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(6, (3, 3))(x)
            gate = nn.sigmoid(nn.Dense(6)(x.mean((1, 2))))
            return jnp.concatenate([x * gate[:, None, None], nn.Conv(2, (1, 1))(x)], -1)

    graph = model_graph(Net().apply, jax.eval_shape(Net().init, jax.random.key(0), IMAGES), IMAGES)
    assert [texts(layer) for layer in graph.layers] == [
        ["global average pool"],
        ["sigmoid", "multiply"],
        ["concatenate"],
    ]


def test_steps_before_the_first_layer():
    graph = model_graph(lambda w, x: jnp.tanh(x) @ w, jnp.eye(3), jnp.ones((2, 3)))
    assert [step.text for step in graph.first_steps] == ["tanh"]


def test_a_residual_network_in_both_modes():
    model = residual_cnn(10, widths=(4, 6))
    params, state = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    rows = {
        train: [
            texts(layer)
            for layer in model_graph(
                lambda p, s, x, train=train: model.apply(p, s, x, key=None, train=train)[0], params, state, IMAGES
            ).layers
        ]
        for train in (True, False)
    }
    assert rows[True] == rows[False]
    assert rows[True][2] == ["batch norm", "add", "relu"]


def test_inside_a_loop_and_a_rematerialised_block():
    block = jax.checkpoint(lambda x, w: jax.nn.relu(x @ w))
    graph = model_graph(
        lambda w, x: jax.lax.scan(lambda x, w: (block(x, w), None), x, w)[0], jnp.ones((4, 3, 3)), jnp.ones((2, 3))
    )
    assert texts(graph.layers[0]) == ["relu"]


def test_haiku():
    def fn(x):
        x = hk.max_pool(jax.nn.relu(hk.BatchNorm(True, True, 0.9)(hk.Conv2D(6, 3)(x), is_training=True)), 2, 2, "SAME")
        return hk.Linear(4)(hk.Flatten()(x))

    module = hk.transform_with_state(fn)
    params, state = jax.eval_shape(module.init, jax.random.key(0), IMAGES)
    graph = model_graph(lambda p, s, x: module.apply(p, s, None, x)[0], params, state, IMAGES)
    assert texts(graph.layers[0]) == ["batch norm", "relu", "max pool 2x2", "flatten"]


def equinox_net(key):
    keys = jax.random.split(key)
    parts = [
        *(eqx.nn.Conv2d(3, 6, 3, padding=1, key=keys[0]), eqx.nn.GroupNorm(3, 6), eqx.nn.Lambda(jax.nn.relu)),
        *(eqx.nn.MaxPool2d(2, 2), eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(6 * 16, 4, key=keys[1])),
    ]
    return eqx.nn.Sequential(parts)


def test_equinox_under_vmap():
    shapes = eqx.filter_eval_shape(equinox_net, jax.random.key(0))
    params, static = eqx.partition(shapes, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    graph = model_graph(lambda p, x: jax.vmap(eqx.combine(p, static))(x), params, jnp.ones((4, 3, 8, 8)))
    assert texts(graph.layers[0]) == ["group norm", "relu", "max pool 2x2", "flatten"]
    assert graph.layers[1].field == (8, 8)
