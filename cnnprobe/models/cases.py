"""The networks of the five reference cases, layer by layer as they were reported."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jaxtyping import Array

from cnnprobe.checks import check_integer
from cnnprobe.models.caching import cached
from cnnprobe.models.chain import Step, batch_norm, chain, conv, dense, dropout, function, residual
from cnnprobe.models.plain import flatten, max_pool
from cnnprobe.types import Model

RELU, LEAKY, FLATTEN = function(jax.nn.relu), function(jax.nn.leaky_relu), function(flatten)


@cached
def blood_cell_cnn(
    *,
    width: int = 64,
    dropout_rates: tuple[float, float] = (0.25, 0.5),
    activation: Callable[[Array], Array] | None = None,
    num_classes: int = 4,
) -> Model:
    """Three convolutions (80, 64 and 64 channels at full width) and two dense layers: logits of four cell types.

    Args:
      width: channels of the second and third convolution; the first has a quarter more.
      dropout_rates: fraction of values dropped from the last map and from the dense layer.
      activation: between the two dense layers; None: nothing, as it was reported.
      num_classes: scores of each image.
    """
    check_integer("width", width, 1)
    between = [] if activation is None else [function(activation)]
    return chain(
        [
            conv("conv1", width * 5 // 4), LEAKY,
            conv("conv2", width), LEAKY, function(max_pool),
            conv("conv3", width), LEAKY, dropout(dropout_rates[0]), FLATTEN,
            dense("dense1", 2 * width), *between, dropout(dropout_rates[1]), dense("head", num_classes),
        ]
    )  # fmt: skip


@cached
def folder_cnn(*, width: int = 32, blocks: int = 3, units: tuple[int, ...] = (128, 64), num_classes: int = 3) -> Model:
    """Blocks of two 3x3 convolutions without padding and a pool, then dense layers: logits.

    With three blocks and units (128, 64) it is summary A, 1,382,819 parameters for images of 256x256x3; with two
    blocks and (128,) summary B, 6,582,755. The first pool is 3x3, as the shapes of both summaries say.
    """
    check_integer("blocks", blocks, 1)
    steps: list[Step] = []
    for block in range(1, blocks + 1):
        for layer in "ab":
            steps += [conv(f"conv{block}{layer}", width, padding="VALID"), RELU]
        steps.append(function(partial(max_pool, size=3 if block == 1 else 2)))
    steps.append(FLATTEN)
    for index, size in enumerate(units, 1):
        steps += [dense(f"dense{index}", size), RELU]
    return chain([*steps, dense("head", num_classes)])


def _unit(width: int, momentum: float, sizes: tuple[int, ...]) -> list[Step]:
    """Convolutions of these sizes with batch normalisation, ReLU between them."""
    steps: list[Step] = []
    for index, size in enumerate(sizes, 1):
        steps += [conv(f"conv{index}", width, size=size), batch_norm(f"norm{index}", momentum=momentum), RELU]
    return steps[:-1]


@cached
def digit_resnet(*, width: int = 32, momentum: float = 0.99, num_classes: int = 10) -> Model:
    """Three stages of bottleneck blocks, stride 1 throughout: probabilities of the digits.

    Images of 50x50x1 give maps of 26x26 and a classifier of 21,632 inputs at full width.

    Args:
      width: channels of the first convolution and the first stage; the stages have 1, 2 and 4 times as many.
      momentum: share of the old running statistics that each training step keeps.
      num_classes: probabilities of each image.
    """
    check_integer("width", width, 1)
    unit = partial(_unit, momentum=momentum, sizes=(1, 3, 1))
    steps: list[Any] = [
        function(partial(_pad, by=3)), conv("conv", width, size=5, padding="VALID"),
        batch_norm("norm", momentum=momentum), RELU, function(max_pool),
    ]  # fmt: skip
    for stage in range(3):
        channels = width * 2**stage
        shortcut = _unit(channels, momentum, (1,))
        steps.append(residual(f"stage{stage + 1}a", unit(channels), shortcut))
        steps += [residual(f"stage{stage + 1}{name}", unit(channels)) for name in "bc"]
    return chain([*steps, function(_average_pool_same), FLATTEN, dense("head", num_classes), function(jax.nn.softmax)])


@cached
def sixteen_cnn(*, width: int = 16, flat: bool = False, num_classes: int = 16) -> Model:
    """Four convolutions and a dense layer, as printed without a flatten: probabilities of every place of the map.

    Images of 224x224x3 give a map of 106x106 with 128 channels at full width.

    Args:
      width: channels of the first convolution; the others have 2, 4 and 8 times as many.
      flat: puts the missing flatten before the dense layer.
      num_classes: probabilities of each place, or of each image where `flat`.
    """
    check_integer("width", width, 1)
    steps = [conv("conv1", width, stride=2), RELU]
    for index, factor in enumerate((2, 4, 8), 2):
        steps += [conv(f"conv{index}", width * factor, padding="VALID"), RELU]
    flattened = [FLATTEN] if flat else []
    return chain([*steps, *flattened, dense("head", num_classes), function(jax.nn.softmax)])


def _pad(x: Array, *, by: int) -> Array:
    """Zeros around the images."""
    return jax.numpy.pad(x, [(0, 0), (by, by), (by, by), (0, 0)])


def _average_pool_same(x: Array) -> Array:
    """Means of 2x2 windows; where the map ends in the middle of one, of what there is."""
    ones = jax.numpy.ones((1, *x.shape[1:3], 1), x.dtype)  # XLA would fold ones of the whole batch for seconds
    window = (1, 2, 2, 1)
    total, count = (jax.lax.reduce_window(y, 0.0, jax.lax.add, window, window, "SAME") for y in (x, ones))
    return total / count
