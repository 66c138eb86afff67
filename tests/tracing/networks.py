"""Small networks that the tests of tracing share; each returns its loss and what its layers put out."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

IMAGES = jax.random.normal(jax.random.key(0), (6, 8, 8, 3))
LABELS = jnp.arange(6) % 4


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def plain_params(seed=1):
    keys = jax.random.split(jax.random.key(seed), 3)
    return {
        "conv1": {"w": 0.3 * jax.random.normal(keys[0], (3, 3, 3, 5)), "b": jnp.linspace(-0.5, 0.5, 5)},
        "conv2": {"w": 0.3 * jax.random.normal(keys[1], (3, 3, 5, 7)), "b": jnp.zeros(7)},
        "head": {"w": 0.1 * jax.random.normal(keys[2], (7 * 64, 4)), "b": jnp.ones(4)},
    }


def plain_outputs(params, images, offsets=None):
    """The outputs of the three layers; `offsets` are added to each, so that gradients by them can be taken."""
    offsets = offsets or {"conv1": 0.0, "conv2": 0.0, "head": 0.0}
    dimensions = ("NHWC", "HWIO", "NHWC")
    outputs, x = {}, images
    for name, activation in (("conv1", jax.nn.relu), ("conv2", jnp.tanh)):
        x = jax.lax.conv_general_dilated(x, params[name]["w"], (1, 1), "SAME", dimension_numbers=dimensions)
        x = outputs[name] = activation(x + params[name]["b"]) + offsets[name]
    x = x.reshape(len(x), -1) @ params["head"]["w"] + params["head"]["b"]
    return outputs | {"head": x + offsets["head"]}


def plain_loss(params, images=IMAGES, labels=LABELS):
    return cross_entropy(plain_outputs(params, images)["head"], labels)


class LinenNet(nn.Module):
    """Convolution, batch norm, ReLU, pool, residual block, dropout, head."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(6, (3, 3))(x)))
        x = nn.max_pool(x, (2, 2), (2, 2))
        y = nn.BatchNorm(use_running_average=not train)(nn.Conv(6, (3, 3), use_bias=False)(x))
        x = nn.relu(x + y)
        x = nn.Dropout(0.4, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(4)(x)


def linen_loss(params, batch_stats, images, labels, key):
    variables = {"params": params, "batch_stats": batch_stats}
    logits, state = LinenNet().apply(variables, images, True, mutable=["batch_stats"], rngs={"dropout": key})
    return cross_entropy(logits, labels), state["batch_stats"]


def linen_arguments():
    variables = LinenNet().init(jax.random.key(1), IMAGES, False)
    return variables["params"], variables["batch_stats"], IMAGES, LABELS, jax.random.key(2)


class NnxNet(nnx.Module):
    """The same in NNX."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 6, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.dropout = nnx.Dropout(0.4, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(6, 5, rngs=rngs), nnx.Linear(5, 4, rngs=rngs)])

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x))).mean((1, 2))
        return self.layers[1](nnx.silu(self.layers[0](self.dropout(x))))


def nnx_parts():
    """(loss, params, state) of the NNX network; the loss is a pure function of the last two, images and labels."""
    graph, params, state = nnx.split(NnxNet(nnx.Rngs(0)), nnx.Param, ...)

    def loss(params, state, images, labels):
        model = nnx.merge(graph, params, state, copy=True)
        return cross_entropy(model(images), labels), nnx.state(model, nnx.Not(nnx.Param))

    return loss, params, state


def assert_trees_equal(a, b, rtol=1e-6):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        # The gradient of a bias in front of a normalisation is zero but for rounding, of 1e-7 on some processors.
        np.testing.assert_allclose(np.asarray(x, np.float64), np.asarray(y, np.float64), rtol=rtol, atol=1e-6)


def reference(x):
    """Mean, standard deviation, maximum and share of zeros by unit, in float64."""
    x = np.asarray(x, np.float64).reshape(-1, np.shape(x)[-1])
    return x.mean(0), x.std(0), x.max(0), (x == 0).mean(0)
