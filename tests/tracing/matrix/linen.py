"""The features in Flax Linen."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from .cases import IMAGES, TOKENS, Case, filled, mark, over_seeds, penalised, score
from .plain import OPAQUE, RELU_NAMES, RELUS, SMOOTH, SMOOTH_NAMES, accumulated, conv, product

KEY = jax.random.key(3)


class Net(nn.Module):
    """A module that is written as one function."""

    body: Callable  # (x, probe) -> outputs

    @nn.compact
    def __call__(self, x, probe=None):
        return self.body(x, probe)


def case(body, rows, images=IMAGES, by_hand=None, **settings):
    """The network `body`; its twin is `by_hand(params, images, probe)` where it holds what hides its layers."""
    module = Net(body)
    variables = filled(jax.eval_shape(module.init, {"params": KEY, "dropout": KEY}, images))
    state = {name: tree for name, tree in variables.items() if name != "params"}

    def apply(params, images, probe):
        return module.apply({"params": params, **state}, images, probe, mutable=True, rngs={"dropout": KEY})[0]

    return Case(
        lambda params: score(apply(params, images, None)),
        lambda params, probe: score((by_hand or apply)(params, images, probe)),
        variables["params"],
        rows,
        **settings,
    )


def trunk(layer, after=lambda x: x, **settings):
    """A convolution, ReLU and a head."""

    def body(x, probe):
        x = mark(probe, "Conv_0", nn.relu(after(layer(x))))
        return mark(probe, "Dense_0", nn.Dense(3)(x.mean((1, 2))))

    return case(body, {"Conv_0": "relu", "Dense_0": ""}, **settings)


def convolution(**settings):
    return trunk(lambda x: nn.Conv(8, (3, 3), **settings)(x))


def transposed():
    def body(x, probe):
        return mark(probe, "ConvTranspose_0", nn.relu(nn.ConvTranspose(6, (3, 3), strides=(2, 2))(x)))

    return case(body, {"ConvTranspose_0": "relu"})


def residual():
    def body(x, probe):
        y = nn.relu(nn.Conv(5, (3, 3), name="main")(x) + nn.Conv(5, (1, 1), name="shortcut")(x))
        return mark(probe, "main", mark(probe, "shortcut", y))

    return case(body, {"main": "relu", "shortcut": "relu"})


def shared():
    def body(x, probe):
        layer = nn.Conv(4, (3, 3))
        return mark(probe, "Conv_0#1", nn.relu(layer(mark(probe, "Conv_0", nn.relu(layer(x))))))

    return case(body, {"Conv_0": "relu", "Conv_0#1": "relu"})


def masked():
    mask = np.ones((3, 3, 4, 8), np.float32)
    mask[2:] = mask[1, 2:] = 0
    return convolution(mask=mask)


def attention():
    def body(x, probe):
        query, key, value = (
            mark(probe, name, nn.DenseGeneral((2, 3), name=name)(x).reshape(*x.shape[:-1], 6)).reshape(4, 5, 2, 3)
            for name in ("query", "key", "value")
        )
        x = nn.dot_product_attention(query, key, value)
        return mark(probe, "out", nn.DenseGeneral(4, axis=(-2, -1), name="out")(x))

    rows = dict.fromkeys(("query", "key", "value", "out"), "")
    own = case(body, rows, TOKENS)
    library = nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=6, out_features=4)
    return own._replace(loss=lambda params: score(library.apply({"params": params}, TOKENS)))


class Layer(nn.Module):
    """One of a stack."""

    @nn.compact
    def __call__(self, x, _):
        return nn.relu(nn.Dense(4, name="dense")(x)), None


def scan():
    def body(x, probe):
        stack = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return stack(name="blocks")(x, None)[0]

    def by_hand(params, x, probe):
        for index in range(3):
            layer = jax.tree.map(lambda leaf, index=index: leaf[index], params["blocks"])
            x = mark(probe, f"blocks/dense[{index}]", Layer().apply({"params": layer}, x, None)[0])
        return x

    return case(body, {f"blocks/dense[{index}]": "relu" for index in range(3)}, by_hand=by_hand)


class Block(nn.Module):
    """What is put inside a transformation."""

    @nn.compact
    def __call__(self, x, probe=None):
        x = mark(probe, "block/conv", nn.relu(nn.Conv(6, (3, 3), name="conv")(x)))
        return mark(probe, "block/head", nn.Dense(3, name="head")(x))


ROWS = {"block/conv": "relu", "block/head": ""}


def wrapped(body=lambda x, probe: Block(name="block")(x, probe)):
    """The block, as `body` wraps it."""
    return case(body, ROWS, by_hand=lambda params, x, probe: Block().apply({"params": params["block"]}, x, probe))


def cond():
    def body(x, _):
        block = Block(name="block")
        if block.is_initializing():
            return block(x)
        return nn.cond(x.sum() < 1e9, lambda block, x: block(x), lambda block, x: x[..., :3], block, x)

    return wrapped(body)


def accumulation():
    module = Net(lambda x, probe: Block(name="block")(x, probe))
    params = filled(jax.eval_shape(module.init, KEY, IMAGES))["params"]
    return accumulated(lambda params, *args: module.apply({"params": params}, *args), params, ROWS, optax.adam(0.1))


def second_order():
    def body(x, probe):
        x = mark(probe, "Dense_0", nn.silu(nn.Dense(5)(x)))
        return mark(probe, "Dense_1", nn.silu(nn.Dense(3)(x)))

    module = Net(body)
    params = filled(jax.eval_shape(module.init, KEY, TOKENS))["params"]
    rows = {"Dense_0": "silu", "Dense_1": "silu"}
    return penalised(lambda params, *args: module.apply({"params": params}, *args), params, TOKENS, rows)


def chain(activations, names):
    def body(x, probe):
        for index, activation in enumerate(activations):
            x = mark(probe, f"Dense_{index}", activation(nn.Dense(4)(x)))
        return x

    return case(body, {f"Dense_{index}": name for index, name in enumerate(names)})


def softmax():
    def body(x, probe):
        return -jnp.log(nn.softmax(mark(probe, "Dense_0", nn.Dense(3)(x.mean((1, 2))))))

    return case(body, {"Dense_0": "softmax"})


class Opaque(nn.Module):
    """A product with a derivative of its own, and one in a `while` loop."""

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.orthogonal(), (4, 4))
        x = product(x, kernel)
        x = jax.lax.stop_gradient(jax.lax.while_loop(lambda x: x.sum() < -1e9, lambda x: x @ kernel, x))
        return conv(x, np.ones((3, 3, 1, 4), np.float32), feature_group_count=4)


def opaque():
    def body(x, probe):
        return mark(probe, "Dense_0", nn.Dense(3)(Opaque()(x)))

    return case(body, {"Dense_0": ""}, skipped=OPAQUE)


CASES = {
    "batch_norm": lambda: trunk(
        lambda x: nn.Conv(8, (3, 3), use_bias=False)(x), lambda x: nn.BatchNorm(use_running_average=False)(x)
    ),
    "dropout": lambda: trunk(lambda x: nn.Conv(8, (3, 3))(x), lambda x: nn.Dropout(0.2, deterministic=False)(x)),
    "residual": residual,
    "shared": shared,
    "grouped": lambda: convolution(feature_group_count=2),
    "depthwise": lambda: convolution(feature_group_count=4),
    "transposed": transposed,
    "dilated": lambda: convolution(kernel_dilation=2),
    "standardised": lambda: trunk(lambda x: nn.WeightNorm(nn.Conv(8, (3, 3)))(x)),
    "spectral": lambda: trunk(lambda x: nn.SpectralNorm(nn.Conv(8, (3, 3)))(x, update_stats=True)),
    "masked": masked,
    "attention": attention,
    "scan": scan,
    "remat": lambda: wrapped(lambda x, _: nn.remat(Block)(name="block")(x)),
    "jit": lambda: wrapped(lambda x, _: nn.jit(Block)(name="block")(x)),
    "cond": cond,
    "seeds": lambda: over_seeds(wrapped()),
    "bfloat16": lambda: trunk(lambda x: nn.Conv(8, (3, 3), dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)(x), rtol=3e-2),
    "mixed": lambda: trunk(lambda x: nn.Conv(8, (3, 3), dtype=jnp.bfloat16)(x), rtol=3e-2),
    "accumulation": accumulation,
    "second_order": second_order,
    "relu": lambda: chain(RELUS, RELU_NAMES),
    "smooth": lambda: chain(SMOOTH, SMOOTH_NAMES),
    "softmax": softmax,
    "opaque": opaque,
}
