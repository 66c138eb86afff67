"""Small reference networks as pure functions, for images of any size and number of channels."""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnnprobe.checks import check_callable, check_integer, check_rank
from cnnprobe.models import plain
from cnnprobe.models.caching import cached
from cnnprobe.models.plain import FeatureMap, Layer
from cnnprobe.types import Images, Key, Model, Params, State

Activation = Callable[[Array], Array]
Pool = Callable[[FeatureMap], FeatureMap]
Logits = Float[Array, "batch classes"]


def baseline_cnn(num_classes: int = 10) -> Model:
    """Two 3x3 convolutions of 32 and 64 channels, each with ReLU and a 2x2 pool, then a dense layer: logits.

    50,186 parameters for ten classes of 28x28x1 images.
    """
    return _plain_cnn(PlainParts(widths=(32, 64)), (num_classes,), 0.0, False)


def small_cnn(
    num_classes: int,
    *,
    widths: tuple[int, ...] = (16, 32),
    kernel_size: int = 3,
    pool: Pool = plain.max_pool,
    dropout_rate: float = 0.0,
    batch_norm: bool = False,
    activation: Activation = jax.nn.relu,
) -> Model:
    """Convolutions, each with a 2x2 pool, then a dense layer of 64 units, and logits.

    Args:
      num_classes: logits of each image.
      widths: channels of each convolution.
      kernel_size: height and width of every kernel.
      pool: `plain.max_pool`, `plain.average_pool`, or a function that halves height and width.
      dropout_rate: fraction of the 64 units that training drops, in [0, 1).
      batch_norm: normalises after each convolution, before the activation.
      activation: after each layer but the last.

    Raises:
      ValueError: an argument is out of its range, or, when it is initialised, images are smaller than the pools allow
        (4x4 for two).
    """
    plain.check_rate("dropout_rate", dropout_rate)
    check_callable("activation", activation)
    check_callable("pool", pool)
    check_integer("kernel_size", kernel_size, 1)
    for width in widths:
        check_integer("widths", width, 1)
    parts = PlainParts(tuple(widths), kernel_size, pool, activation)
    return _plain_cnn(parts, (64, num_classes), dropout_rate, batch_norm)


def residual_cnn(num_classes: int, *, widths: tuple[int, ...] = (16, 32, 64), num_blocks: int = 1) -> Model:
    """A residual network with batch normalisation, whose last map is averaged over its places: logits.

    Each of the stages begins with a 3x3 convolution to its width, of stride 2 in all but the first, and goes on with
    `num_blocks` blocks of two 3x3 convolutions beside an identity.

    References:
      He et al., Deep residual learning for image recognition, CVPR 2016.

    Raises:
      ValueError: an argument is out of its range.
    """
    check_integer("num_blocks", num_blocks, 1)
    for width in widths:
        check_integer("widths", width, 1)
    return _residual_cnn(num_classes, tuple(widths), num_blocks)


class PlainParts(NamedTuple):
    """What the convolutions of a plain network are made of."""

    widths: tuple[int, ...]
    kernel_size: int = 3
    pool: Pool = plain.max_pool
    activation: Activation = jax.nn.relu


@cached
def _plain_cnn(parts: PlainParts, units: tuple[int, ...], dropout_rate: float, normalise: bool) -> Model:
    """Convolutions with pools, then dense layers; dropout before the last one."""
    check_integer("num_classes", units[-1], 1)
    widths, size, pool, activation = parts

    def init(key: Key, images: Images) -> tuple[Params, State]:
        """He-normal kernels and zero biases; a bias before a normalisation would do nothing and is left out."""
        sizes = (*_channels(images, widths), *units)
        keys = iter(jax.random.split(key, len(widths) + len(units)))
        norms = {f"norm{i}": plain.init_batch_norm(width) for i, width in enumerate(widths, 1) if normalise}
        params = {name: layer for name, (layer, _) in norms.items()}
        for i, (before, width) in enumerate(pairwise((images.shape[-1], *widths)), 1):
            params[f"conv{i}"] = plain.init_conv(next(keys), before, width, size=size, bias=not normalise)
        for i, (before, width) in enumerate(pairwise(sizes), 1):
            params[f"dense{i}"] = plain.init_dense(next(keys), before, width)
        return params, {name: stats for name, (_, stats) in norms.items()}

    def apply(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Logits, State]:
        """Logits of each image."""
        x, new_state = jnp.asarray(images, jnp.float32), {}
        for i in range(1, len(widths) + 1):
            x = plain.conv(params[f"conv{i}"], x)
            if normalise:
                name = f"norm{i}"
                x, new_state[name] = plain.batch_norm(params[name], state[name], x, train=train)
            x = pool(activation(x))
        x = plain.flatten(x)
        for i in range(1, len(units)):
            x = activation(plain.dense(params[f"dense{i}"], x))
        x = plain.dropout(key, x, rate=dropout_rate, train=train)
        return plain.dense(params[f"dense{len(units)}"], x), new_state

    return Model(init, apply)


def _channels(images: Images, widths: tuple[int, ...]) -> tuple[int]:
    """Number of values of the last map, each pool having halved height and width."""
    check_rank("images", images, 4)
    smallest = 2 ** len(widths)
    height, width = images.shape[1:3]
    if min(height, width) < smallest:
        raise ValueError(f"images must be at least {smallest}x{smallest}, got shape {images.shape}.")
    return ((height // smallest) * (width // smallest) * widths[-1],)


@cached
def _residual_cnn(num_classes: int, widths: tuple[int, ...], num_blocks: int) -> Model:
    """Stages, global average pooling, a dense layer."""
    check_integer("num_classes", num_classes, 1)

    def init(key: Key, images: Images) -> tuple[Params, State]:
        """He-normal kernels; normalisations that do nothing yet."""
        check_rank("images", images, 4)
        keys = jax.random.split(key, len(widths) + 1)
        params: Params = {"head": plain.init_dense(keys[0], widths[-1], num_classes)}
        state: State = {}
        for i, (before, width) in enumerate(pairwise((images.shape[-1], *widths)), 1):
            params[f"stage{i}"], state[f"stage{i}"] = _init_stage(keys[i], before, width, num_blocks)
        return params, state

    def apply(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Logits, State]:
        """Logits of each image."""
        del key  # nothing is drawn
        x, new_state = jnp.asarray(images, jnp.float32), {}
        for i in range(1, len(widths) + 1):
            name, stride = f"stage{i}", 1 if i == 1 else 2
            x, new_state[name] = _stage(params[name], state[name], x, stride=stride, train=train)
        return plain.dense(params["head"], plain.global_average_pool(x)), new_state

    return Model(init, apply)


def _init_stage(key: Key, num_inputs: int, width: int, num_blocks: int) -> tuple[dict[str, Layer], dict[str, Layer]]:
    """Parameters and statistics: `conv0`, then `conv1` and `conv2` of the first block, and so on."""
    params, state = {}, {}
    for i, each in enumerate(jax.random.split(key, 1 + 2 * num_blocks)):
        params[f"conv{i}"] = plain.init_conv(each, num_inputs if i == 0 else width, width, bias=False)
        params[f"norm{i}"], state[f"norm{i}"] = plain.init_batch_norm(width)
    return params, state


def _stage(
    params: dict[str, Layer], state: dict[str, Layer], x: FeatureMap, *, stride: int, train: bool
) -> tuple[FeatureMap, dict[str, Layer]]:
    """The leading convolution and the blocks of one stage."""
    new_state = {}

    def unit(i: int, x: FeatureMap, stride: int = 1) -> FeatureMap:
        """The i-th convolution, normalised."""
        y = plain.conv(params[f"conv{i}"], x, stride=stride)
        y, new_state[f"norm{i}"] = plain.batch_norm(params[f"norm{i}"], state[f"norm{i}"], y, train=train)
        return y

    x = jax.nn.relu(unit(0, x, stride))
    for i in range(1, len(state), 2):
        x = jax.nn.relu(x + unit(i + 1, jax.nn.relu(unit(i, x))))
    return x, new_state
