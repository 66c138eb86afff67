"""What a tap returns: raw sums per unit, packed into one vector that one fetch brings to the host.

Inside the step there are only sums and maxima, which add up over micro-batches, loops and devices; every division,
comparison and square root happens on the host, in `layer_stats`.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

NUM_FIELDS = 4  # sum, sum of squares, sum of signs, maximum
NON_NEGATIVE = frozenset({"relu", "relu6", "sigmoid", "hard_sigmoid", "softplus", "squareplus"})
RECTIFIERS = frozenset({"relu", "relu6"})
SMOOTH_RECTIFIERS = frozenset({"gelu", "gelu (tanh)", "silu", "mish"})  # near zero on one side, but never quite
OFF = 1e-3  # root mean square up to which a unit of a smooth rectifier that is never above zero passes nothing on


class LayerLayout(NamedTuple):
    """Where one layer's readings lie in the packed vector."""

    name: str
    kind: str
    activation: str  # what the layer goes through, or ""
    num_features: int
    turns: tuple[int, ...]  # lengths of the loops whose turns are layers of their own
    start: int  # of the forward readings: for each turn a count and then `NUM_FIELDS` numbers a unit
    gradient_start: int | None  # of the sums of squared activation gradients


class Layout(NamedTuple):
    """How the packed vector is to be read; static and hashable."""

    layers: tuple[LayerLayout, ...]
    skipped: tuple[str, ...]  # what holds layers but could not be looked into
    size: int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Readings:
    """Readings of every layer; a pytree with one float32 leaf, so it crosses `jit`, `scan` and `vmap`."""

    packed: Float[Array, "*stack entries"]
    layout: Layout = dataclasses.field(metadata={"static": True})

    @property
    def skipped(self) -> tuple[str, ...]:
        """Operations that hold layers but could not be looked into."""
        return self.layout.skipped


class UnitStats(NamedTuple):
    """Statistics of each unit of one layer; a unit of a convolution is a channel, taken over batch and space."""

    num_activations: float  # of each unit
    mean: Float[np.ndarray, " units"]
    std: Float[np.ndarray, " units"]  # of the batch, not the estimate of a population
    max: Float[np.ndarray, " units"]
    mean_sign: Float[np.ndarray, " units"]  # share of positive minus share of negative activations
    gradient_rms: Float[np.ndarray, " units"]  # of the loss by the activations; NaN without a backward tap


class LayerStats(NamedTuple):
    """Statistics of one layer's output, behind its activation (in front of it for softmax)."""

    kind: str  # "conv", "depthwise-conv", "grouped-conv", "transposed-conv" or "dense"
    activation: str  # what the layer goes through: "relu", "softmax", ... or "" for none
    num_features: int  # units
    num_activations: float  # over all units
    mean: float
    std: float
    max: float
    zero_share: float  # fraction of activations that are exactly zero; NaN where outputs can be negative
    dead_share: float  # fraction of units that no example switches on; NaN unless it ends in a ReLU, GELU, SiLU or Mish
    constant_share: float  # fraction of units whose standard deviation is at most a thousandth of their mean
    nonfinite_share: float  # fraction of units with a NaN or an infinity
    gradient_rms: float  # root mean square of the loss by the activations; NaN without a backward tap
    no_gradient_share: float  # fraction of units that receive no gradient at all; NaN without a backward tap


def row_size(num_features: int) -> int:
    """Entries of one forward row."""
    return 1 + NUM_FIELDS * num_features


def _is_maximum(layout: Layout) -> np.ndarray:
    """Marks the entries of the packed vector that merge by maximum; the others add up."""
    marks = np.zeros(layout.size, bool)
    for layer in layout.layers:
        rows = np.zeros((math.prod(layer.turns), row_size(layer.num_features)), bool)
        rows[:, -layer.num_features :] = True
        marks[layer.start : layer.start + rows.size] = rows.ravel()
    return marks


def merge_readings(a: Readings, b: Readings) -> Readings:
    """Readings of both batches together; associative and commutative, and can be jitted.

    Raises:
      ValueError: the two are readings of different programs.
    """
    if a.layout != b.layout:
        raise ValueError(
            "readings must come from the same function to be merged, "
            f"got layers {_names(a.layout)} and {_names(b.layout)}."
        )
    merged = jnp.where(_is_maximum(a.layout), jnp.maximum(a.packed, b.packed), a.packed + b.packed)
    return Readings(merged, a.layout)


def merge_stacked(readings: Readings) -> Readings:
    """Merges readings along their leading axis: those of a `lax.scan` over micro-batches.

    Raises:
      ValueError: there is no leading axis.
    """
    if readings.packed.ndim < 2:
        raise ValueError(f"readings must have a leading axis to merge, got shape {readings.packed.shape}.")
    maxima, sums = readings.packed.max(0), readings.packed.sum(0)
    return Readings(jnp.where(_is_maximum(readings.layout), maxima, sums), readings.layout)


def _names(layout: Layout) -> list[str]:
    return [layer.name for layer in layout.layers]


def unit_stats(readings: Readings) -> dict[str, UnitStats]:
    """Statistics of every unit, by layer; on the host, in float64.

    A layer that a `scan` repeats with parameters of its own each turn gives `name[0]`, `name[1]`, ...

    Raises:
      ValueError: the readings are stacked by `vmap` or `scan`.
    """
    packed = np.asarray(jax.device_get(readings.packed), np.float64)
    if packed.ndim != 1:
        raise ValueError(
            f"readings must not be stacked, got shape {packed.shape}: take one with "
            "`jax.tree.map(lambda leaf: leaf[index], readings)`, or merge them with `merge_stacked`."
        )
    return {name: stats for layer in readings.layout.layers for name, stats in _layer_units(packed, layer)}


def _layer_units(packed: np.ndarray, layer: LayerLayout) -> Iterator[tuple[str, UnitStats]]:
    """Unit statistics of one layer, one for each turn of its loops."""
    num_rows, width = math.prod(layer.turns), layer.num_features
    rows = packed[layer.start :][: num_rows * row_size(width)].reshape(num_rows, -1)
    gradients = np.full((num_rows, width), np.nan)
    if layer.gradient_start is not None:
        gradients = packed[layer.gradient_start :][: num_rows * width].reshape(num_rows, width)
    for row, gradient, turn in zip(rows, gradients, np.ndindex(layer.turns), strict=True):
        suffix = f"[{','.join(map(str, turn))}]" if turn else ""
        yield layer.name + suffix, _finish_units(row[0], row[1:].reshape(NUM_FIELDS, width), gradient)


def _finish_units(count: float, fields: np.ndarray, gradient: np.ndarray) -> UnitStats:
    """Divides the sums by their count; NaN for a layer that did not run."""
    with np.errstate(all="ignore"):
        mean, mean_square, mean_sign = fields[:3] / count
        std = np.sqrt(np.maximum(mean_square - mean**2, 0))
        return UnitStats(count, mean, std, fields[3], mean_sign, np.sqrt(gradient / count))


def layer_stats(readings: Readings) -> dict[str, LayerStats]:
    """Statistics of every layer, in program order; on the host.

    A layer that a `scan` repeats with parameters of its own each turn gives `name[0]`, `name[1]`, ...

    Raises:
      ValueError: the readings are stacked by `vmap` or `scan`.
    """
    units = unit_stats(readings)
    layers = [layer for layer in readings.layout.layers for _ in range(math.prod(layer.turns))]
    return {name: _finish_layer(layer, stats) for (name, stats), layer in zip(units.items(), layers, strict=True)}


def _finish_layer(layer: LayerLayout, units: UnitStats) -> LayerStats:
    """Sums up the units of one layer; NaN where it has none, or did not run."""
    if not layer.num_features or not units.num_activations:
        return LayerStats(layer.kind, layer.activation, layer.num_features, 0.0, *[math.nan] * 9)
    with np.errstate(all="ignore"):
        mean = units.mean.mean()
        mean_square = np.mean(units.std**2 + units.mean**2)
        no_gradient = np.where(np.isnan(units.gradient_rms).all(), np.nan, np.mean(units.gradient_rms == 0))
        return LayerStats(
            kind=layer.kind,
            activation=layer.activation,
            num_features=layer.num_features,
            num_activations=float(units.num_activations * layer.num_features),
            mean=float(mean),
            std=float(np.sqrt(np.maximum(mean_square - mean**2, 0))),
            max=float(units.max.max()),
            zero_share=float(1 - units.mean_sign.mean()) if layer.activation in NON_NEGATIVE else math.nan,
            dead_share=_dead_share(layer.activation, units),
            constant_share=float(np.mean(units.std <= 1e-3 * np.abs(units.mean))),
            nonfinite_share=float(np.mean(~np.isfinite(units.mean + units.std))),
            gradient_rms=float(np.sqrt(np.mean(units.gradient_rms**2))),
            no_gradient_share=float(no_gradient),
        )


def _dead_share(activation: str, units: UnitStats) -> float:
    """Fraction of units that are off for all examples; NaN of an activation that never is."""
    if activation in RECTIFIERS:
        return float(np.mean(units.max <= 0))
    if activation not in SMOOTH_RECTIFIERS:
        return math.nan
    # Below zero a smooth rectifier dips before it comes back: only far out does it pass nothing on.
    return float(np.mean((units.max <= 0) & (np.hypot(units.mean, units.std) <= OFF)))


def pack(rows: Sequence[Float[Array, "..."]]) -> Float[Array, " entries"]:
    """All rows in one vector."""
    return jnp.concatenate([row.ravel() for row in rows])
