"""One row a layer: what flowed through it, what flowed back, and how far it moved."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from cnnprobe.tracing.provenance import layer_name, owner_name
from cnnprobe.tracing.readings import LayerStats, Readings, layer_stats
from cnnprobe.trees import leaf_name

Norms = Mapping[str, float]


class LayerKey(NamedTuple):
    """A row's name taken apart."""

    base: str  # the path of its parameters
    turn: tuple[int, ...]  # which slice of them, in a loop over layers
    is_first_use: bool


def table(
    readings: Readings,
    *,
    grads: PyTree[Array] | None = None,
    updates: PyTree[Array] | None = None,
    params: PyTree[Array] | None = None,
) -> str:
    """Readings as aligned plain text, with the norms of whatever trees are given beside them.

    `grads`, `updates` and `params` are trees like the parameters that the readings were taken with. A cell that does
    not apply is a dash.

    Raises:
      ValueError: the readings are stacked by `vmap` or `scan`.
    """
    stats = layer_stats(readings)
    keys = {name: parse_name(name) for name in stats}
    norms = {title: _norms(tree, keys) for title, tree in (("grad", grads), ("update", updates), ("param", params))}
    rows = [_row(name, layer, norms) for name, layer in stats.items()]
    lines = aligned([*_header(norms), *rows]) if rows else ["no layers"]
    skipped = [f"not looked into: {', '.join(readings.skipped)}"] if readings.skipped else []
    return "\n".join([*lines, *skipped])


def parse_name(name: str) -> LayerKey:
    """Takes a row's name apart.

    >>> parse_name("blocks/conv#1[2]")
    LayerKey(base='blocks/conv', turn=(2,), is_first_use=False)
    """
    match = re.fullmatch(r"(.*?)(#\d+)?(?:\[([\d,]+)\])?", name)
    assert match is not None
    turn = tuple(int(index) for index in match[3].split(",")) if match[3] else ()
    return LayerKey(match[1], turn, match[2] is None)


def _norms(tree: PyTree[Array] | None, keys: Mapping[str, LayerKey]) -> Norms | None:
    """Euclidean norm of each layer's leaves; one fetch for all."""
    if tree is None:
        return None
    squares = {
        name: sum((jnp.sum(jnp.square(leaf[key.turn].astype(jnp.float32))) for leaf in leaves), start=jnp.float32(0))
        for name, key in keys.items()
        if key.is_first_use and (leaves := list(_own_leaves(tree, key.base)))
    }
    return {name: math.sqrt(value) for name, value in jax.device_get(squares).items()}


def _own_leaves(tree: PyTree[Array], base: str) -> Iterator[Array]:
    """The leaves of one layer."""
    inner = tree["params"] if isinstance(tree, dict) and "params" in tree else tree
    for path, leaf in jax.tree_util.tree_flatten_with_path(inner)[0]:
        name = leaf_name(path) or "params"
        if base in (layer_name(name), owner_name(name)):
            yield leaf


def _header(norms: Mapping[str, Norms | None]) -> list[list[str]]:
    """The titles of the columns."""
    titles = ["layer", "kind", "then", "units", "mean", "std", "max", "zero", "dead", "act grad rms"]
    titles += [f"{title} norm" for title, values in norms.items() if values is not None]
    return [[*titles, "log10 update"] if _has_ratio(norms) else titles]


def _has_ratio(norms: Mapping[str, Norms | None]) -> bool:
    return norms["update"] is not None and norms["param"] is not None


def _row(name: str, layer: LayerStats, norms: Mapping[str, Norms | None]) -> list[str]:
    """The cells of one layer."""
    cells = [name, layer.kind, layer.activation or "-", str(layer.num_features)]
    cells += [_number(value) for value in (layer.mean, layer.std, layer.max)]
    cells += [_share(value) for value in (layer.zero_share, layer.dead_share)]
    cells.append(_number(layer.gradient_rms))
    cells += [_number(values.get(name, math.nan)) for values in norms.values() if values is not None]
    if _has_ratio(norms):
        update, param = ((norms[title] or {}).get(name, math.nan) for title in ("update", "param"))
        cells.append(_log_ratio(update, param))
    return cells


def _log_ratio(update: float, param: float) -> str:
    """log10 of |update| / |param|; -inf for a layer that does not move."""
    if math.isnan(update) or math.isnan(param) or param == 0:
        return "-"
    return f"{math.log10(update / param):.2f}" if update else "-inf"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0%}" if value in (0, 1) else f"{value:.1%}"


def aligned(rows: Sequence[Sequence[str]], *, num_left: int = 3) -> list[str]:
    """Rows as lines with their columns under one another; the first `num_left` to the left, the others to the right.

    >>> aligned([["a", "b"], ["cc", "10"]], num_left=1)
    ['a    b', 'cc  10']
    """
    widths = np.max([[len(cell) for cell in row] for row in rows], axis=0)
    return [
        "  ".join(
            cell.ljust(width) if column < num_left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
