"""What really differs between two networks, whatever their layers are called and however they are written."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cnnprobe.tracing.nodes import LayerNode, ModelGraph
from cnnprobe.tracing.steps import Step
from cnnprobe.tracing.windows import shape_text

# Non-decreasing, so that it does not matter whether a max pool stands before or behind them.
MONOTONE = ("relu", "relu6", "leaky_relu", "elu", "selu", "sigmoid", "log_sigmoid", "tanh", "softplus", "hard_tanh")
GAP = 0.8  # what it costs in an alignment to leave a layer alone
COSTS = {"kind": 0.6, "features": 0.5, "kernel size": 0.4, "strides": 0.3}  # of a difference within a pair
COST = 0.15  # of any other
SMALL_COST = 0.1  # of what follows from other differences


class Change(NamedTuple):
    """One setting that differs."""

    what: str  # "kernel size", "activation", ...
    a: str  # in the first network
    b: str  # in the second


class Difference(NamedTuple):
    """A layer that one network has alone, or that both have with other settings."""

    a: str  # the layer's name in the first network, or "" if it has none
    b: str  # in the second
    changes: tuple[Change, ...]  # for a layer of one network alone: the layer in words, and ""


class Comparison(NamedTuple):
    """What differs between two networks; initial weights are not compared."""

    differences: tuple[Difference, ...]  # in program order
    consequences: tuple[Difference, ...]  # shapes that differ because something before them does
    totals: tuple[Change, ...]  # of the networks as wholes
    skipped: tuple[str, ...]  # what could not be looked into, and so was not compared

    @property
    def is_same(self) -> bool:
        """Whether nothing differs."""
        return not (self.differences or self.consequences or self.totals)

    def __str__(self) -> str:
        """One line for each difference."""
        lines = ["no difference"] if self.is_same else []
        lines += [_line(difference) for difference in self.differences]
        lines += [f"  so {_line(difference)}" for difference in self.consequences]
        lines += [f"in all: {_change(change)}" for change in self.totals]
        lines += [f"not compared: {', '.join(self.skipped)}"] if self.skipped else []
        return "\n".join(lines)


def compare_models(graph_a: ModelGraph, graph_b: ModelGraph) -> Comparison:
    """Compares two networks layer by layer: kinds, sizes, windows, what follows each layer.

    Names, libraries, memory layouts and spellings do not count, and neither does the order of steps that commute, as a
    ReLU and a max pool. Initial weights, the epsilon of a normalisation and the momentum of its statistics are not
    compared.

    >>> from cnnprobe.tracing.graph import model_graph
    >>> import jax
    >>> x, w = np.ones((2, 4)), np.ones((4, 3))
    >>> a, b = (model_graph(lambda w, x, act=act: act(x @ w), w, x) for act in (jax.nn.relu, jax.nn.tanh))
    >>> print(compare_models(a, b))
    params: activation relu -> tanh
    """
    differences, consequences = [], []
    changes = _changes(_first_settings(graph_a), _first_settings(graph_b))
    if changes:
        differences.append(Difference("input", "input", changes))
    for a, b in _align(graph_a.layers, graph_b.layers):
        if a is None or b is None:
            words = (_words(a) if a else "", _words(b) if b else "")
            differences.append(Difference(a.name if a else "", b.name if b else "", (Change("layer", *words),)))
            continue
        if changes := _changes(_settings(a), _settings(b)):
            differences.append(Difference(a.name, b.name, changes))
        if changes := _changes(_shapes(a), _shapes(b)):
            consequences.append(Difference(a.name, b.name, changes))
    totals = _changes(_totals(graph_a), _totals(graph_b))
    skipped = tuple(dict.fromkeys((*graph_a.skipped, *graph_b.skipped)))
    return Comparison(tuple(differences), tuple(consequences), totals, skipped)


def _line(difference: Difference) -> str:
    """One difference in words."""
    names = " / ".join(dict.fromkeys(name for name in (difference.a, difference.b) if name))
    if difference.a and difference.b:
        return f"{names}: {', '.join(map(_change, difference.changes))}"
    (layer,) = difference.changes
    return f"{names}: only in the {'first' if difference.a else 'second'}: {layer.a or layer.b}"


def _change(change: Change) -> str:
    return f"{change.what} {change.a or 'none'} -> {change.b or 'none'}"


def _changes(a: Mapping[str, str], b: Mapping[str, str]) -> tuple[Change, ...]:
    """The settings that differ; the order of steps only where the steps are of the same kinds."""
    names = dict.fromkeys((*a, *b))
    changes = [Change(name, a.get(name, ""), b.get(name, "")) for name in names if a.get(name) != b.get(name)]
    return tuple(each for each in changes if each.what != "order" or _kinds(each.a) == _kinds(each.b))


def _kinds(order: str) -> list[str]:
    return sorted(order.split(", "))


# --- what is compared --------------------------------------------------------------------------------------------


def _settings(layer: LayerNode) -> dict[str, str]:
    """What one chooses about a layer and what follows it."""
    return {
        "kind": layer.kind,
        "features": str(layer.num_features),
        **_window(layer),
        **_weights(layer),
        **_then(layer.steps),
    }


def _window(layer: LayerNode) -> dict[str, str]:
    """The window of a convolution."""
    window = layer.window
    if window is None:
        return {}
    return {
        "kernel size": shape_text(window.size),
        "strides": shape_text(window.strides),
        "padding": layer.padding,
        "dilation": shape_text(window.dilations),
        "input dilation": shape_text(window.base_dilations),
        "groups": str(window.num_groups),
    }


def _weights(layer: LayerNode) -> dict[str, str]:
    """Where its parameters come from."""
    if "#" in layer.name:
        return {"weights": "those of an earlier layer"}
    num_own = layer.num_params - int(np.prod(layer.kernel_shape)) * layer.num_repeats
    return {
        "parameters beside the kernel": str(num_own // layer.num_features),
        **({"repeats": str(layer.num_repeats)} if layer.num_repeats > 1 else {}),
    }


def _then(steps: Sequence[Step]) -> dict[str, str]:
    """What follows a layer, by kind, and its order where that matters."""
    ordered = _canonical(steps)
    kinds = dict.fromkeys(step.kind for step in ordered)
    texts = {
        kind: ", ".join(step.text.removeprefix("dropout ") for step in ordered if step.kind == kind) for kind in kinds
    }
    return {**texts, **({"order": ", ".join(step.kind for step in ordered)} if len(ordered) > 1 else {})}


def _canonical(steps: Sequence[Step]) -> list[Step]:
    """Steps without flattening, activations in front of the max pools that they commute with."""
    ordered: list[Step] = []
    for step in steps:
        place = len(ordered)
        while place and step.text.split()[0] in MONOTONE and "max pool" in ordered[place - 1].text:
            place -= 1
        if step.kind != "flatten":
            ordered.insert(place, step)
    return ordered


def _first_settings(graph: ModelGraph) -> dict[str, str]:
    """The images and what happens to them before the first layer."""
    places = {"image size": shape_text(graph.input_places)} if graph.input_places else {}
    return {**places, **_then(graph.first_steps)}


def _shapes(layer: LayerNode) -> dict[str, str]:
    """What follows from other settings: of this layer or of those before it."""
    places = {"output": shape_text(layer.output_places)} if layer.window else {}
    return {"inputs": str(layer.num_inputs), **places}


def _totals(graph: ModelGraph) -> dict[str, str]:
    """The network as a whole."""
    return {
        "parameters": f"{graph.num_params:,}",
        "parameters outside layers": f"{sum(other.num_params for other in graph.others):,}",
    }


def _words(layer: LayerNode) -> str:
    """A layer in one line."""
    window = f" {layer.window} {layer.padding}" if layer.window else ""
    return ", ".join((f"{layer.kind} {layer.num_features}{window}", *(step.text for step in layer.steps)))


# --- which layer stands for which --------------------------------------------------------------------------------


def _align(a: Sequence[LayerNode], b: Sequence[LayerNode]) -> list[tuple[LayerNode | None, LayerNode | None]]:
    """Pairs the layers of two sequences in order so that the pairs differ least; None where one stands alone."""
    costs = np.full((len(a) + 1, len(b) + 1), np.inf)
    costs[:, 0], costs[0, :] = GAP * np.arange(len(a) + 1), GAP * np.arange(len(b) + 1)
    pairs = np.array([[_pair_cost(one, other) for other in b] for one in a]).reshape(len(a), len(b))
    for i, j in np.ndindex(pairs.shape):
        alone = GAP + min(costs[i, j + 1], costs[i + 1, j])
        costs[i + 1, j + 1] = min(costs[i, j] + pairs[i, j], alone)
    aligned: list[tuple[LayerNode | None, LayerNode | None]] = []
    i, j = len(a), len(b)
    while i or j:
        if i and j and costs[i, j] == costs[i - 1, j - 1] + pairs[i - 1, j - 1]:
            i, j = i - 1, j - 1
            aligned.append((a[i], b[j]))
        elif i and costs[i, j] == GAP + costs[i - 1, j]:
            i -= 1
            aligned.append((a[i], None))
        else:
            j -= 1
            aligned.append((None, b[j]))
    return aligned[::-1]


def _pair_cost(a: LayerNode, b: LayerNode) -> float:
    """How much two layers differ; a convolution never stands for a dense layer."""
    if (a.window is None) != (b.window is None):
        return float("inf")
    own = sum(COSTS.get(change.what, COST) for change in _changes(_settings(a), _settings(b)))
    return own + SMALL_COST * len(_changes(_shapes(a), _shapes(b)))
