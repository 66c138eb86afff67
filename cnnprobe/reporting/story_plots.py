"""Pictures of whole experiments: what every image was taken for, curves by epoch, effects with error bars."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cnnprobe.reporting.plots import BAND, INK, SICK, WELL, new_figure
from cnnprobe.types import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's, in an order in which neighbours differ most; more classes take them again, lighter.
CLASS_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#555555")
MAX_BATCHES = 150  # columns that can be told apart
ROW = 0.24  # inches of height for each bar


class Answers(NamedTuple):
    """What a run predicted, batch after batch."""

    predicted: Int[np.ndarray, "steps batch"]  # class of each image
    labels: Int[np.ndarray, "steps batch"]


class Flow(NamedTuple):
    """What one layer passes on."""

    gradient_rms: float  # of the loss by the layer's activations
    dead_share: float  # units that no image switches on, in [0, 1]; NaN for a layer without ReLU


def answers_figure(runs: Mapping[str, Answers], class_names: Sequence[str]) -> "Figure":
    """The predicted class of every image of the last batches: a column for each batch, its images sorted by label.

    A network that tells the images apart shows a band for each class; one that names a class for the whole batch shows
    columns of one colour.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    colours = ListedColormap([_class_colour(index) for index in range(len(class_names))])
    figure, _ = new_figure(0.5 + 1.35 * len(runs), rows=len(runs))
    for axes, (name, run) in zip(figure.axes, runs.items(), strict=True):
        last = slice(max(len(run.predicted) - MAX_BATCHES, 0), None)
        order = np.argsort(run.labels[last], axis=1, kind="stable")
        shown = np.take_along_axis(run.predicted[last], order, axis=1).T
        extent = (len(run.predicted) - shown.shape[1] - 0.5, len(run.predicted) - 0.5, len(shown), 0)
        axes.imshow(
            shown, cmap=colours, vmin=0, vmax=len(class_names) - 1, aspect="auto", interpolation="none", extent=extent
        )
        axes.set_title(name, loc="left", color=INK, fontsize=10, parse_math=False)
        axes.set_ylabel("images", color=INK, fontsize=9)
        axes.set_yticks([])
    figure.axes[-1].set_xlabel("batch")
    patches = [Patch(color=_class_colour(index), label=name) for index, name in enumerate(class_names)]
    legend = figure.legend(
        handles=patches, loc="outside upper left", ncols=4, frameon=False, labelcolor=INK, fontsize=8, handlelength=1
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a class may be named as it likes
    return figure


def histories_figure(
    histories: Mapping[str, History], *, chance: float, marks: Mapping[str, int] | None = None
) -> "Figure":
    """Training and validation accuracy of one or two runs after every epoch, and that of a blind guess.

    Args:
      histories: runs by name, the sick one first.
      chance: accuracy of the guess, in [0, 1].
      marks: epochs (from 1) to mark by a dotted line, by what they are.
    """
    figure, axes = new_figure(2.6)
    axes.axhline(chance, color=INK, linestyle="dotted", linewidth=1)
    axes.annotate(
        "blind guess",
        (0.99, chance),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        color=INK,
        fontsize=8,
    )
    colours = (SICK, WELL) if len(histories) > 1 else (WELL,)
    for (name, history), colour in zip(histories.items(), colours, strict=True):
        for part, scores, line in (("training", history.train, "-"), ("validation", history.valid, "--")):
            values = scores["accuracy"]
            label = f"{name}, {part}" if name else part
            axes.plot(np.arange(1, len(values) + 1), values, line, marker="o", markersize=3, color=colour, label=label)
    for name, epoch in (marks or {}).items():
        axes.axvline(epoch, color=INK, linestyle="dotted", linewidth=1)
        axes.annotate(f" {name}", (epoch, 1.0), xycoords=("data", "axes fraction"), va="top", color=INK, fontsize=8)
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.5, 1], labels=["0 %", "50 %", "100 %"])
    axes.set_xlabel("epoch")
    axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.6)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, labelcolor=INK, fontsize=8)
    return figure


def bars_figure(bars: Mapping[str, tuple[float, float]], *, unit: str, own: Sequence[str] = ()) -> "Figure":
    """Horizontal bars, the first on top, each with its spread; those named in `own` stand out.

    Args:
      bars: value and spread by name; NaN for a spread that is not known.
      unit: what the axis says.
      own: names of bars to colour.
    """
    figure, axes = new_figure(0.7 + ROW * max(len(bars), 1))
    values = np.array([value for value, _ in bars.values()])
    spreads = np.nan_to_num([spread for _, spread in bars.values()])
    colours = [WELL if name in own else BAND for name in bars]
    axes.barh(range(len(bars)), values, xerr=spreads, color=colours, ecolor=INK, height=0.7)
    axes.set_yticks(range(len(bars)), list(bars), fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_xlabel(unit)
    return figure


def flow_figure(networks: Mapping[str, Mapping[str, Flow]]) -> "Figure":
    """Gradients and dead units by depth, first layer on top, for two networks; x: no gradient at all."""
    deepest: Mapping[str, Flow] = max(networks.values(), key=len)
    layers = list(deepest)
    figure, _ = new_figure(1.1 + 0.4 * len(layers), rows=2)
    everything = [flow.gradient_rms for network in networks.values() for flow in network.values()]
    positive = [value for value in everything if np.isfinite(value) and value > 0] or [1.0]
    edge = min(positive) / 10
    styles = zip((SICK, WELL), ("s", "o"), strict=True)
    for (name, network), (colour, marker) in zip(networks.items(), styles, strict=False):
        depth = [layers.index(layer) for layer in network]
        rms = np.array([flow.gradient_rms for flow in network.values()])
        flows = np.isfinite(rms) & (rms > 0)
        style: dict[str, Any] = {"color": colour, "markersize": 5}
        figure.axes[0].plot(np.where(flows, rms, np.nan), depth, marker=marker, label=name, **style)
        figure.axes[0].plot(np.full(np.sum(~flows), edge), np.array(depth)[~flows], "x", **style)
        figure.axes[1].plot([flow.dead_share for flow in network.values()], depth, marker=marker, **style)
    figure.axes[0].set(
        xscale="log", xlim=(edge / 2, 3 * max(positive)), xlabel="rms of the gradient by the activations"
    )
    figure.axes[1].set(xlim=(-0.05, 1.05), xlabel="share of units that are dead")
    for axes in figure.axes:
        axes.set_ylim(len(layers) - 0.5, -0.5)
        axes.set_yticks(range(len(layers)), layers, fontsize=8, parse_math=False)
        axes.grid(axis="x", color=INK, alpha=0.25, linewidth=0.6)
    figure.legend(loc="outside upper right", ncols=2, frameon=False, labelcolor=INK, fontsize=9)
    return figure


def scaling_figure(
    sizes: Int[np.ndarray, " sizes"],
    accuracy: Float[np.ndarray, "runs sizes"],
    expected: Float[np.ndarray, " runs"],
    *,
    factor: float = 2.0,
) -> "Figure":
    """Accuracy by the number of training images, mean and spread over runs, and what the power law expects."""
    figure, axes = new_figure(2.4)
    numbers = np.asarray(sizes, float)
    axes.errorbar(numbers, accuracy.mean(axis=0), accuracy.std(axis=0, ddof=1), color=WELL, marker="o", capsize=3)
    ends = (numbers.max(), factor * numbers.max())
    axes.plot(ends, (accuracy[:, np.argmax(numbers)].mean(), expected.mean()), "--", color=SICK)
    axes.errorbar(ends[1:], expected.mean(), expected.std(ddof=1), color=SICK, marker="s", capsize=3)
    axes.set_xscale("log")
    ticks = [*numbers, ends[1]]
    axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("training images (square: expected)")
    axes.set_ylabel("accuracy on others", color=INK, fontsize=9)
    axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.6)
    return figure


def _class_colour(index: int) -> str:
    """The colour of a class; beyond eight classes they come again, half as strong."""
    colour = CLASS_COLOURS[index % len(CLASS_COLOURS)]
    if index < len(CLASS_COLOURS):
        return colour
    parts = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return "#" + "".join(f"{(part + 255) // 2:02x}" for part in parts)
