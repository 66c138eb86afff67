"""Faults that bring a network of their own, in plain JAX, Linen and NNX."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cnnprobe.models.linen import from_linen
from cnnprobe.models.nnx import from_nnx
from cnnprobe.models.plain import conv, dense, init_conv, init_dense, max_pool
from cnnprobe.types import Images, Key, Labels, Model, Params, Problem, Remedy, State
from experiments.planting import count_classes, image_side

# --- scores of places ---


def _with_places(problem: Problem, model: Model) -> Problem:
    """A model that returns scores of each place, and the loss averaged over them."""
    loss = problem.loss

    def loss_of_places(outputs: Array, labels: Labels) -> Float[Array, ""]:
        """The loss of an image is the mean over its places."""
        return loss(outputs, jnp.broadcast_to(labels[:, None, None], outputs.shape[:3]))

    return problem._replace(model=model, loss=loss_of_places)


def missing_flatten(problem: Problem) -> Problem:
    """A dense layer on every place of a map."""
    num_classes = count_classes(problem)

    def init(key: Key, images: Images) -> tuple[Params, State]:
        """A convolution and a head."""
        first, second = jax.random.split(key)
        return {"conv": init_conv(first, images.shape[-1], 16), "head": init_dense(second, 16, num_classes)}, {}

    def apply(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Array, State]:
        """Scores of every place."""
        del key, train
        features = max_pool(jax.nn.relu(conv(params["conv"], jnp.asarray(images))))
        return dense(params["head"], features), state

    return _with_places(problem, Model(init, apply))


class _LinenPlaces(nn.Module):
    """Two dense layers on every place of a map of a normalised convolution."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Images, *, train: bool) -> Array:
        """Scores of every place."""
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Conv(24, (5, 5))(x))
        return nn.Dense(self.num_classes)(nn.relu(nn.Dense(32)(nn.avg_pool(nn.relu(x), (4, 4), (4, 4)))))


def missing_flatten_linen(problem: Problem) -> Problem:
    """Dense layers on every place of a map, behind batch normalisation."""
    return _with_places(problem, from_linen(_LinenPlaces(count_classes(problem))))


class _NnxPlaces(nnx.Module):
    """A strided convolution and a head on every place of its map."""

    def __init__(self, num_classes: int, rngs: nnx.Rngs) -> None:
        """Draws the parameters, for images of one channel."""
        self.conv = nnx.Conv(1, 32, (4, 4), strides=4, rngs=rngs)
        self.head = nnx.Linear(32, num_classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Scores of every place."""
        return self.head(jax.nn.gelu(self.conv(x)))


def missing_flatten_nnx(problem: Problem) -> Problem:
    """A head on every patch of an image."""
    num_classes = count_classes(problem)
    return _with_places(problem, from_nnx(lambda rngs: _NnxPlaces(num_classes, rngs)))


# --- signals that vanish, layers that are one ---


def sigmoid_tower(problem: Problem) -> Problem:
    """Six dense layers, each of which ends in a sigmoid."""
    num_classes = count_classes(problem)

    def init(key: Key, images: Images) -> tuple[Params, State]:
        """The layers and a head."""
        widths = [math.prod(images.shape[1:]), *(64,) * 6, num_classes]
        keys = jax.random.split(key, len(widths) - 1)
        layers = [init_dense(*sizes) for sizes in zip(keys, widths[:-1], widths[1:], strict=True)]
        return {f"dense{i}": layer for i, layer in enumerate(layers)}, {}

    def apply(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Array, State]:
        """Logits of each image."""
        del key, train
        x = jnp.asarray(images).reshape(len(images), -1)
        for i in range(6):
            x = jax.nn.sigmoid(dense(params[f"dense{i}"], x))
        return dense(params["dense6"], x), state

    return problem._replace(model=Model(init, apply))


class _LinenTower(nn.Module):
    """A convolution with a pool, then five dense layers that end in a sigmoid."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Images) -> Array:
        """Logits."""
        x = nn.max_pool(nn.sigmoid(nn.Conv(16, (3, 3))(x)), (2, 2), (2, 2)).reshape(len(x), -1)
        for _ in range(5):
            x = nn.sigmoid(nn.Dense(48)(x))
        return nn.Dense(self.num_classes)(x)


def sigmoid_tower_linen(problem: Problem) -> Problem:
    """Sigmoids behind a convolution and five dense layers."""
    return problem._replace(model=from_linen(_LinenTower(count_classes(problem))))


class _NnxConvolutions(nnx.Module):
    """Convolutions, the first two strided, with `activate` behind each; a head on all of the last map."""

    def __init__(
        self, num_classes: int, widths: Sequence[int], *, side: int, activate: Callable[[Array], Array], rngs: nnx.Rngs
    ) -> None:
        """Draws the parameters, for square images of one channel with `side` pixels a side."""
        self.activate = activate
        sizes = zip((1, *widths), widths, strict=False)
        self.convs = nnx.List(
            [nnx.Conv(*size, (5, 5), strides=2 if i < 2 else 1, rngs=rngs) for i, size in enumerate(sizes)]
        )
        self.head = nnx.Linear(widths[-1] * math.ceil(side / 4) ** 2, num_classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Logits."""
        for layer in self.convs:
            x = self.activate(layer(x))
        return self.head(x.reshape(len(x), -1))


def _convolutions(problem: Problem, widths: Sequence[int], activate: Callable[[Array], Array]) -> Problem:
    """The problem with such a network."""
    num_classes, side = count_classes(problem), image_side(problem)
    built = partial(_NnxConvolutions, num_classes, widths, side=side, activate=activate)
    return problem._replace(model=from_nnx(lambda rngs: built(rngs=rngs)))


def sigmoid_tower_nnx(problem: Problem) -> Problem:
    """Sigmoids behind five convolutions."""
    return _convolutions(problem, (32,) * 5, jax.nn.sigmoid)


def no_nonlinearity_nnx(problem: Problem) -> Problem:
    """Activations behind three convolutions that are called, and whose results nobody uses."""

    def forgetful(x: Array) -> Array:
        """What it is given."""
        jax.nn.relu(x)
        return x

    return _convolutions(problem, (32, 64, 64), forgetful)


# --- gradients that do not arrive, maps that collapse ---


def _two_convolutions(problem: Problem, features: Callable[[Array], Array]) -> Problem:
    """Two convolutions, each with a pool behind it, then a head on what `features` makes of their maps."""
    num_classes = count_classes(problem)

    def maps(params: Params, images: Images) -> Array:
        """The features that the head reads."""
        x = max_pool(jax.nn.relu(conv(params["conv0"], jnp.asarray(images))))
        return features(max_pool(conv(params["conv1"], x)))

    def init(key: Key, images: Images) -> tuple[Params, State]:
        """The layers."""
        keys = jax.random.split(key, 3)
        params = {"conv0": init_conv(keys[0], images.shape[-1], 16), "conv1": init_conv(keys[1], 16, 32)}
        return {**params, "head": init_dense(keys[2], maps(params, images).shape[1], num_classes)}, {}

    def apply(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Array, State]:
        """Logits of each image."""
        del key, train
        return dense(params["head"], maps(params, images)), state

    return problem._replace(model=Model(init, apply))


def pool_of_rows(problem: Problem) -> Problem:
    """A global pool over the axes of maps with channels in front, which are width and channels here."""
    return _two_convolutions(problem, lambda x: jax.nn.relu(x).mean(axis=(2, 3)))


class _AlongTheWidth(nn.Module):
    """Convolutions whose `kernel_size` is one number, as for square windows elsewhere."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Images) -> Array:
        """Logits of each image."""
        for features in (16, 32):
            x = nn.max_pool(nn.relu(nn.Conv(features, kernel_size=3)(x)), (2, 2), (2, 2))
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


def windows_of_one_side(problem: Problem) -> Problem:
    """Windows along the width alone."""
    return problem._replace(model=from_linen(_AlongTheWidth(count_classes(problem))))


def signs_cut_off(problem: Problem) -> Problem:
    """Signs of features, meant to let gradients straight through, with a parenthesis that takes their own path away."""
    return _two_convolutions(problem, lambda x: (x + jax.lax.stop_gradient(jnp.sign(x)) - x).reshape(len(x), -1))


def _average_pool(x: Float[Array, "batch height width channels"], size: int) -> Float[Array, "batch ..."]:
    """Mean of each window of `size` by `size` places; what does not fill a window is left out."""
    down, across = x.shape[1] // size, x.shape[2] // size
    cut = x[:, : down * size, : across * size]
    return cut.reshape(len(x), down, size, across, size, x.shape[-1]).mean(axis=(2, 4))


def spatial_collapse(problem: Problem) -> Problem:
    """An average pool, written for larger images, that leaves one place for the last three of four convolutions."""
    num_classes = count_classes(problem)
    window = image_side(problem)

    def init(key: Key, images: Images) -> tuple[Params, State]:
        """Four convolutions and a head."""
        *keys, last = jax.random.split(key, 5)
        sizes = zip(keys, (images.shape[-1], 16, 32, 32), (16, 32, 32, 32), strict=True)
        params = {f"conv{i}": init_conv(k, before, after) for i, (k, before, after) in enumerate(sizes)}
        num_places = (images.shape[1] // window) * (images.shape[2] // window)
        return {**params, "head": init_dense(last, 32 * num_places, num_classes)}, {}

    def apply(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Array, State]:
        """Logits of each image."""
        del key, train
        x = _average_pool(jax.nn.relu(conv(params["conv0"], jnp.asarray(images))), window)
        for i in range(1, 4):
            x = jax.nn.relu(conv(params[f"conv{i}"], x))
        return dense(params["head"], x.reshape(len(x), -1)), state

    return problem._replace(model=Model(init, apply))


BROUGHT_NETWORKS: tuple[Remedy, ...] = (
    missing_flatten,
    missing_flatten_linen,
    missing_flatten_nnx,
    sigmoid_tower,
    sigmoid_tower_linen,
    sigmoid_tower_nnx,
    no_nonlinearity_nnx,
    pool_of_rows,
    windows_of_one_side,
    signs_cut_off,
    spatial_collapse,
)
