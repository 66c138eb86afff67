"""Layers as pure functions of their parameters; images are channels last."""

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnnprobe.checks import check_integer
from cnnprobe.types import Key

Layer: TypeAlias = dict[str, Array]  # the parameters of one layer, or its statistics
FeatureMap: TypeAlias = Float[Array, "batch height width channels"]


def init_conv(key: Key, num_inputs: int, num_outputs: int, *, size: int = 3, bias: bool = True) -> Layer:
    """A `size` x `size` kernel from He's normal distribution, and a bias of zeros."""
    return _init_kernel(key, (size, size, num_inputs, num_outputs), bias)


def init_dense(key: Key, num_inputs: int, num_outputs: int) -> Layer:
    """A kernel from He's normal distribution, and a bias of zeros."""
    return _init_kernel(key, (num_inputs, num_outputs), bias=True)


def init_batch_norm(num_channels: int) -> tuple[Layer, Layer]:
    """Parameters (scale one, bias zero) and running statistics (mean zero, variance one)."""
    params = {"scale": jnp.ones(num_channels), "bias": jnp.zeros(num_channels)}
    return params, {"mean": jnp.zeros(num_channels), "var": jnp.ones(num_channels)}


def conv(params: Layer, x: FeatureMap, *, stride: int = 1, padding: str = "SAME") -> FeatureMap:
    """Cross-correlation with the kernel, plus the bias if there is one."""
    y = lax.conv_general_dilated(
        x, params["kernel"], (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y + params["bias"] if "bias" in params else y


def dense(params: Layer, x: Float[Array, "batch inputs"]) -> Float[Array, "batch outputs"]:
    """Matrix product with the kernel, plus the bias."""
    return x @ params["kernel"] + params["bias"]


def batch_norm(
    params: Layer, stats: Layer, x: Float[Array, "batch ..."], *, train: bool, momentum: float = 0.9, eps: float = 1e-5
) -> tuple[Float[Array, "batch ..."], Layer]:
    """Normalises each channel, in training by the batch and else by the running statistics; returns those too.

    After a training step the running statistics are `momentum * old + (1 - momentum) * of the batch`, with the
    variance divided by n.

    References:
      Ioffe & Szegedy, Batch normalization, ICML 2015.
    """
    axes = tuple(range(x.ndim - 1))
    batch = {"mean": jnp.mean(x, axes), "var": jnp.var(x, axes)} if train else stats
    y = (x - batch["mean"]) * lax.rsqrt(batch["var"] + eps) * params["scale"] + params["bias"]
    return y, {name: momentum * stats[name] + (1 - momentum) * batch[name] for name in stats} if train else stats


def max_pool(x: FeatureMap, *, size: int = 2, stride: int | None = None) -> FeatureMap:
    """Largest value of each window; windows that do not fit are left out. `stride` None: windows do not overlap."""
    window, strides = (1, size, size, 1), (1, stride or size, stride or size, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, "VALID")


def average_pool(x: FeatureMap, *, size: int = 2, stride: int | None = None) -> FeatureMap:
    """Mean of each window; windows that do not fit are left out. `stride` None: windows do not overlap."""
    window, strides = (1, size, size, 1), (1, stride or size, stride or size, 1)
    return lax.reduce_window(x, 0.0, lax.add, window, strides, "VALID") / size**2


def global_average_pool(x: FeatureMap) -> Float[Array, "batch channels"]:
    """Mean over all places."""
    return jnp.mean(x, axis=(1, 2))


def flatten(x: FeatureMap) -> Float[Array, "batch values"]:
    """One row for each image."""
    return x.reshape(len(x), -1)


def dropout(key: Key, x: Float[Array, "batch ..."], *, rate: float, train: bool = True) -> Float[Array, "batch ..."]:
    """In training sets each value to zero with probability `rate` and scales the rest by `1 / (1 - rate)`.

    References:
      Srivastava et al., Dropout, JMLR 2014.
    """
    check_rate("rate", rate)
    if not train or rate == 0:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)


def check_rate(name: str, rate: float) -> None:
    """Raises `ValueError` unless `rate` is in [0, 1)."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise ValueError(f"{name} must be a number of at least 0 and below 1, got {rate!r}.")


def _init_kernel(key: Key, shape: tuple[int, ...], bias: bool) -> Layer:
    """He's normal initialisation: variance 2 / fan-in (He et al., Delving deep into rectifiers, ICCV 2015)."""
    for name, value in zip(("num_inputs", "num_outputs"), shape[-2:], strict=True):
        check_integer(name, value, 1)
    kernel = jax.nn.initializers.he_normal()(key, shape, jnp.float32)
    return {"kernel": kernel, "bias": jnp.zeros(shape[-1])} if bias else {"kernel": kernel}
