"""The benchmark's networks: as other people write them, in Flax Linen and NNX, beside those of our own."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx
from jaxtyping import Array

from cnnprobe.models.linen import from_linen
from cnnprobe.models.networks import residual_cnn, small_cnn
from cnnprobe.models.nnx import from_nnx
from cnnprobe.types import Model

WIDTHS = (24, 48, 96)


class LinenCNN(nn.Module):
    """Three blocks of convolution, batch normalisation and pool, then a dense layer, dropout and a head."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Logits."""
        for width in WIDTHS:
            x = nn.Conv(width, (3, 3), use_bias=False)(x)
            x = nn.max_pool(nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Dense(96)(x.reshape(len(x), -1)))
        return nn.Dense(self.num_classes)(nn.Dropout(0.3, deterministic=not train)(x))


class MixedCNN(nn.Module):
    """Two convolutions and two dense layers that compute in bfloat16 what is kept in float32; logits in float32."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Logits."""
        del train  # nothing differs
        for width in WIDTHS[:2]:
            x = nn.max_pool(nn.relu(nn.Conv(width, (3, 3), dtype=jnp.bfloat16)(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Dense(64, dtype=jnp.bfloat16)(x.reshape(len(x), -1)))
        return nn.Dense(self.num_classes, dtype=jnp.bfloat16)(x).astype(jnp.float32)


class NnxBlock(nnx.Module):
    """A strided convolution, normalised over groups of channels, and GELU."""

    def __init__(self, num_in: int, num_out: int, size: int, strides: int, rngs: nnx.Rngs) -> None:
        """Draws the parameters."""
        self.conv = nnx.Conv(num_in, num_out, (size, size), strides=strides, rngs=rngs)
        self.norm = nnx.GroupNorm(num_out, num_groups=4, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Features."""
        return jax.nn.gelu(self.norm(self.conv(x)))


class NnxCNN(nnx.Module):
    """Three blocks, global average pooling and a head."""

    def __init__(self, num_channels: int, num_classes: int, rngs: nnx.Rngs) -> None:
        """Draws the parameters."""
        self.first = NnxBlock(num_channels, 24, 5, 2, rngs)
        self.second = NnxBlock(24, 48, 3, 2, rngs)
        self.third = NnxBlock(48, 96, 3, 1, rngs)
        self.head = nnx.Linear(96, num_classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Logits."""
        return self.head(self.third(self.second(self.first(x))).mean(axis=(1, 2)))


def linen_cnn(num_classes: int) -> Model:
    """`LinenCNN` as a model."""
    return from_linen(LinenCNN(num_classes))


def mixed_cnn(num_classes: int) -> Model:
    """`MixedCNN` as a model."""
    return from_linen(MixedCNN(num_classes))


def nnx_cnn(num_classes: int) -> Model:
    """`NnxCNN` for images of one channel as a model."""
    return from_nnx(lambda rngs: NnxCNN(1, num_classes, rngs))


NETWORKS: dict[str, Callable[[int], Model]] = {
    "plain": small_cnn,
    "residual": residual_cnn,
    "linen": linen_cnn,
    "nnx": nnx_cnn,
}
