"""Flat names of arrays as nested dicts, and back."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax

from cnnprobe.trees import leaf_name


def nest(named: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts with a level for each part of a name.

    >>> nest({"conv/kernel": 1, "conv/bias": 2, "scale": 3})
    {'conv': {'kernel': 1, 'bias': 2}, 'scale': 3}
    """
    tree: dict[str, Any] = {}
    for name, value in named.items():
        *parents, last = name.split("/")
        level = tree
        for parent in parents:
            level = level.setdefault(parent, {})
        level[last] = value
    return tree


def flatten_names(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their names: `nest` undone.

    >>> flatten_names({"conv": {"kernel": 1}})
    {'conv/kernel': 1}
    """
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def distinct_names(names: Iterable[str]) -> list[str]:
    """The same names, numbered such that none stands twice and none is the front of another.

    >>> distinct_names(["conv/w", "conv/w", "conv"])
    ['conv/w', 'conv_1/w', 'conv_2']
    """
    taken: set[str] = set()
    return [_take_name(name, taken) for name in names]


def _take_name(name: str, taken: set[str]) -> str:
    """The name, with the first number behind its first part that makes it free; adds it to `taken`."""
    first, *rest = name.split("/")
    count, free = 0, name
    while any(f"{free}/".startswith(f"{other}/") or f"{other}/".startswith(f"{free}/") for other in taken):
        count += 1
        free = "/".join([f"{first}_{count}", *rest])
    taken.add(free)
    return free
