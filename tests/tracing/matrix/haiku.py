"""The features in Haiku."""

import haiku as hk
import jax
import jax.numpy as jnp
import jmp
import numpy as np
import optax

from .cases import IMAGES, TOKENS, Case, filled, mark, over_seeds, penalised, score
from .plain import OPAQUE, RELU_NAMES, RELUS, SMOOTH, SMOOTH_NAMES, accumulated, conv, product

KEY = jax.random.key(3)


def parts(body, images=IMAGES):
    """(apply, params) of the network `body`; `apply(params, x, probe)` is pure."""
    net = hk.transform_with_state(body)
    params, state = filled(jax.eval_shape(net.init, KEY, images))

    def apply(params, x, probe=None):
        return net.apply(params, state, KEY, x, probe)[0]

    return apply, params


def case(body, rows, images=IMAGES, by_hand=None, **settings):
    """The network `body`; its twin is `by_hand(params, images, probe)` where it holds what hides its layers."""
    apply, params = parts(body, images)
    twin = by_hand or apply
    return Case(
        lambda params: score(apply(params, images)),
        lambda params, probe: score(twin(params, images, probe)),
        params,
        rows,
        **settings,
    )


def trunk(layer, after=lambda x: x, row="conv2_d", **settings):
    """A convolution, ReLU and a head."""

    def body(x, probe=None):
        x = mark(probe, row, jax.nn.relu(after(layer(x))))
        return mark(probe, "linear", hk.Linear(3)(x.mean((1, 2))))

    return case(body, {row: "relu", "linear": ""}, **settings)


def convolution(**settings):
    return trunk(lambda x: hk.Conv2D(8, 3, **settings)(x))


def batch_norm():
    def after(x):
        return hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9)(x, is_training=True)

    return trunk(lambda x: hk.Conv2D(8, 3, with_bias=False)(x), after)


def residual():
    def body(x, probe=None):
        y = jax.nn.relu(hk.Conv2D(5, 3, name="main")(x) + hk.Conv2D(5, 1, name="shortcut")(x))
        return mark(probe, "main", mark(probe, "shortcut", y))

    return case(body, {"main": "relu", "shortcut": "relu"})


def shared():
    def body(x, probe=None):
        layer = hk.Conv2D(4, 3)
        return mark(probe, "conv2_d#1", jax.nn.relu(layer(mark(probe, "conv2_d", jax.nn.relu(layer(x))))))

    return case(body, {"conv2_d": "relu", "conv2_d#1": "relu"})


def depthwise():
    return trunk(lambda x: hk.DepthwiseConv2D(2, 3)(x), row="depthwise_conv2_d")


def transposed():
    return trunk(lambda x: hk.Conv2DTranspose(8, 3, stride=2)(x), row="conv2_d_transpose")


def standardised():
    """A getter changes what the convolution is given as its kernel."""

    def getter(following, value, context):
        value = following(value)
        return (value - value.mean((0, 1, 2))) / (value.std((0, 1, 2)) + 1e-5) if context.name == "w" else value

    def layer(x):
        with hk.custom_getter(getter):
            return hk.Conv2D(8, 3)(x)

    return trunk(layer)


def spectral():
    """All kernels but that of the head are normalised before the network sees them."""
    one = convolution()
    norm = hk.transform_with_state(lambda params: hk.SNParamsTree(ignore_regex="linear.*|.*b$")(params))
    _, state = filled(jax.eval_shape(norm.init, KEY, one.params))

    def normalised(params):
        return norm.apply({}, state, None, params)[0]

    return one._replace(
        loss=lambda params: one.loss(normalised(params)),
        twin=lambda params, probe: one.twin(normalised(params), probe),
    )


def masked():
    mask = np.ones((3, 3, 4, 8), np.float32)
    mask[2:] = mask[1, 2:] = 0
    return convolution(mask=mask)


def attention():
    names = ("query", "key", "value", "linear")
    rows = {f"attention/{name}": "" for name in names}

    def body(x, probe=None):
        layer = hk.MultiHeadAttention(2, 3, w_init=hk.initializers.VarianceScaling(), model_size=4, name="attention")
        return layer(x, x, x)

    def by_hand(params, x, probe):
        def dense(name, x):
            own = params[f"attention/{name}"]
            return mark(probe, f"attention/{name}", x @ own["w"] + own["b"])

        query, key, value = (dense(name, x).reshape(4, 5, 2, 3) for name in names[:3])
        return dense("linear", jax.nn.dot_product_attention(query, key, value).reshape(4, 5, 6))

    return case(body, rows, TOKENS, by_hand)


def scan():
    name = "blocks/dense"

    def body(x, probe=None):
        stack = hk.experimental.layer_stack(3, name="blocks")
        return stack(lambda x: jax.nn.relu(hk.Linear(4, name="dense")(x)))(x)

    def by_hand(params, x, probe):
        for index in range(3):
            x = mark(probe, f"{name}[{index}]", jax.nn.relu(x @ params[name]["w"][index] + params[name]["b"][index]))
        return x

    return case(body, {f"{name}[{index}]": "relu" for index in range(3)}, by_hand=by_hand)


class Block(hk.Module):
    """What is put inside a transformation."""

    def __call__(self, x, probe=None):
        x = mark(probe, "block/conv", jax.nn.relu(hk.Conv2D(6, 3, name="conv")(x)))
        return mark(probe, "block/head", hk.Linear(3, name="head")(x))


ROWS = {"block/conv": "relu", "block/head": ""}


def unwrapped(x, probe=None):
    return Block(name="block")(x, probe)


def wrapped(body=unwrapped):
    """The block, as `body` wraps it."""
    return case(body, ROWS, by_hand=parts(unwrapped)[0])


def jit():
    apply, params = parts(unwrapped)
    compiled = jax.jit(jax.jit(apply))
    twin = wrapped().twin
    return Case(lambda params: score(compiled(params, IMAGES)), twin, params, ROWS)


def cond():
    def body(x, probe=None):
        block = Block(name="block")
        if hk.running_init():
            return block(x)
        return hk.cond(x.sum() < 1e9, block, lambda x: x[..., :3], x)

    return wrapped(body)


def mixed():
    policy = jmp.get_policy("params=float32,compute=bfloat16,output=bfloat16")

    def layer(x):
        with hk.mixed_precision.push_policy(hk.Conv2D, policy):
            return hk.Conv2D(8, 3)(x)

    return trunk(layer, rtol=3e-2)


def second_order():
    def body(x, probe=None):
        x = mark(probe, "linear", jax.nn.silu(hk.Linear(5)(x)))
        return mark(probe, "linear_1", jax.nn.silu(hk.Linear(3)(x)))

    return penalised(*parts(body, TOKENS), TOKENS, {"linear": "silu", "linear_1": "silu"})


def chain(activations, names):
    rows = {f"layer{index}": name for index, name in enumerate(names)}

    def body(x, probe=None):
        for row, activation in zip(rows, activations, strict=True):
            x = mark(probe, row, activation(hk.Linear(4, name=row)(x)))
        return x

    return case(body, rows)


def softmax():
    def body(x, probe=None):
        return -jnp.log(jax.nn.softmax(mark(probe, "linear", hk.Linear(3)(x.mean((1, 2))))))

    return case(body, {"linear": "softmax"})


class Opaque(hk.Module):
    """A product with a derivative of its own, and one in a `while` loop."""

    def __call__(self, x):
        kernel = hk.get_parameter("w", (4, 4), init=hk.initializers.Orthogonal())
        x = product(x, kernel)
        x = jax.lax.stop_gradient(jax.lax.while_loop(lambda x: x.sum() < -1e9, lambda x: x @ kernel, x))
        return conv(x, np.ones((3, 3, 1, 4), np.float32), feature_group_count=4)


def opaque():
    def body(x, probe=None):
        return mark(probe, "linear", hk.Linear(3)(Opaque()(x)))

    return case(body, {"linear": ""}, skipped=OPAQUE)


CASES = {
    "batch_norm": batch_norm,
    "dropout": lambda: trunk(lambda x: hk.Conv2D(8, 3)(x), lambda x: hk.dropout(hk.next_rng_key(), 0.2, x)),
    "residual": residual,
    "shared": shared,
    "grouped": lambda: convolution(feature_group_count=2),
    "depthwise": depthwise,
    "transposed": transposed,
    "dilated": lambda: convolution(rate=2),
    "standardised": standardised,
    "spectral": spectral,
    "masked": masked,
    "attention": attention,
    "scan": scan,
    "remat": lambda: wrapped(lambda x, _=None: hk.remat(Block(name="block"))(x)),
    "jit": jit,
    "cond": cond,
    "seeds": lambda: over_seeds(wrapped()),
    "bfloat16": lambda: trunk(lambda x: hk.Conv2D(8, 3)(x), images=IMAGES.astype(jnp.bfloat16), rtol=3e-2),
    "mixed": mixed,
    "accumulation": lambda: accumulated(*parts(unwrapped), ROWS, optax.adam(0.1)),
    "second_order": second_order,
    "relu": lambda: chain(RELUS, RELU_NAMES),
    "smooth": lambda: chain(SMOOTH, SMOOTH_NAMES),
    "softmax": softmax,
    "opaque": opaque,
}
