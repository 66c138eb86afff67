"""The features as plain functions of arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnprobe.tracing.readings import merge_readings

from .cases import IMAGES, TOKENS, Case, mark, over_seeds, penalised, score

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
RELUS = [
    jax.nn.relu,
    lambda x: jnp.maximum(x, 0),
    lambda x: jnp.where(x > 0, x, 0),
    lambda x: x * (x > 0),
    jax.nn.relu6,
    lambda x: x.clip(min=0),
]
SMOOTH = [jax.nn.leaky_relu, jax.nn.gelu, jax.nn.silu, jax.nn.elu, jax.nn.sigmoid, jnp.tanh]
RELU_NAMES = ["relu", "relu", "relu", "relu", "relu6", "relu"]
SMOOTH_NAMES = ["leaky_relu", "gelu", "silu", "elu", "sigmoid", "tanh"]


def weights(**shapes):
    """Random weights, scaled by the number of inputs, as `{"name": {"w": ...}}`."""
    rng = np.random.default_rng(1)
    return {
        name: {"w": rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[:-1][-3:])))}
        for name, shape in shapes.items()
    }


def conv(x, w, **settings):
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=DIMENSIONS, **settings)


def case(network, params, rows, images=IMAGES, by_hand=None, **settings):
    """`network(params, x, probe)`; its twin is `by_hand` where it holds what hides its layers."""
    twin = by_hand or network
    return Case(
        lambda params: score(network(params, images, None)),
        lambda params, probe: score(twin(params, images, probe)),
        params,
        rows,
        **settings,
    )


def trunk(middle, shape=(3, 3, 4, 6), head=6, **settings):
    """A convolution that is `middle(x, w)`, ReLU and a head."""

    def network(params, x, probe):
        x = mark(probe, "conv", jax.nn.relu(middle(x, params["conv"]["w"])))
        return mark(probe, "head", x.mean((1, 2)) @ params["head"]["w"])

    rows = {"conv": "relu", "head": ""}
    return case(network, weights(conv=shape, head=(head, 3)), rows, **settings)


def batch_norm():
    def normalised(x, w):
        x = conv(x, w)
        mean, var = x.mean((0, 1, 2)), jnp.maximum(jnp.square(x).mean((0, 1, 2)) - jnp.square(x.mean((0, 1, 2))), 0)
        return (x - mean) * jax.lax.rsqrt(var + 1e-5)

    return trunk(normalised)


def dropout():
    def dropped(x, w):
        x = conv(x, w)
        return jnp.where(jax.random.bernoulli(jax.random.key(3), 0.8, x.shape), x / 0.8, 0)

    return trunk(dropped)


def residual():
    def network(params, x, probe):
        y = jax.nn.relu(conv(x, params["main"]["w"]) + conv(x, params["shortcut"]["w"]))
        return mark(probe, "main", mark(probe, "shortcut", y))

    return case(network, weights(main=(3, 3, 4, 5), shortcut=(1, 1, 4, 5)), {"main": "relu", "shortcut": "relu"})


def shared():
    def network(params, x, probe):
        for row in ("conv", "conv#1"):
            x = mark(probe, row, jax.nn.relu(conv(x, params["conv"]["w"])))
        return x

    return case(network, weights(conv=(3, 3, 4, 4)), {"conv": "relu", "conv#1": "relu"})


def standardised():
    return trunk(lambda x, w: conv(x, (w - w.mean((0, 1, 2))) / (w.std((0, 1, 2)) + 1e-5)))


def spectral():
    u = np.linspace(-1, 1, 6, dtype=np.float32)

    def divided(x, w):
        flat = w.reshape(-1, 6)
        v = jax.lax.stop_gradient(flat @ u / jnp.linalg.norm(flat @ u))
        return conv(x, w / (v @ flat @ u))

    return trunk(divided)


def masked():
    mask = np.ones((3, 3, 1, 1), np.float32)
    mask[2:] = mask[1, 2:] = 0
    return trunk(lambda x, w: conv(x, w * mask))


def attention():
    def network(params, x, probe):
        query, key, value = (mark(probe, name, x @ params[name]["w"]) for name in ("query", "key", "value"))
        sureness = jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", query, key) / 2)
        return mark(probe, "out", sureness @ value @ params["out"]["w"])

    names = ("query", "key", "value", "out")
    return case(network, weights(**dict.fromkeys(names, (4, 4))), dict.fromkeys(names, ""), TOKENS)


def over_layers(params, x, probe):
    return jax.lax.scan(lambda x, w: (jax.nn.relu(x @ w), None), x, params["blocks"]["w"])[0]


def one_by_one(params, x, probe):
    for index, w in enumerate(params["blocks"]["w"]):
        x = mark(probe, f"blocks[{index}]", jax.nn.relu(x @ w))
    return x


def scan():
    rows = {f"blocks[{index}]": "relu" for index in range(3)}
    return case(over_layers, weights(blocks=(3, 4, 4)), rows, by_hand=one_by_one)


def block(params, x, probe=None):
    x = mark(probe, "conv", jax.nn.relu(conv(x, params["conv"]["w"])))
    return mark(probe, "head", x @ params["head"]["w"])


def wrapped(wrap, **settings):
    """A block inside a transformation."""
    params = weights(conv=(3, 3, 4, 6), head=(6, 3))
    rows = {"conv": "relu", "head": ""}
    return case(lambda params, x, _: wrap(block)(params, x), params, rows, by_hand=block, **settings)


def cond():
    def chosen(fn):
        return lambda params, x: jax.lax.cond(x.sum() < 1e9, fn, lambda params, x: x[..., :3], params, x)

    return wrapped(chosen)


def seeds():
    return over_seeds(wrapped(lambda fn: fn))


def bfloat16():
    small = trunk(conv, images=IMAGES.astype(jnp.bfloat16), rtol=3e-2)
    return small._replace(params=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), small.params))


def mixed():
    return trunk(lambda x, w: conv(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)), rtol=3e-2)


def accumulate(loss, optimizer):
    """Two micro-batches and one update: (sum of the losses, new parameters, merged readings)."""

    def run(transform):
        def steps(params):
            state, total, readings = optimizer.init(params), 0.0, []
            for half in jnp.split(IMAGES, 2):
                value, grads, *rest = transform(params, half)
                updates, state = optimizer.update(grads, state, params)
                params, total, readings = optax.apply_updates(params, updates), total + value, readings + rest
            return total, params, *([merge_readings(*readings)] if readings else [])

        return steps

    return run


def accumulated(apply, params, rows, optimizer):
    """The network `apply(params, images, probe)`, trained for one step."""

    def loss(params, images):
        return jnp.square(apply(params, images, None)).mean()

    def twin(params, probe):
        return 2 * jnp.square(apply(params, IMAGES, probe)).mean()

    return Case(loss, twin, params, rows, run=accumulate(loss, optax.MultiSteps(optimizer, 2)))


def accumulation():
    params = weights(conv=(3, 3, 4, 6), head=(6, 3))
    return accumulated(block, params, {"conv": "relu", "head": ""}, optax.sgd(0.1))


def second_order():
    def network(params, x, probe):
        for name in ("body", "head"):
            x = mark(probe, name, jax.nn.silu(x @ params[name]["w"]))
        return x

    return penalised(network, weights(body=(4, 5), head=(5, 3)), TOKENS, {"body": "silu", "head": "silu"})


def chain(activations, names):
    """Products with one activation behind each."""

    def network(params, x, probe):
        for row, activation in zip(params, activations, strict=True):
            x = mark(probe, row, activation(x @ params[row]["w"]))
        return x

    params = weights(**{f"layer{index}": (4, 4) for index in range(len(names))})
    return case(network, params, dict(zip(params, names, strict=True)))


def softmax():
    def network(params, x, probe):
        logits = mark(probe, "head", x.mean((1, 2)) @ params["head"]["w"])
        return -jnp.log(jax.nn.softmax(logits))

    return case(network, weights(head=(4, 3)), {"head": "softmax"})


@jax.custom_vjp
def product(x, w):
    return x @ w


product.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, g: (g @ kept[1].T, jnp.einsum("...i,...j->ij", kept[0], g)))


OPAQUE = (
    "custom_vjp_call (1 convolutions or products inside)",
    "while (1 convolutions or products inside)",
    "conv_general_dilated (1 with a kernel that is no parameter)",
)


def opaque():
    def network(params, x, probe):
        x = product(x, params["kept"]["w"])
        x = jax.lax.stop_gradient(jax.lax.while_loop(lambda x: x.sum() < -1e9, lambda x: x @ params["kept"]["w"], x))
        x = conv(x, np.ones((3, 3, 1, 4), np.float32), feature_group_count=4)
        return mark(probe, "head", x @ params["head"]["w"])

    return case(network, weights(kept=(4, 4), head=(4, 3)), {"head": ""}, skipped=OPAQUE)


CASES = {
    "batch_norm": batch_norm,
    "dropout": dropout,
    "residual": residual,
    "shared": shared,
    "grouped": lambda: trunk(lambda x, w: conv(x, w, feature_group_count=2), (3, 3, 2, 6)),
    "depthwise": lambda: trunk(lambda x, w: conv(x, w, feature_group_count=4), (3, 3, 1, 8), head=8),
    "transposed": lambda: trunk(lambda x, w: jax.lax.conv_transpose(x, w, (2, 2), "SAME")),
    "dilated": lambda: trunk(lambda x, w: conv(x, w, rhs_dilation=(2, 2))),
    "standardised": standardised,
    "spectral": spectral,
    "masked": masked,
    "attention": attention,
    "scan": scan,
    "remat": lambda: wrapped(jax.checkpoint),
    "jit": lambda: wrapped(lambda fn: jax.jit(jax.jit(fn))),
    "cond": cond,
    "seeds": seeds,
    "bfloat16": bfloat16,
    "mixed": mixed,
    "accumulation": accumulation,
    "second_order": second_order,
    "relu": lambda: chain(RELUS, RELU_NAMES),
    "smooth": lambda: chain(SMOOTH, SMOOTH_NAMES),
    "softmax": softmax,
    "opaque": opaque,
}
