"""The features in Flax NNX."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from .cases import IMAGES, TOKENS, Case, filled, mark, over_seeds, penalised, score
from .plain import OPAQUE, RELU_NAMES, RELUS, SMOOTH, SMOOTH_NAMES, accumulated, conv, product


class Net(nnx.Module):
    """A module that is written as one function of itself, its layers made by name."""

    def __init__(self, body, layers):
        rngs = nnx.Rngs(0)
        self.body = body
        for name, make in layers.items():
            setattr(self, name, make(rngs))

    def __call__(self, x, probe=None):
        return self.body(self, x, probe)


def parts(body, layers):
    """(apply, params) of the network; `apply(params, x, probe)` is pure."""
    graph, params, state = nnx.split(nnx.eval_shape(lambda: Net(body, layers)), nnx.Param, ...)
    state = filled(state)

    def apply(params, x, probe=None):
        return nnx.merge(graph, params, state, copy=True)(x, probe)

    return apply, filled(params)


def case(body, layers, rows, images=IMAGES, by_hand=None, **settings):
    """The network `body`; its twin is `by_hand`, a body too, where it holds what hides its layers."""
    apply, params = parts(body, layers)
    twin, _ = parts(by_hand or body, layers)
    return Case(
        lambda params: score(apply(params, images)),
        lambda params, probe: score(twin(params, images, probe)),
        params,
        rows,
        **settings,
    )


def convolution(*args, **settings):
    return lambda rngs: nnx.Conv(*args, **settings, rngs=rngs)


def linear(*args, **settings):
    return lambda rngs: nnx.Linear(*args, **settings, rngs=rngs)


def trunk(make, after=lambda net, x: x, more=None, **settings):
    """A convolution to eight channels, ReLU and a head."""

    def body(net, x, probe):
        x = mark(probe, "conv", nnx.relu(after(net, net.conv(x))))
        return mark(probe, "head", net.head(x.mean((1, 2))))

    layers = {"conv": make, **(more or {}), "head": linear(8, 3)}
    return case(body, layers, {"conv": "relu", "head": ""}, **settings)


def residual():
    def body(net, x, probe):
        return mark(probe, "main", mark(probe, "shortcut", nnx.relu(net.main(x) + net.shortcut(x))))

    layers = {"main": convolution(4, 5, (3, 3)), "shortcut": convolution(4, 5, (1, 1))}
    return case(body, layers, {"main": "relu", "shortcut": "relu"})


def shared():
    def body(net, x, probe):
        x = mark(probe, "conv", nnx.relu(net.conv(x)))
        return mark(probe, "conv#1", nnx.relu(net.conv(x)))

    return case(body, {"conv": convolution(4, 4, (3, 3))}, {"conv": "relu", "conv#1": "relu"})


class Standardised(nnx.Conv):
    """A convolution whose kernel has mean zero and deviation one."""

    def __call__(self, x):
        w = self.kernel[...]
        return conv(x, (w - w.mean((0, 1, 2))) / (w.std((0, 1, 2)) + 1e-5)) + self.bias[...]


def spectral():
    """The layer is held by its normalisation, whose name comes first."""

    def body(net, x, probe):
        return mark(probe, "norm/layer_instance", nnx.relu(net.norm(x, update_stats=True)))

    def make(rngs):
        return nnx.SpectralNorm(nnx.Conv(4, 6, (3, 3), rngs=rngs), rngs=rngs)

    return case(body, {"norm": make}, {"norm/layer_instance": "relu"})


def masked():
    mask = np.ones((3, 3, 4, 8), np.float32)
    mask[2:] = mask[1, 2:] = 0
    return trunk(convolution(4, 8, (3, 3), mask=mask))


def attention():
    names = ("query", "key", "value", "out")

    def body(net, x, probe):
        return net.attention(x)

    def by_hand(net, x, probe):
        query, key, value = (
            mark(probe, f"attention/{name}", getattr(net.attention, name)(x).reshape(4, 5, 6)).reshape(4, 5, 2, 3)
            for name in names[:3]
        )
        return mark(probe, "attention/out", net.attention.out(nnx.dot_product_attention(query, key, value)))

    def make(rngs):
        return nnx.MultiHeadAttention(2, 4, 6, decode=False, rngs=rngs)

    return case(body, {"attention": make}, {f"attention/{name}": "" for name in names}, TOKENS, by_hand)


class Layer(nnx.Module):
    """One of a stack."""

    def __init__(self, rngs):
        self.dense = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.dense(x))


def scan():
    def body(net, x, _):
        return nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, net.blocks)

    def by_hand(net, x, probe):
        graph, params = nnx.split(net.blocks)
        for index in range(3):
            layer = nnx.merge(graph, jax.tree.map(lambda leaf, index=index: leaf[index], params))
            x = mark(probe, f"blocks/dense[{index}]", layer(x))
        return x

    def make(rngs):
        return nnx.vmap(Layer)(rngs.fork(split=3))

    return case(body, {"blocks": make}, {f"blocks/dense[{index}]": "relu" for index in range(3)}, by_hand=by_hand)


class Block(nnx.Module):
    """What is put inside a transformation."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(4, 6, (3, 3), rngs=rngs)
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x, probe=None):
        x = mark(probe, "block/conv", nnx.relu(self.conv(x)))
        return mark(probe, "block/head", self.head(x))


ROWS = {"block/conv": "relu", "block/head": ""}


def unwrapped(net, x, probe=None):
    return net.block(x, probe)


def wrapped(body=unwrapped):
    """The block, as `body` wraps it."""
    return case(body, {"block": Block}, ROWS, by_hand=unwrapped)


def cond():
    def body(net, x, _):
        return nnx.cond(x.sum() < 1e9, lambda block, x: block(x), lambda block, x: x[..., :3], net.block, x)

    return wrapped(body)


def second_order():
    def body(net, x, probe):
        x = mark(probe, "first", nnx.silu(net.first(x)))
        return mark(probe, "second", nnx.silu(net.second(x)))

    apply, params = parts(body, {"first": linear(4, 5), "second": linear(5, 3)})
    return penalised(apply, params, TOKENS, {"first": "silu", "second": "silu"})


def chain(activations, names):
    def body(net, x, probe):
        for index, activation in enumerate(activations):
            x = mark(probe, f"layers/{index}", activation(net.layers[index](x)))
        return x

    layers = {"layers": lambda rngs: nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in names])}
    return case(body, layers, {f"layers/{index}": name for index, name in enumerate(names)})


def softmax():
    def body(net, x, probe):
        return -jnp.log(nnx.softmax(mark(probe, "head", net.head(x.mean((1, 2))))))

    return case(body, {"head": linear(4, 3)}, {"head": "softmax"})


def opaque():
    def body(net, x, probe):
        kernel = net.kept.kernel[...]
        x = product(x, kernel)
        x = jax.lax.stop_gradient(jax.lax.while_loop(lambda x: x.sum() < -1e9, lambda x: x @ kernel, x))
        return mark(probe, "head", net.head(conv(x, np.ones((3, 3, 1, 4), np.float32), feature_group_count=4)))

    return case(body, {"kept": linear(4, 4, use_bias=False), "head": linear(4, 3)}, {"head": ""}, skipped=OPAQUE)


CASES = {
    "batch_norm": lambda: trunk(
        convolution(4, 8, (3, 3)), lambda net, x: net.norm(x), {"norm": lambda rngs: nnx.BatchNorm(8, rngs=rngs)}
    ),
    "dropout": lambda: trunk(
        convolution(4, 8, (3, 3)), lambda net, x: net.drop(x), {"drop": lambda rngs: nnx.Dropout(0.2, rngs=rngs)}
    ),
    "residual": residual,
    "shared": shared,
    "grouped": lambda: trunk(convolution(4, 8, (3, 3), feature_group_count=2)),
    "depthwise": lambda: trunk(convolution(4, 8, (3, 3), feature_group_count=4)),
    "transposed": lambda: trunk(lambda rngs: nnx.ConvTranspose(4, 8, (3, 3), strides=(2, 2), rngs=rngs)),
    "dilated": lambda: trunk(convolution(4, 8, (3, 3), kernel_dilation=2)),
    "standardised": lambda: trunk(lambda rngs: Standardised(4, 8, (3, 3), rngs=rngs)),
    "spectral": spectral,
    "masked": masked,
    "attention": attention,
    "scan": scan,
    "remat": lambda: wrapped(lambda net, x, _: nnx.remat(lambda block, x: block(x))(net.block, x)),
    "jit": lambda: wrapped(lambda net, x, _: nnx.jit(lambda block, x: block(x))(net.block, x)),
    "cond": cond,
    "seeds": lambda: over_seeds(wrapped()),
    "bfloat16": lambda: trunk(convolution(4, 8, (3, 3), dtype=jnp.bfloat16, param_dtype=jnp.bfloat16), rtol=3e-2),
    "mixed": lambda: trunk(convolution(4, 8, (3, 3), dtype=jnp.bfloat16), rtol=3e-2),
    "accumulation": lambda: accumulated(*parts(unwrapped, {"block": Block}), ROWS, optax.adam(0.1)),
    "second_order": second_order,
    "relu": lambda: chain(RELUS, RELU_NAMES),
    "smooth": lambda: chain(SMOOTH, SMOOTH_NAMES),
    "softmax": softmax,
    "opaque": opaque,
}
