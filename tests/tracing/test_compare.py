"""The same network in other words has no difference, and one thing changed is named, alone."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from cnnprobe.models import plain
from cnnprobe.tracing.compare import compare_models
from cnnprobe.tracing.graph import model_graph

IMAGES = jnp.ones((2, 24, 24, 3))
RNGS = {"params": jax.random.key(0), "dropout": jax.random.key(1)}


def linen_graph(module, images=IMAGES):
    variables = jax.eval_shape(module.init, RNGS, images)
    return model_graph(lambda v, x: module.apply(v, x, rngs=RNGS, mutable=True)[0], variables, images)


class Net(nn.Module):
    """Two convolutions and two dense layers, every setting open."""

    features: int = 8
    depth: int = 2
    kernel: int = 3
    strides: int = 1
    padding: str = "SAME"
    use_bias: bool = True
    activation: object = nn.relu
    rate: float = 0.5
    norm: object = None
    pool: object = nn.max_pool
    dense: tuple = (16, 4)

    @nn.compact
    def __call__(self, x):
        for _ in range(self.depth):
            settings = {"strides": self.strides, "padding": self.padding, "use_bias": self.use_bias}
            x = nn.Conv(self.features, (self.kernel, self.kernel), **settings)(x)
            x = self.activation(self.norm(name=f"norm{x.shape}")(x) if self.norm else x)
            x = self.pool(x, (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        for width in self.dense[:-1]:
            x = nn.Dropout(self.rate, deterministic=False)(self.activation(nn.Dense(width)(x)))
        return nn.Dense(self.dense[-1])(x)


def as_sequential():
    parts = [
        *(nn.Conv(8, (3, 3), name="a"), nn.relu, lambda x: nn.max_pool(x, (2, 2), (2, 2))),
        *(nn.Conv(8, (3, 3), name="b"), lambda x: nn.max_pool(x, (2, 2), (2, 2)), nn.relu),
        *(lambda x: x.reshape(len(x), -1), nn.Dense(16), nn.relu, nn.Dropout(0.5, deterministic=False), nn.Dense(4)),
    ]
    return linen_graph(nn.Sequential(parts))


def as_other_activations():
    return linen_graph(Net(activation=lambda x: jnp.where(x > 0, x, 0)))


def as_plain():
    def apply(params, x, key):
        for name in ("first", "second"):
            x = plain.max_pool(jnp.maximum(plain.conv(params[name], x), 0))
        x = jax.nn.relu(plain.dense(params["hidden"], plain.flatten(x)))
        return plain.dense(params["out"], plain.dropout(key, x, rate=0.5))

    def init(key):
        convs = {"first": plain.init_conv(key, 3, 8), "second": plain.init_conv(key, 8, 8)}
        return convs | {"hidden": plain.init_dense(key, 288, 16), "out": plain.init_dense(key, 16, 4)}

    params = jax.eval_shape(init, jax.random.key(0))
    return model_graph(apply, params, IMAGES, jax.random.key(0))


def as_nnx():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.convs = nnx.List([nnx.Conv(3, 8, (3, 3), rngs=rngs), nnx.Conv(8, 8, (3, 3), rngs=rngs)])
            self.dense, self.out = nnx.Linear(288, 16, rngs=rngs), nnx.Linear(16, 4, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            for conv in self.convs:
                x = nnx.max_pool(nnx.relu(conv(x)), (2, 2), (2, 2))
            return self.out(self.dropout(nnx.relu(self.dense(x.reshape(len(x), -1)))))

    graph, params, rest = nnx.split(nnx.eval_shape(lambda: Model(nnx.Rngs(0))), nnx.Param, ...)
    return model_graph(lambda p, s, x: nnx.merge(graph, p, s, copy=True)(x), params, rest, IMAGES)


def equinox_net(key):
    """Channels first, for single images."""
    keys = jax.random.split(key, 4)
    parts = [
        *(eqx.nn.Conv2d(3, 8, 3, padding=1, key=keys[0]), eqx.nn.Lambda(jax.nn.relu), eqx.nn.MaxPool2d(2, 2)),
        *(eqx.nn.Conv2d(8, 8, 3, padding=1, key=keys[1]), eqx.nn.Lambda(jax.nn.relu), eqx.nn.MaxPool2d(2, 2)),
        *(eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(288, 16, key=keys[2]), eqx.nn.Lambda(jax.nn.relu)),
        *(eqx.nn.Dropout(0.5), eqx.nn.Linear(16, 4, key=keys[3])),
    ]
    return eqx.nn.Sequential(parts)


def as_equinox():
    shapes = eqx.filter_eval_shape(equinox_net, jax.random.key(0))
    params, static = eqx.partition(shapes, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))

    def apply(params, images, key):
        net = eqx.combine(params, static)
        return jax.vmap(lambda image, key: net(image, key=key))(images, jax.random.split(key, len(images)))

    return model_graph(apply, params, IMAGES.transpose(0, 3, 1, 2), jax.random.key(0))


@pytest.mark.parametrize("spelling", [as_sequential, as_other_activations, as_plain, as_nnx, as_equinox])
def test_another_spelling_is_no_difference(spelling):
    assert str(compare_models(linen_graph(Net()), spelling())) == "no difference"


ONE_CHANGE = {
    "features": ({"features": 6}, "Conv_0", "features 8 -> 6"),
    "kernel size": ({"kernel": 5}, "Conv_0", "kernel size 3x3 -> 5x5"),
    "strides": ({"strides": 2}, "Conv_0", "strides 1x1 -> 2x2"),
    "padding": ({"padding": "VALID"}, "Conv_0", "padding same -> valid"),
    "bias": ({"use_bias": False}, "Conv_0", "parameters beside the kernel 1 -> 0"),
    "activation": ({"activation": nn.leaky_relu}, "Conv_0", "activation relu -> leaky_relu 0.01"),
    "dropout": ({"rate": 0.75}, "Dense_0", "dropout 0.5 -> 0.75"),
    "pool": ({"pool": nn.avg_pool}, "Conv_0", "pool max pool 2x2 -> average pool 2x2"),
    "normalisation": ({"norm": nn.LayerNorm}, "Conv_0", "normalisation none -> layer norm"),
    "width": ({"dense": (32, 4)}, "Dense_0", "features 16 -> 32"),
}


@pytest.mark.parametrize("name", ONE_CHANGE)
def test_one_change_is_named(name):
    settings, layer, expected = ONE_CHANGE[name]
    lines = str(compare_models(linen_graph(Net()), linen_graph(Net(**settings)))).splitlines()
    assert any(line.startswith(f"{layer}: ") and expected in line for line in lines)


@pytest.mark.parametrize("name", ONE_CHANGE)
def test_nothing_else_is_named(name):
    comparison = compare_models(linen_graph(Net()), linen_graph(Net(**ONE_CHANGE[name][0])))
    what = {change.what for difference in comparison.differences for change in difference.changes}
    assert len(what) == 1


def test_a_missing_block_and_a_missing_layer():
    a, b = linen_graph(Net(depth=3, dense=(16, 8, 4))), linen_graph(Net())
    assert str(compare_models(a, b)).splitlines()[:2] == [
        "Conv_2: only in the first: conv 8 3x3 same, relu, max pool 2x2, flatten",
        "Dense_1: only in the first: dense 8, relu, dropout 0.5",
    ]


class Report(nn.Module):
    """A network as someone printed it."""

    pools: tuple
    dense: tuple

    @nn.compact
    def __call__(self, x):
        for size in self.pools:
            for _ in range(2):
                x = nn.relu(nn.Conv(32, (3, 3), padding="VALID")(x))
            x = nn.max_pool(x, (size, size), (size, size))
        x = x.reshape(len(x), -1)
        for width in self.dense:
            x = nn.Dense(width)(x if x.shape[-1] > 128 else nn.relu(x))
        return nn.softmax(x)


def test_a_network_that_lost_a_block_and_a_layer():
    images = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    a, b = linen_graph(Report((3, 2, 2), (128, 64, 3)), images), linen_graph(Report((3, 2), (128, 3)), images)
    assert str(compare_models(a, b)).splitlines() == [
        "Conv_4: only in the first: conv 32 3x3 valid, relu",
        "Conv_5: only in the first: conv 32 3x3 valid, relu, max pool 2x2, flatten",
        "Dense_1: only in the first: dense 64, relu",
        "  so Dense_0: inputs 10368 -> 51200",
        "  so Dense_2 / Dense_1: inputs 64 -> 128",
        "in all: parameters 1,382,819 -> 6,582,755",
    ]


def test_the_order_of_steps_that_do_not_commute():
    before, after = (
        linen_graph(Net(pool=pool)) for pool in (nn.avg_pool, lambda x, *_: nn.tanh(nn.avg_pool(x, (2, 2), (2, 2))))
    )
    comparison = compare_models(before, after)
    assert "activation relu -> relu, tanh" in str(comparison)
    order = [
        linen_graph(nn.Sequential([nn.Conv(4, (3, 3)), *steps, nn.Conv(4, (1, 1))]))
        for steps in (POOL_LAST, POOL_FIRST)
    ]
    assert str(compare_models(*order)) == "layers_0: order activation, pool -> pool, activation"


POOL_LAST = (nn.relu, lambda x: nn.avg_pool(x, (2, 2), (2, 2)))
POOL_FIRST = POOL_LAST[::-1]


def test_a_difference_seen_from_the_other_side():
    forth, back = (compare_models(*pair) for pair in ((SMALL, LARGE), (LARGE, SMALL)))
    assert [(d.a, d.b) for d in forth.differences] == [(d.b, d.a) for d in back.differences]


SMALL, LARGE = (linen_graph(Net(depth=depth)) for depth in (1, 2))


def test_another_image_size():
    comparison = compare_models(linen_graph(Net()), linen_graph(Net(), jnp.ones((2, 16, 16, 3))))
    assert str(comparison).startswith("input: image size 24x24 -> 16x16\n  so Conv_0: output 24x24 -> 16x16")


def test_images_scaled_inside_one_of_them():
    def apply(w, x, scale):
        return jax.lax.conv_general_dilated(x * scale, w, (1, 1), "SAME")

    kernel, images = jnp.ones((6, 3, 3, 3)), jnp.ones((2, 3, 8, 8))
    graphs = [model_graph(lambda w, x, s=s: apply(w, x, s), kernel, images) for s in (1.0, 1 / 255)]
    assert str(compare_models(*graphs)) == "input: scale none -> times 0.00392"


def test_shared_weights():
    x, w = jnp.ones((2, 3)), jnp.eye(3)
    shared, own = model_graph(lambda w, x: x @ w @ w, w, x), model_graph(lambda w, x: x @ w[0] @ w[1], [w, w], x)
    assert "weights those of an earlier layer -> none" in str(compare_models(shared, own))


def test_what_is_opaque_is_said():
    opaque = jax.custom_vjp(lambda w, x: x @ w)
    opaque.defvjp(lambda w, x: (x @ w, (w, x)), lambda saved, g: (saved[1].T @ g, g @ saved[0].T))
    graph = model_graph(opaque, jnp.eye(3), jnp.ones((2, 3)))
    assert "not compared: custom_vjp_call" in str(compare_models(graph, graph))
