"""Inserting a normalisation behind layers of a model, without its source."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnnprobe.checks import check_integer
from cnnprobe.tracing.axes import Axes, layer_axes
from cnnprobe.tracing.interpret import Edit, Edits, Reader
from cnnprobe.tracing.layers import Layer, Structure
from cnnprobe.tracing.surgery import edit_layers

EPSILON = 1e-5  # added to the variance


class Parts(NamedTuple):
    """The axes of a layer's result."""

    kept: Axes  # each entry along these is normalised alone: the batch, the positions of a dense layer
    space: Axes  # of a convolution
    features: Axes


def insert_normalisation(
    fn: Callable, names: Sequence[str] | None = None, *, num_groups: int = 1, params_argnum: int = 0
) -> Callable:
    """`fn` with a group normalisation behind the layers `names`, in front of their bias, which becomes its shift.

    Without `names`, behind every convolution that goes through no normalisation yet. One group is layer normalisation,
    a group for each feature is instance normalisation. It has no parameters and no running statistics: each example is
    normalised by itself, over its features and the space of a convolution, so training and evaluation compute the same.

    Raises:
      ValueError: `num_groups` is no whole number above 0; on the call, if there is no such layer, if `num_groups` does
        not divide its features, or if it would normalise single numbers.

    References:
      Wu & He, Group normalization, ECCV 2018.
    """
    check_integer("num_groups", num_groups, 1)
    if isinstance(names, str):
        raise ValueError(f"names must be a sequence of names, got {names!r}.")
    return edit_layers(fn, lambda structure: _edits(structure, names, num_groups), params_argnum)


def _edits(structure: Structure, names: Sequence[str] | None, num_groups: int) -> Edits:
    """One normalisation for each chosen layer."""
    edits = {}
    for layer in _chosen(structure, names):
        shape = structure.program.types[layer.op.outputs[0]].shape
        parts = _parts(layer, len(shape))
        _check_groups(layer, num_groups, math.prod(shape[axis] for axis in (*parts.space, *parts.features)))
        edits[layer.op.outputs[0]] = _normalise_by(parts, num_groups)
    return edits


def _chosen(structure: Structure, names: Sequence[str] | None) -> list[Layer]:
    """The layers to normalise."""
    layers = {layer.name: layer for layer in structure.layers}
    known = f"layers: {list(layers)}, not looked into: {list(structure.skipped)}"
    if names is None:
        chosen = [layer for layer in layers.values() if layer.kind != "dense" and not layer.output.normalisation]
        if not chosen:
            raise ValueError(f"fn must have a convolution without normalisation where names is None, got {known}.")
        return chosen
    if unknown := [name for name in names if name not in layers]:
        raise ValueError(f"names must be layers of fn (of a loop as a whole), got {unknown}; {known}.")
    return [layers[name] for name in names]


def _parts(layer: Layer, rank: int) -> Parts:
    """Sorts the axes of the layer's result."""
    if layer.kind == "dense":
        features = layer_axes(layer.op, layer.kernel)
        return Parts(tuple(axis for axis in range(rank) if axis not in features), (), features)
    batch, feature, *space = layer.op.params["dimension_numbers"].out_spec
    return Parts((batch,), tuple(space), (feature,))


def _check_groups(layer: Layer, num_groups: int, size: int) -> None:
    """Raises `ValueError` unless the groups divide the features, and each holds several of the `size` numbers."""
    if layer.num_features % num_groups:
        raise ValueError(f"num_groups must divide the {layer.num_features} features of {layer.name}, got {num_groups}.")
    if size == num_groups:
        raise ValueError(f"num_groups must leave several numbers a group in {layer.name}, got {num_groups}.")


def _normalise_by(parts: Parts, num_groups: int) -> Edit:
    """Normalises a value when it has been computed."""

    def apply(value: Array, _read: Reader, _slot: Any) -> tuple[Array, None]:
        """The value to go on with."""
        return group_normalise(value, parts, num_groups), None

    return Edit(apply)


def group_normalise(x: Float[Array, "..."], parts: Parts, num_groups: int) -> Float[Array, "..."]:
    """Mean 0 and variance 1 in each group of features; the statistics are in float32 at least."""
    order = (*parts.kept, *parts.space, *parts.features)
    moved = x.transpose(order)
    kept = moved.shape[: len(parts.kept)]
    width = math.prod(x.shape[axis] for axis in parts.features)
    space = math.prod(x.shape[axis] for axis in parts.space)
    groups = moved.reshape(*kept, space, num_groups, width // num_groups)
    groups = groups.astype(jnp.promote_types(x.dtype, jnp.float32))
    centred = groups - groups.mean((-3, -1), keepdims=True)
    scaled = centred * jax.lax.rsqrt(jnp.square(centred).mean((-3, -1), keepdims=True) + EPSILON)
    return scaled.reshape(moved.shape).transpose(np.argsort(order)).astype(x.dtype)
