"""The features in Keras 3 on JAX; a network is a functional model of named layers."""

import os
from unittest import mock

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
from keras import layers, ops

from .cases import IMAGES, TOKENS, Case, filled, mark, over_seeds, penalised, score
from .plain import OPAQUE, RELU_NAMES, SMOOTH_NAMES, accumulated, product

RELUS = [
    keras.activations.relu,
    lambda x: ops.maximum(x, 0),
    lambda x: ops.where(x > 0, x, 0),
    lambda x: x * ops.cast(x > 0, x.dtype),
    keras.activations.relu6,
    layers.ReLU(),
]
SMOOTH = [getattr(keras.activations, name) for name in SMOOTH_NAMES]

ABSENT = {"scan": "no loop over layers"}  # what Keras does not have


def zeros(_, shape, dtype):
    """What stands in for an initialiser, whose draws take long to compile; `filled` gives the values."""
    return jnp.asarray(np.zeros(shape, jnp.dtype(dtype)))


def parts(body, *made, images=IMAGES):
    """(apply, params) of the network `body(net, x, probe)` of the layers `made`; `apply(params, x, probe)` is pure.

    With a probe the layers are called one by one, without the model.
    """
    net = {layer.name: layer for layer in made}
    inputs = keras.Input(images.shape[1:])
    with mock.patch.object(keras.initializers.VarianceScaling, "__call__", zeros):
        model = keras.Model(inputs, body(net, inputs, None))
    trained, carried = model.trainable_variables, model.non_trainable_variables
    state = filled([variable.value for variable in carried])

    def apply(params, x, probe=None):
        values = [params[variable.path] for variable in trained]
        if probe is None:
            return model.stateless_call(values, state, x, training=True)[0]
        with keras.StatelessScope([*zip(trained, values, strict=True), *zip(carried, state, strict=True)]):
            return body(net, x, probe)

    return apply, filled({variable.path: variable.value for variable in trained})


def case(body, *made, rows, images=IMAGES, by_hand=None, **settings):
    """The network `body`; its twin is `by_hand(params, images, probe)` where it holds what hides its layers."""
    apply, params = parts(body, *made, images=images)
    twin = by_hand or apply
    return Case(
        lambda params: score(apply(params, images)),
        lambda params, probe: score(twin(params, images, probe)),
        params,
        rows,
        **settings,
    )


def trunk(layer, after=lambda x: x, row="conv", **settings):
    """A convolution, ReLU and a head."""

    def body(net, x, probe):
        x = mark(probe, row, layers.ReLU()(after(layer(x))))
        return mark(probe, "head", net["head"](layers.GlobalAveragePooling2D()(x)))

    return case(body, layers.Dense(3, name="head"), rows={row: "relu", "head": ""}, **settings)


def convolution(**settings):
    return trunk(layers.Conv2D(8, 3, name="conv", **settings))


def batch_norm():
    norm = layers.BatchNormalization(name="norm")
    return trunk(layers.Conv2D(8, 3, use_bias=False, name="conv"), lambda x: norm(x, training=True))


def dropout():
    drop = layers.Dropout(0.2)
    return trunk(layers.Conv2D(8, 3, name="conv"), lambda x: drop(x, training=True))


def residual():
    def body(net, x, probe):
        y = layers.ReLU()(layers.Add()([net["main"](x), net["shortcut"](x)]))
        return mark(probe, "main", mark(probe, "shortcut", y))

    made = (layers.Conv2D(5, 3, padding="same", name="main"), layers.Conv2D(5, 1, name="shortcut"))
    return case(body, *made, rows={"main": "relu", "shortcut": "relu"})


def shared():
    def body(net, x, probe):
        return mark(probe, "conv#1", net["conv"](mark(probe, "conv", net["conv"](x))))

    return case(body, layers.Conv2D(4, 3, activation="relu", name="conv"), rows={"conv": "relu", "conv#1": "relu"})


class Standardised(layers.Conv2D):
    """A convolution whose kernel has mean zero and deviation one."""

    def convolution_op(self, inputs, kernel):
        kernel = ops.convert_to_tensor(kernel)
        mean, variance = ops.moments(kernel, (0, 1, 2))
        return super().convolution_op(inputs, (kernel - mean) / ops.sqrt(variance + 1e-5))


class Masked(layers.Conv2D):
    """A convolution that sees what lies above and to the left."""

    def convolution_op(self, inputs, kernel):
        mask = np.ones((3, 3, 1, 1), np.float32)
        mask[2:] = mask[1, 2:] = 0
        return super().convolution_op(inputs, kernel * mask)


def spectral():
    layer = layers.SpectralNormalization(layers.Conv2D(8, 3, name="conv"), name="norm")
    return trunk(lambda x: layer(x, training=True), row="norm/conv")


def attention():
    names = ("query", "key", "value", "attention_output")

    def by_hand(params, x, probe):
        def dense(name, x, axes):
            kernel, bias = (params[f"attention/{name}/{array}"] for array in ("kernel", "bias"))
            out = (jnp.tensordot(x, kernel, axes) + bias).reshape(4, 5, -1)
            return mark(probe, f"attention/{name}", out)

        query, key, value = (dense(name, x, 1).reshape(4, 5, 2, 3) for name in names[:3])
        return dense("attention_output", jax.nn.dot_product_attention(query, key, value), 2)

    def body(net, x, probe):
        return net["attention"](x, x)

    rows = {f"attention/{name}": "" for name in names}
    layer = layers.MultiHeadAttention(2, 3, name="attention")
    return case(body, layer, rows=rows, images=TOKENS, by_hand=by_hand)


class Block(layers.Layer):
    """What is put inside a transformation."""

    def __init__(self):
        super().__init__(name="block")
        self.conv = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv")
        self.head = layers.Dense(3, name="head")

    def build(self, shape):
        self.conv.build(shape)
        self.head.build(self.conv.compute_output_shape(shape))

    def run(self, x, probe=None):
        x = mark(probe, "block/conv", self.conv(x))
        return mark(probe, "block/head", self.head(x))

    def call(self, x):
        return self.run(x)


class Chosen(Block):
    """The block in a branch."""

    def call(self, x):
        return ops.cond(ops.sum(x) < 1e9, lambda: self.run(x), lambda: x[..., :3])


ROWS = {"block/conv": "relu", "block/head": ""}


def block_parts(block):
    """The block as a network."""
    return parts(lambda net, x, probe: block.run(x, probe) if probe else block(x), block)


def wrapped(block, wrap=lambda apply: apply):
    """The block in a transformation."""
    apply, params = block_parts(block)
    loss, (twin, _) = wrap(apply), block_parts(Block())
    return Case(
        lambda params: score(loss(params, IMAGES)),
        lambda params, probe: score(twin(params, IMAGES, probe)),
        params,
        ROWS,
    )


def remat():
    with keras.RematScope(mode="full"):
        block = Block()
    return wrapped(block)


def second_order():
    def body(net, x, probe):
        return mark(probe, "second", net["second"](mark(probe, "first", net["first"](x))))

    made = (layers.Dense(units, activation="silu", name=name) for name, units in (("first", 5), ("second", 3)))
    return penalised(*parts(body, *made, images=TOKENS), TOKENS, {"first": "silu", "second": "silu"})


def chain(activations, names):
    rows = {f"layer{index}": name for index, name in enumerate(names)}

    def body(net, x, probe):
        for row, activation in zip(rows, activations, strict=True):
            x = mark(probe, row, activation(net[row](x)))
        return x

    return case(body, *(layers.Dense(4, name=row) for row in rows), rows=rows)


def softmax():
    def body(net, x, probe):
        logits = mark(probe, "head", net["head"](layers.GlobalAveragePooling2D()(x)))
        return -ops.log(layers.Softmax()(logits))

    return case(body, layers.Dense(3, name="head"), rows={"head": "softmax"})


class Opaque(layers.Layer):
    """A product with a derivative of its own, and one in a `while` loop."""

    def build(self, shape):
        self.kernel = self.add_weight((4, 4), name="kernel")

    def call(self, x):
        kernel = ops.convert_to_tensor(self.kernel)
        x = product(x, kernel)
        x = ops.while_loop(lambda x: ops.sum(x) < -1e9, lambda x: (ops.matmul(x, kernel),), (x,))[0]
        return ops.depthwise_conv(ops.stop_gradient(x), np.ones((3, 3, 4, 1), np.float32), padding="same")


def opaque():
    def body(net, x, probe):
        return mark(probe, "head", net["head"](net["opaque"](x)))

    return case(body, Opaque(name="opaque"), layers.Dense(3, name="head"), rows={"head": ""}, skipped=OPAQUE)


CASES = {
    "batch_norm": batch_norm,
    "dropout": dropout,
    "residual": residual,
    "shared": shared,
    "grouped": lambda: convolution(groups=2),
    "depthwise": lambda: trunk(layers.DepthwiseConv2D(3, depth_multiplier=2, name="conv")),
    "transposed": lambda: trunk(layers.Conv2DTranspose(6, 3, strides=2, name="conv")),
    "dilated": lambda: convolution(dilation_rate=2),
    "standardised": lambda: trunk(Standardised(8, 3, name="conv")),
    "spectral": spectral,
    "masked": lambda: trunk(Masked(8, 3, name="conv")),
    "attention": attention,
    "remat": remat,
    "jit": lambda: wrapped(Block(), lambda apply: jax.jit(jax.jit(apply))),
    "cond": lambda: wrapped(Chosen()),
    "seeds": lambda: over_seeds(wrapped(Block())),
    "bfloat16": lambda: trunk(layers.Conv2D(8, 3, dtype="bfloat16", name="conv"), rtol=3e-2),
    "mixed": lambda: trunk(layers.Conv2D(8, 3, dtype="mixed_bfloat16", name="conv"), rtol=3e-2),
    "accumulation": lambda: accumulated(*block_parts(Block()), ROWS, optax.adam(0.1)),
    "second_order": second_order,
    "relu": lambda: chain(RELUS, RELU_NAMES),
    "smooth": lambda: chain(SMOOTH, SMOOTH_NAMES),
    "softmax": softmax,
    "opaque": opaque,
}
