"""Pictures of a run: curves, heat maps, gradient flow, evidence beside its healthy band.

Each function returns a `matplotlib.figure.Figure` that belongs to no window and no global state. Colours are those of
Okabe and Ito, which colour-blind readers tell apart, and every line also has a shape of its own; backgrounds are
transparent and texts are a grey that can be read on white and on black.
"""

import io
import os
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped

from cnnprobe.checks import check_file_name
from cnnprobe.reporting.formats import is_healthy, number_text, place_on_strip, range_text
from cnnprobe.reporting.jsonfile import write_atomically
from cnnprobe.types import Curve, LayerRow, Reading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#757677"  # 4.5 : 1 on white and on black
SICK, WELL, BAND = "#d55e00", "#0072b2", "#009e73"  # vermilion, blue, bluish green
# What the page may repaint for its light and its dark side; the colour itself is the fall-back.
VARIABLES = {INK: "currentColor", SICK: f"var(--sick, {SICK})", WELL: f"var(--well, {WELL})"}
LINES: tuple[dict[str, Any], ...] = ({"color": SICK, "linestyle": (0, (4, 1.5))}, {"color": WELL, "linestyle": "solid"})
MAX_COLUMNS = 600  # of a heat map; longer runs are averaged in blocks of steps
MAX_NAMES = 40  # names that a vertical axis has room for


def loss_figure(curves: Mapping[str, Curve]) -> "Figure":
    """The loss at every step of one or two named runs, with its running mean; logarithmic where it must be."""
    figure, axes = new_figure(2.2)
    _draw_curves(axes, {name: curve.loss for name, curve in curves.items()})
    _scale_loss(axes, np.concatenate([curve.loss for curve in curves.values()]))
    _title(axes, "training loss")
    return figure


def accuracy_figure(curves: Mapping[str, Curve]) -> "Figure":
    """The training accuracy at every step of one or two named runs, with its running mean."""
    figure, axes = new_figure(2.2)
    _draw_curves(axes, {name: curve.accuracy for name, curve in curves.items()})
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.5, 1], labels=["0 %", "50 %", "100 %"])
    _title(axes, "training accuracy")
    return figure


def batch_figure(curve: Curve, class_names: Sequence[str] = ()) -> "Figure":
    """What the model predicted and what the labels were: share of the batch per class, one column a step.

    A model that names one class for this batch and another for the next shows as a single bright cell in every column
    of the upper map; batches that come sorted by class show the same in the lower one.
    """
    shares = [_column_shares(counts) for counts in (curve.prediction_counts, curve.label_counts)]
    num_classes = shares[0].shape[0]
    figure, _ = new_figure(2 * min(max(1.1, 0.6 + 0.13 * num_classes), 2.4), rows=2)
    highest = max(float(share.max(initial=0.0)) for share in shares) or 1.0
    for axes, share, title in zip(figure.axes, shares, ("predicted classes", "labels"), strict=True):
        extent = (-0.5, max(len(curve.loss), 1) - 0.5, num_classes - 0.5, -0.5)
        image = axes.imshow(
            share, cmap="cividis", vmin=0, vmax=highest, aspect="auto", interpolation="none", extent=extent
        )
        _title(axes, title)
        _name_rows(axes, class_names if len(class_names) == num_classes else [str(k) for k in range(num_classes)])
    figure.axes[0].set_xticklabels([])
    figure.axes[1].set_xlabel("step")
    bar = figure.colorbar(image, ax=figure.axes, shrink=0.6, pad=0.02)
    bar.set_label("share of the batch", color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=INK, labelsize=8)
    return figure


def gradient_figure(layers: Sequence[LayerRow]) -> "Figure":
    """Root mean square of the gradients by depth, first layer on top; the model learns where both are far from zero."""
    figure, axes = new_figure(0.9 + 0.24 * min(len(layers), MAX_NAMES))
    depth = np.arange(len(layers))
    series = {
        "of the activations": [layer.activation_gradient_rms for layer in layers],
        "of the weights": [layer.gradient_rms for layer in layers],
    }
    finite = [x for values in series.values() for x in values if np.isfinite(x) and x > 0] or [1.0]
    edge = min(finite) / 10
    for (label, values), style, marker in zip(series.items(), LINES, "so", strict=True):
        rms = np.array(values, dtype=float)
        shown = np.isfinite(rms) & (rms > 0)
        axes.plot(np.where(shown, rms, np.nan), depth, marker=marker, markersize=5, label=label, **style)
        axes.plot(np.full(np.sum(~shown), edge), depth[~shown], "x", color=style["color"], markersize=7)
    axes.set(xscale="log", xlim=(edge / 2, 3 * max(finite)), ylim=(len(layers) - 0.5, -0.5))
    axes.set_xlabel("rms of the gradient (x: zero or not a number)")
    axes.grid(axis="x", color=INK, alpha=0.25, linewidth=0.6)
    _name_rows(axes, [layer.name for layer in layers])
    _legend(figure)
    return figure


def evidence_figure(readings: Sequence[Reading]) -> "Figure":
    """Each reading as a dot beside its healthy band, each on a line of its own scale."""
    figure, axes = new_figure(0.35 + 0.5 * len(readings))
    for row, reading in enumerate(readings):
        strip = place_on_strip(reading)
        axes.hlines(row, 0, 1, color=INK, alpha=0.4, linewidth=0.8)
        if reading.healthy != (None, None):
            axes.hlines(row, strip.low, strip.high, color=BAND, alpha=0.45, linewidth=9)
        if strip.dot is not None:
            axes.plot(strip.dot, row, "o" if is_healthy(reading) else "D", color=WELL if is_healthy(reading) else SICK)
        text = f"{reading.name}: {number_text(reading.value)}  (healthy: {range_text(reading.healthy)})"
        axes.text(0, row - 0.22, text, fontsize=9, color=INK, va="bottom", parse_math=False)
    axes.set(xlim=(-0.02, 1.02), ylim=(max(len(readings), 1) - 0.6, -0.85))
    axes.set_axis_off()
    return figure


def figure_to_svg(figure: "Figure", *, name: str, label: str) -> str:
    """The figure as an `<svg>` element for a page.

    It has no fixed size, takes its colours and its font from the page, and asks for nothing from the network.

    Args:
      figure: what a function of this file returned.
      name: prefix of all ids inside, so that several figures can share a page; letters, digits and hyphens.
      label: what a screen reader says; plain text.

    Raises:
      ValueError: `name` holds anything else.
    """
    import matplotlib as mpl

    check_file_name("name", name)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)  # it would hold for the whole page
    # Inside of tags only: what stands between them may be the name of a layer or a class.
    svg = re.sub(r"<[^>]*>", lambda tag: _restyled(tag[0], name), svg)
    opening = f'<svg role="img" aria-label="{escape(label)}"'
    return re.sub(r'<svg(.*?) width="[^"]*" height="[^"]*"', lambda match: opening + match[1], svg, count=1)


def write_figure(figure: "Figure", path: str | os.PathLike[str], *, dpi: int) -> Path:
    """Writes the figure as a picture, replaced as a whole, and gives its path; the ending of `path` names the format.

    Raises:
      OSError: the folder cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format=Path(path).suffix[1:], dpi=dpi, facecolor="white")
    return write_atomically(path, buffer.getvalue())


def _restyled(tag: str, name: str) -> str:
    """One tag with the font and the colours of the page, and ids of the figure's own."""
    tag = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", tag)
    tag = re.sub(r'(<image[^>]*?) id="[^"]*"', r"\1", tag)  # equal images have equal ids, and no one refers to them
    tag = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", tag)
    for colour, variable in VARIABLES.items():
        tag = tag.replace(colour, variable)
    return tag


def new_figure(height: float, *, rows: int = 1) -> tuple["Figure", "Axes"]:
    """A figure as wide as a phone, `height` inches high, and its first axes."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('Plots need matplotlib: pip install "cnnprobe[report]"') from error
    figure = Figure(figsize=(4.0, height), layout="constrained")
    for axes in figure.subplots(rows, 1, squeeze=False)[:, 0]:
        axes.tick_params(colors=INK, labelsize=9)
        axes.xaxis.label.set(color=INK, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["bottom", "left"]].set_color(INK)
        axes.set_facecolor("none")
    return figure, figure.axes[0]


def _draw_curves(axes: "Axes", series: Mapping[str, Float[np.ndarray, " steps"]]) -> None:
    """Every step faint, the running mean bold, and a mark where a run stopped being a number."""
    for (name, values), style in zip(series.items(), LINES[-len(series) :], strict=True):
        axes.plot(values, color=style["color"], alpha=0.25, linewidth=0.8)
        axes.plot(_running_mean(values), linewidth=2, label=name, **style)
        broken = np.flatnonzero(~np.isfinite(values))
        if len(broken):
            axes.axvline(broken[0], color=style["color"], linestyle="dotted")
            place = (broken[0], 0.5)
            note = f" not finite from step {broken[0]}"
            axes.annotate(note, place, xycoords=("data", "axes fraction"), color=INK, fontsize=8, clip_on=True)
    axes.set_xlim(-0.5, max(map(len, series.values())))
    if not any(np.isfinite(values).any() for values in series.values()):
        axes.set_yticks([])
    axes.set_xlabel("step")
    axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.6)
    if len(series) > 1:
        _legend(axes.figure)


def _title(axes: "Axes", text: str) -> None:
    """A quiet heading above the left end of the axes."""
    axes.set_title(text, loc="left", color=INK, fontsize=10)


def _legend(figure: Any) -> None:
    """A legend above the axes, where no line can hide it."""
    figure.legend(loc="outside upper right", ncols=2, frameon=False, labelcolor=INK, fontsize=9)


def _running_mean(values: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " steps"]:
    """Mean over a twentieth of the run, of what is finite; NaN where the value itself is not."""
    if not len(values):
        return values
    window = np.ones(max(1, len(values) // 20))
    finite = np.isfinite(values)
    total = np.convolve(np.where(finite, values, 0.0), window, mode="same")
    count = np.convolve(finite, window, mode="same")
    return np.where(finite, total / np.maximum(count, 1), np.nan)


def _scale_loss(axes: "Axes", losses: Float[np.ndarray, " steps"]) -> None:
    """A logarithmic axis where the loss spans more than a linear one can show."""
    finite = losses[np.isfinite(losses)]
    if finite.size and finite.min() > 0 and finite.max() > 20 * finite.min():
        axes.set_yscale("log")
    elif finite.size and finite.min() <= 0 and np.abs(finite).max() > 100:
        axes.set_yscale("symlog")


def _column_shares(counts: Shaped[np.ndarray, "steps classes"]) -> Float[np.ndarray, "classes columns"]:
    """Share of the images per class, one column per step or, in a long run, per block of steps."""
    block = -(-len(counts) // MAX_COLUMNS) or 1
    sums = np.add.reduceat(counts, np.arange(0, len(counts), block), axis=0) if len(counts) else counts
    return (sums / np.maximum(sums.sum(axis=1, keepdims=True), 1)).T


def _name_rows(axes: "Axes", names: Sequence[str]) -> None:
    """Names beside the rows, every other or fewer where there are too many; long ones keep their end."""
    stride = -(-len(names) // MAX_NAMES) or 1
    short = [name if len(name) <= 20 else f"...{name[-17:]}" for name in names]
    axes.set_yticks(range(0, len(names), stride), labels=short[::stride], parse_math=False)
    axes.tick_params(axis="y", length=0, labelsize=8)
