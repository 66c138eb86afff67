"""One small CNN in six libraries, as each library's users write it, and one set of weights for all of them."""

import os
from typing import NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
from flax import linen as nn
from flax import nnx

from cnnprobe.models import plain
from cnnprobe.models.equinox import from_equinox
from cnnprobe.models.haiku import from_haiku
from cnnprobe.models.keras import from_keras
from cnnprobe.models.linen import from_linen
from cnnprobe.models.nnx import from_nnx
from cnnprobe.trees import leaf_name
from cnnprobe.types import Model

RATE, MOMENTUM, EPSILON = 0.5, 0.9, 1e-5
IMAGES = jax.random.normal(jax.random.key(0), (6, 8, 8, 2))
LABELS = jnp.arange(6) % 3


def draw(seed, *shape):
    return np.asarray(0.5 * jax.random.normal(jax.random.key(seed), shape))


WEIGHTS = {  # kernels [height, width, in, out]
    "conv kernel": draw(1, 3, 3, 2, 5), "conv bias": draw(2, 5), "scale": 1 + draw(3, 5), "shift": draw(4, 5),
    "dense kernel": draw(5, 5, 3), "dense bias": draw(6, 3), "mean": draw(7, 5), "variance": 1 + draw(8, 5) ** 2,
}  # fmt: skip


class LinenNet(nn.Module):
    """Convolution, batch norm, ReLU, pools, dropout, dense."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(5, (3, 3))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM, epsilon=EPSILON)(x))
        x = nn.max_pool(x, (2, 2), (2, 2)).mean((1, 2))
        return nn.Dense(3)(nn.Dropout(RATE, deterministic=not train)(x))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 5, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(5, momentum=MOMENTUM, epsilon=EPSILON, rngs=rngs)
        self.dropout = nnx.Dropout(RATE, rngs=rngs)
        self.head = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.norm(self.conv(x))), (2, 2), (2, 2))
        return self.head(self.dropout(x.mean((1, 2))))


def haiku_net(images, is_training):
    x = hk.Conv2D(5, 3)(images)
    x = jax.nn.relu(hk.BatchNorm(True, True, MOMENTUM, eps=EPSILON)(x, is_training))
    x = hk.max_pool(x, (2, 2, 1), (2, 2, 1), "VALID").mean((1, 2))
    x = hk.dropout(hk.next_rng_key(), RATE, x) if is_training else x
    return hk.Linear(3)(x)


class EquinoxNet(eqx.Module):
    """Takes one example, channels last; its own layers want channels first."""

    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    layers: list

    def __init__(self, key):
        first, second = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(2, 5, 3, padding=1, key=first)
        self.norm = eqx.nn.BatchNorm(5, "batch", eps=EPSILON, momentum=MOMENTUM, mode="ema")
        self.dropout = eqx.nn.Dropout(RATE)
        self.layers = [eqx.nn.Linear(5, 3, key=second)]

    def __call__(self, x, state, key=None):
        x, state = self.norm(self.conv(x.transpose(2, 0, 1)), state)
        x = eqx.nn.MaxPool2d(2, 2)(jax.nn.relu(x)).mean((1, 2))
        return self.layers[0](self.dropout(x, key=key)), state


def keras_net():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(5, 3, padding="same", name="conv"),
            layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name="norm"),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(RATE),
            layers.Dense(3, name="head"),
        ]
    )


def plain_init(key, images):
    first, second = jax.random.split(key)
    norm, stats = plain.init_batch_norm(5)
    params = {"conv": plain.init_conv(first, 2, 5), "norm": norm, "head": plain.init_dense(second, 5, 3)}
    return params, {"norm": stats}


def plain_apply(params, state, images, *, key, train):
    x = plain.conv(params["conv"], images)
    x, stats = plain.batch_norm(params["norm"], state["norm"], x, train=train, momentum=MOMENTUM, eps=EPSILON)
    x = plain.global_average_pool(plain.max_pool(jax.nn.relu(x)))
    return plain.dense(params["head"], plain.dropout(key, x, rate=RATE, train=train)), {"norm": stats}


class Library(NamedTuple):
    """A network with the names that its library gives the weights."""

    model: Model
    rows: tuple[str, str]  # of the convolution and the dense layer
    names: dict[str, str]  # of each weight, by the library's own path
    turned: bool = False  # kernels are [out, in, height, width]


def names_of(conv, norm, dense, stats, kernel="kernel", bias="bias", scale="scale", shift="bias"):
    """Paths of the eight weights."""
    layers = {"conv kernel": f"{conv}/{kernel}", "conv bias": f"{conv}/{bias}", "scale": f"{norm}/{scale}"}
    layers |= {"shift": f"{norm}/{shift}", "dense kernel": f"{dense}/{kernel}", "dense bias": f"{dense}/{bias}"}
    return layers | dict(zip(("mean", "variance"), stats, strict=True))


def library(model, conv, norm, dense, stats, *, turned=False, **arrays):
    return Library(model, (conv, dense), names_of(conv, norm, dense, stats, **arrays), turned)


def build(name):
    """A library's network."""
    if name == "linen":
        stats = ("batch_stats/BatchNorm_0/mean", "batch_stats/BatchNorm_0/var")
        return library(from_linen(LinenNet()), "Conv_0", "BatchNorm_0", "Dense_0", stats)
    if name == "nnx":
        return library(from_nnx(NnxNet), "conv", "norm", "head", ("norm/mean", "norm/var"))
    if name == "haiku":
        stats = ("batch_norm/~/mean_ema/average", "batch_norm/~/var_ema/average")
        arrays = {"kernel": "w", "bias": "b", "shift": "offset"}
        return library(from_haiku(haiku_net), "conv2_d", "batch_norm", "linear", stats, **arrays)
    if name == "equinox":
        stats = ("state/1/0", "state/1/1")
        arrays = {"kernel": "weight", "scale": "weight"}
        return library(from_equinox(EquinoxNet), "conv", "norm", "layers/0", stats, turned=True, **arrays)
    if name == "keras":
        arrays = {"scale": "gamma", "shift": "beta"}
        stats = ("norm/moving_mean", "norm/moving_variance")
        return library(from_keras(keras_net), "conv", "norm", "head", stats, **arrays)
    return library(Model(plain_init, plain_apply), "conv", "norm", "head", ("norm/mean", "norm/var"))


NAMES = ("plain", "linen", "nnx", "haiku", "equinox", "keras")


def with_weights(lib, tree):
    """Parameters or state of a library with the weights that all share."""
    values = {name: WEIGHTS[weight] for weight, name in lib.names.items()}

    def fill(path, leaf):
        value = values.get(leaf_name(path))
        if value is None:
            return leaf
        return jnp.asarray(value.transpose(turned_axes(value)) if lib.turned else value).reshape(leaf.shape)

    return jax.tree_util.tree_map_with_path(fill, tree)


def turned_axes(kernel):
    """Brings `[height, width, in, out]` to `[out, in, height, width]`, and `[in, out]` to `[out, in]`."""
    return (3, 2, 0, 1) if kernel.ndim == 4 else tuple(range(kernel.ndim))[::-1]


def weights_of(lib, tree):
    """The arrays of a library's tree by the names and in the layout that all share."""
    flat = {leaf_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
    found = {weight: flat[name] for weight, name in lib.names.items() if name in flat}
    if lib.turned:
        back = {4: (2, 3, 1, 0), 2: (1, 0)}
        kernels = {weight: value.transpose(back[value.ndim]) for weight, value in found.items() if "kernel" in weight}
        found |= kernels
    return {weight: value.reshape(WEIGHTS[weight].shape) for weight, value in found.items()}


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
