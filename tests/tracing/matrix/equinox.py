"""The features in Equinox, whose modules take one example, channels first; a network is a dict of modules."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from . import cases
from .cases import IMAGES, TOKENS, Case, Probe, filled, over_seeds, penalised, score
from .plain import OPAQUE, RELU_NAMES, RELUS, SMOOTH, SMOOTH_NAMES, accumulated, product

KEY = jax.random.key(3)
PICTURES = IMAGES.transpose(0, 3, 1, 2)
VECTORS = IMAGES.reshape(-1, 4)[:20]


def mark(probe, name, x):
    """The output of a layer, its units along the first axis."""
    return jnp.moveaxis(cases.mark(probe, name, jnp.moveaxis(x, 0, -1)), -1, 0)


def parts(body, make):
    """(apply, params) of the network; `apply(params, x, probe)` maps `body` over the examples."""
    shapes = eqx.filter_eval_shape(eqx.nn.make_with_state(make), KEY)
    arrays, others = eqx.partition(shapes, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    net, state = eqx.combine(filled(arrays), others)
    params, static = eqx.partition(net, eqx.is_inexact_array)

    def apply(params, images, probe=None):
        net = eqx.combine(params, static)

        def example(x, key, offsets, state):
            seen = Probe(offsets, {}) if probe else None
            return body(net, x, seen, state, key), seen.outputs if seen else {}

        keys, offsets = jax.random.split(KEY, len(images)), probe.offsets if probe else {}
        mapped = jax.vmap(example, in_axes=(0, 0, 0, None), axis_name="batch")
        out, outputs = mapped(jnp.asarray(images), keys, offsets, state)
        if probe:
            probe.outputs.update(outputs)
        return out

    return apply, params


def case(body, make, rows, images=PICTURES, by_hand=None, **settings):
    """The network `body`; its twin is `by_hand`, a body too, where it holds what hides its layers."""
    apply, params = parts(body, make)
    twin, _ = parts(by_hand or body, make)
    return Case(
        lambda params: score(apply(params, images)),
        lambda params, probe: score(twin(params, images, probe)),
        params,
        rows,
        **settings,
    )


def convolution(*args, **settings):
    return lambda key: eqx.nn.Conv2d(*args, **settings, key=key)


def trunk(make, after=lambda net, x, state, key: net["conv"](x), more=None, row="conv", **settings):
    """A convolution to eight channels, ReLU and a head."""

    def body(net, x, probe, state, key):
        x = mark(probe, row, jax.nn.relu(after(net, x, state, key)))
        return mark(probe, "head", net["head"](x.mean((1, 2))))

    def network(key):
        return {"conv": make(key), "head": eqx.nn.Linear(8, 3, key=key), **(more or {})}

    return case(body, network, {row: "relu", "head": ""}, **settings)


def batch_norm():
    def after(net, x, state, key):
        return net["norm"](net["conv"](x), state)[0]

    norm = eqx.nn.BatchNorm(8, "batch", mode="batch")
    return trunk(convolution(4, 8, 3), after, {"norm": norm})


def dropout():
    def after(net, x, state, key):
        return net["drop"](net["conv"](x), key=key)

    return trunk(convolution(4, 8, 3), after, {"drop": eqx.nn.Dropout(0.2)})


def residual():
    def body(net, x, probe, *_):
        return mark(probe, "main", mark(probe, "shortcut", jax.nn.relu(net["main"](x) + net["shortcut"](x))))

    def network(key):
        return {"main": convolution(4, 5, 3, padding=1)(key), "shortcut": convolution(4, 5, 1)(key)}

    return case(body, network, {"main": "relu", "shortcut": "relu"})


def shared():
    def body(net, x, probe, *_):
        x = mark(probe, "conv", jax.nn.relu(net["conv"](x)))
        return mark(probe, "conv#1", jax.nn.relu(net["conv"](x)))

    return case(body, lambda key: {"conv": convolution(4, 4, 3)(key)}, {"conv": "relu", "conv#1": "relu"})


def standardised():
    return trunk(lambda key: eqx.nn.WeightNorm(eqx.nn.Conv2d(4, 8, 3, key=key)), row="conv/layer")


def spectral():
    def make(key):
        return eqx.nn.SpectralNorm(eqx.nn.Conv2d(4, 8, 3, key=key), "weight", key=key)

    return trunk(make, lambda net, x, state, key: net["conv"](x, state)[0], row="conv/layer")


def masked():
    mask = np.ones((3, 3), np.float32)
    mask[2:] = mask[1, 2:] = 0

    def after(net, x, *_):
        return eqx.tree_at(lambda layer: layer.weight, net["conv"], replace_fn=lambda weight: weight * mask)(x)

    return trunk(convolution(4, 8, 3), after)


def attention():
    names = ("query_proj", "key_proj", "value_proj", "output_proj")

    def by_hand(net, x, probe, *_):
        def dense(name, x):
            return cases.mark(probe, f"attention/{name}", jax.vmap(getattr(net["attention"], name))(x))

        query, key, value = (dense(name, x).reshape(5, 2, 3) for name in names[:3])
        return dense("output_proj", jax.nn.dot_product_attention(query, key, value).reshape(5, 6))

    def network(key):
        return {"attention": eqx.nn.MultiheadAttention(2, 4, qk_size=3, vo_size=3, key=key)}

    rows = {f"attention/{name}": "" for name in names}
    return case(lambda net, x, *_: net["attention"](x, x, x), network, rows, TOKENS, by_hand)


def scan():
    def body(net, x, *_):
        params, static = eqx.partition(net["blocks"], eqx.is_array)
        return jax.lax.scan(lambda x, layer: (jax.nn.relu(eqx.combine(layer, static)(x)), None), x, params)[0]

    def by_hand(net, x, probe, *_):
        for index in range(3):
            layer = jax.tree.map(lambda leaf, index=index: leaf[index], net["blocks"])
            x = mark(probe, f"blocks[{index}]", jax.nn.relu(layer(x)))
        return x

    def network(key):
        return {"blocks": eqx.filter_vmap(lambda key: eqx.nn.Linear(4, 4, key=key))(jax.random.split(key, 3))}

    return case(body, network, {f"blocks[{index}]": "relu" for index in range(3)}, VECTORS, by_hand)


class Block(eqx.Module):
    """What is put inside a transformation."""

    conv: eqx.nn.Conv2d
    head: eqx.nn.Linear

    def __init__(self, key):
        self.conv = eqx.nn.Conv2d(4, 6, 3, key=key)
        self.head = eqx.nn.Linear(6, 3, key=key)

    def __call__(self, x, probe=None):
        x = mark(probe, "block/conv", jax.nn.relu(self.conv(x)))
        return mark(probe, "block/head", self.head(x.mean((1, 2))))


ROWS = {"block/conv": "relu", "block/head": ""}


def make_block(key):
    return {"block": Block(key)}


def unwrapped(net, x, probe, *_):
    return net["block"](x, probe)


def wrapped(body=unwrapped):
    """The block, as `body` wraps it."""
    return case(body, make_block, ROWS, by_hand=unwrapped)


def cond():
    """Around the whole batch: for a choice by example, `jax.vmap` runs both branches."""
    apply, _ = parts(unwrapped, make_block)

    def loss(params):
        images = jnp.asarray(PICTURES)
        branches = (lambda images: apply(params, images), lambda images: images[:, :3, 0, 0])
        return score(jax.lax.cond(images.sum() < 1e9, *branches, images))

    return wrapped()._replace(loss=loss)


def bfloat16():
    return trunk(convolution(4, 8, 3, dtype=jnp.bfloat16), images=PICTURES.astype(jnp.bfloat16), rtol=3e-2)


def mixed():
    def after(net, x, *_):
        return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), net["conv"])(x.astype(jnp.bfloat16))

    return trunk(convolution(4, 8, 3), after, rtol=3e-2)


def accumulation():
    apply, params = parts(unwrapped, make_block)

    def turned(params, images, probe):
        return apply(params, images.transpose(0, 3, 1, 2), probe)

    return accumulated(turned, params, ROWS, optax.adam(0.1))


def second_order():
    def body(net, x, probe, *_):
        for row in ("first", "second"):
            x = mark(probe, row, jax.nn.silu(net[row](x)))
        return x

    def network(key):
        return {"first": eqx.nn.Linear(4, 5, key=key), "second": eqx.nn.Linear(5, 3, key=key)}

    return penalised(*parts(body, network), VECTORS, {"first": "silu", "second": "silu"})


def chain(activations, names):
    def body(net, x, probe, *_):
        for index, activation in enumerate(activations):
            x = mark(probe, f"layers/{index}", activation(net["layers"][index](x)))
        return x

    def network(key):
        return {"layers": [eqx.nn.Linear(4, 4, key=key) for _ in names]}

    return case(body, network, {f"layers/{index}": name for index, name in enumerate(names)}, VECTORS)


def softmax():
    def body(net, x, probe, *_):
        return -jnp.log(jax.nn.softmax(mark(probe, "head", net["head"](x))))

    return case(body, lambda key: {"head": eqx.nn.Linear(4, 3, key=key)}, {"head": "softmax"}, VECTORS)


def opaque():
    def body(net, x, probe, *_):
        weight = net["kept"].weight
        x = product(x, weight)
        x = jax.lax.stop_gradient(jax.lax.while_loop(lambda x: x.sum() < -1e9, lambda x: weight @ x, x))
        x = jax.lax.conv(x[None, None], np.ones((1, 1, 3), np.float32), (1,), "SAME")[0, 0]
        return mark(probe, "head", net["head"](x))

    def network(key):
        return {"kept": eqx.nn.Linear(4, 4, use_bias=False, key=key), "head": eqx.nn.Linear(4, 3, key=key)}

    return case(body, network, {"head": ""}, VECTORS, skipped=OPAQUE)


CASES = {
    "batch_norm": batch_norm,
    "dropout": dropout,
    "residual": residual,
    "shared": shared,
    "grouped": lambda: trunk(convolution(4, 8, 3, groups=2)),
    "depthwise": lambda: trunk(convolution(4, 8, 3, groups=4)),
    "transposed": lambda: trunk(lambda key: eqx.nn.ConvTranspose2d(4, 8, 3, stride=2, key=key)),
    "dilated": lambda: trunk(convolution(4, 8, 3, dilation=2)),
    "standardised": standardised,
    "spectral": spectral,
    "masked": masked,
    "attention": attention,
    "scan": scan,
    "remat": lambda: wrapped(lambda net, x, *_: eqx.filter_checkpoint(net["block"])(x)),
    "jit": lambda: wrapped(lambda net, x, *_: eqx.filter_jit(net["block"])(x)),
    "cond": cond,
    "seeds": lambda: over_seeds(wrapped()),
    "bfloat16": bfloat16,
    "mixed": mixed,
    "accumulation": accumulation,
    "second_order": second_order,
    "relu": lambda: chain(RELUS, RELU_NAMES),
    "smooth": lambda: chain(SMOOTH, SMOOTH_NAMES),
    "softmax": softmax,
    "opaque": opaque,
}
