"""Receptive fields equal what a gradient measures: the places of the input that one output depends on."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.tracing.graph import model_graph


def conv(size=3, **settings):
    settings = {"padding": "SAME", **settings}
    return lambda x: nn.Conv(1, (size, size), use_bias=False, **settings)(x)


def up(size=3, stride=2, **settings):
    return lambda x: nn.ConvTranspose(1, (size, size), (stride, stride), use_bias=False, **settings)(x)


def pool(size=2, stride=2, **settings):
    return lambda x: nn.avg_pool(x, (size, size), (stride, stride), **settings)


def branches(*parts):
    return lambda x: sum(part(x) for part in parts)


STACKS = {
    "plain": [conv(), conv(5)],
    "valid": [conv(padding="VALID"), conv(padding="VALID")],
    "strided": [conv(strides=2), conv(strides=2), conv()],
    "dilated": [conv(), conv(kernel_dilation=3)],
    "pools": [conv(), pool(), conv(), pool(3, 2), conv()],
    "padded pool": [pool(3, 1, padding="SAME"), conv()],
    "up": [conv(strides=2), up(), conv()],
    "up by four": [pool(4, 4), up(5, 4, padding="VALID"), conv()],
    "up and dilated": [pool(), up(3, 2, kernel_dilation=(3, 3)), conv()],
    "branches": [branches(conv(1), conv(5)), conv()],
    "concatenated": [lambda x: jnp.concatenate([conv()(x), conv(7)(x)], -1), conv()],
    "residual": [lambda x: x + conv()(conv()(x)), conv()],
    "cropped and turned": [conv(), lambda x: x[:, 2:-3, ::2][:, ::-1], conv()],
    "padded by hand": [lambda x: jnp.pad(x, ((0, 0), (3, 3), (2, 1), (0, 0))), conv(padding="VALID")],
    "channels first between": [conv(), lambda x: x.transpose(0, 3, 1, 2).transpose(0, 2, 3, 1), conv()],
    "space to depth": [
        lambda x: x.reshape(-1, 12, 2, 12, 2, 1).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 12, 12, 4),
        conv(),
    ],
    "nearest neighbour": [pool(), lambda x: jnp.repeat(jnp.repeat(x, 2, 1), 2, 2), conv()],
    "rematerialised": [jax.checkpoint(lambda x: x[:, 1:] * 2), conv()],
    "flattened": [conv(), lambda x: x[:, :5, :7].reshape(len(x), -1), lambda x: nn.Dense(1)(x)],
}


class Stack(nn.Module):
    """Functions one after the other; each makes its layer when it is called."""

    parts: tuple

    @nn.compact
    def __call__(self, x):
        for part in self.parts:
            x = part(x)
        return x


def measured(module, images):
    """Places from the first to the last one that an output depends on, over all outputs, by height and width."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
    support = np.asarray(jax.jit(jax.jacrev(lambda x: module.apply(params, x)))(images)) != 0
    support = support.reshape(-1, *images.shape[1:3])
    return tuple(max(np.ptp(np.flatnonzero(one)) + 1 for one in support.any(3 - axis) if one.any()) for axis in (1, 2))


def last_layer(module, images):
    params = jax.eval_shape(module.init, jax.random.key(0), images)
    return model_graph(module.apply, params, images).layers[-1]


@pytest.mark.parametrize("name", STACKS)
def test_equals_what_a_gradient_measures(name):
    build = STACKS[name]
    module, images = Stack(tuple(build)), jnp.ones((1, 24, 24, 1))
    assert last_layer(module, images).field == measured(module, images)


def test_a_max_pool_sees_its_window():
    module = Stack((conv(), lambda x: nn.max_pool(x, (3, 3), (2, 2)), conv()))
    assert last_layer(module, jnp.ones((2, 24, 24, 1))).field == (2 * (3 - 1) + (3 - 1) + 3,) * 2


@pytest.mark.parametrize(
    ("parts", "stride"), [([conv(strides=2), pool(), conv()], 4), ([conv(strides=2), up(), up()], 0.5), ([conv()], 1)]
)
def test_stride(parts, stride):
    assert last_layer(Stack(tuple(parts)), jnp.ones((2, 24, 24, 1))).field_stride == (stride, stride)


@pytest.mark.parametrize("train", [True, False])
def test_statistics_of_a_batch_do_not_widen_the_field(train):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.GroupNorm(1)(nn.BatchNorm(not train)(nn.Conv(4, (3, 3))(x)))
            return nn.Conv(4, (3, 3))(x)

    variables = jax.eval_shape(Net().init, jax.random.key(0), jnp.ones((2, 24, 24, 1)))
    graph = model_graph(lambda v, x: Net().apply(v, x, mutable=True)[0], variables, jnp.ones((2, 24, 24, 1)))
    assert graph.layers[-1].field == (5, 5)


def test_a_loop_over_layers_sees_as_far_as_all_its_turns():
    def fn(kernels, x):
        step = lambda x, w: (jax.lax.conv_general_dilated(x, w, (1, 1), "SAME"), None)  # noqa: E731
        return jax.lax.scan(step, x, kernels)[0]

    graph = model_graph(fn, jnp.ones((4, 1, 1, 3, 3)), jnp.ones((2, 1, 24, 24)))
    assert graph.layers[0].field == (9, 9)


def after_first(part):
    """A layer of a map of 6 x 4 places that `part` is added to."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(4, (2, 2), (2, 2))(x)
            return nn.Conv(4, (1, 1))(x + part(x))

    return last_layer(Net(), jnp.ones((2, 12, 8, 1)))


def test_attention_sees_everything():
    def attend(x):
        return nn.MultiHeadDotProductAttention(2)(x.reshape(len(x), -1, 4)).reshape(x.shape)

    assert after_first(attend).field == (12, 8)


def test_a_dense_layer_over_places_sees_all_of_them():
    assert after_first(lambda x: nn.DenseGeneral(6, axis=1)(x).transpose(0, 3, 1, 2)).field == (12, 2)


def test_a_gate_does_not_widen_the_field():
    assert after_first(lambda x: x * nn.sigmoid(nn.Dense(4)(x.mean((1, 2), keepdims=True)))).field == (2, 2)


def test_without_a_convolution_there_is_no_field():
    assert model_graph(lambda w, x: x @ w, jnp.eye(3), jnp.ones((2, 3))).layers[0].field == ()


def test_an_unknown_operation_sees_everything_but_other_examples():
    def fn(w, x):
        x = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME")
        return jax.lax.conv_general_dilated(jnp.cumsum(x, 2), w, (1, 1), "SAME")

    layer = model_graph(fn, jnp.ones((1, 1, 3, 3)), jnp.ones((2, 1, 8, 8))).layers[-1]
    assert (layer.field, layer.multiply_adds) == ((8, 8), 8 * 8 * 9)
