"""Networks to measure, in Flax Linen: what a user trains, with nothing of cnnprobe in it."""

from typing import NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float


class Network(NamedTuple):
    """A network and what it is fed."""

    module: nn.Module
    image_shape: tuple[int, int, int]
    batch_size: int  # of each device


class PlainCNN(nn.Module):
    """Two pairs of convolutions with a pool behind each, and two dense layers."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width channels"], train: bool) -> Float[Array, "batch k"]:
        """Logits."""
        del train
        x = images
        for width in (32, 64):
            for _ in range(2):
                x = nn.relu(nn.Conv(width, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Dense(128)(x.reshape(len(x), -1)))
        return nn.Dense(self.num_classes)(x)


class Unit(nn.Module):
    """A convolution and its normalisation."""

    width: int
    size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"], train: bool) -> Float[Array, "batch h w c"]:
        """The normalised maps."""
        x = nn.Conv(self.width, (self.size, self.size), (self.stride, self.stride), use_bias=False)(x)
        return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or a bottleneck of three.

    References:
      He et al., Deep residual learning for image recognition, CVPR 2016.
    """

    width: int
    stride: int
    is_bottleneck: bool

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"], train: bool) -> Float[Array, "batch h w c"]:
        """The sum with the shortcut, rectified."""
        if self.is_bottleneck:
            y = nn.relu(Unit(self.width, 1)(x, train))
            y = nn.relu(Unit(self.width, 3, self.stride)(y, train))
            y = Unit(4 * self.width, 1)(y, train)
        else:
            y = nn.relu(Unit(self.width, 3, self.stride)(x, train))
            y = Unit(self.width, 3)(y, train)
        if x.shape != y.shape:
            x = Unit(y.shape[-1], 1, self.stride)(x, train)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Stages of residual blocks, a global average, a dense layer."""

    stages: tuple[int, ...]  # blocks of each
    width: int  # of the first stage; each later one has twice as many channels
    is_bottleneck: bool = False
    has_stem: bool = True  # a 7x7 convolution and a pool in front, as for large images
    num_classes: int = 10

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width channels"], train: bool) -> Float[Array, "batch k"]:
        """Logits."""
        size, stride = (7, 2) if self.has_stem else (3, 1)
        x = nn.relu(Unit(self.width, size, stride)(images, train))
        if self.has_stem:
            x = nn.max_pool(x, (3, 3), (2, 2), padding="SAME")
        for stage, num_blocks in enumerate(self.stages):
            for index in range(num_blocks):
                stride = 2 if stage and not index else 1
                x = Block(self.width * 2**stage, stride, self.is_bottleneck)(x, train)
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


NETWORKS = {
    "plain": Network(PlainCNN(), (32, 32, 3), 128),
    "residual": Network(ResNet((2, 2, 2), 16, has_stem=False), (50, 50, 1), 64),
    "resnet18": Network(ResNet((2, 2, 2, 2), 64), (64, 64, 3), 32),
    "resnet50": Network(ResNet((3, 4, 6, 3), 64, is_bottleneck=True), (64, 64, 3), 32),
}
