"""The sweep of the step size as a picture and a file."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnprobe.reporting.jsonfile import to_json, write_atomically
from cnnprobe.reporting.plots import BAND, INK, WELL, new_figure, write_figure
from cnnprobe.training.rates import LearningRateRange

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "learning_rate_range"  # of both files


def rates_figure(found: LearningRateRange) -> "Figure":
    """The loss at every rate, faint, and smoothed, bold; a dot where it falls fastest, the range above it shaded."""
    figure, axes = new_figure(2.6)
    axes.plot(found.rates, found.losses, color=WELL, alpha=0.25, linewidth=0.8)
    axes.plot(found.rates, found.smoothed, color=WELL, linewidth=2)
    axes.set(xscale="log", ylim=_limits(found))
    axes.set_xlabel("multiple of the optimizer's own step")
    axes.set_title("training loss", loc="left", color=INK, fontsize=10)
    axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.6)
    if found.rates[0] <= 1 <= found.rates[-1]:
        axes.axvline(1, color=INK, linestyle=(0, (4, 2)), linewidth=1, label="your step")
    if np.isfinite(found.suggestion):
        axes.axvspan(found.suggestion, found.upper, color=BAND, alpha=0.15, linewidth=0)
        at = int(np.argmin(abs(np.log(found.rates / found.suggestion))))
        label = f"falls fastest: {found.suggestion:.2g}"
        axes.plot(found.suggestion, found.smoothed[at], "o", color=BAND, markersize=8, label=label)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper right", ncols=2, frameon=False, labelcolor=INK, fontsize=8)
    return figure


def write_learning_rate_range(found: LearningRateRange, directory: str | os.PathLike[str]) -> Path:
    """Writes `learning_rate_range.json` and `learning_rate_range.png`, and gives the path of the picture.

    Raises:
      OSError: `directory` cannot be written.
      ImportError: matplotlib is missing.
    """
    folder = write_atomically(Path(directory) / f"{NAME}.json", json.dumps(to_json(found), indent=1)).parent
    return write_figure(rates_figure(found), folder / f"{NAME}.png", dpi=150)


def _limits(found: LearningRateRange) -> tuple[float, float]:
    """Ends of the vertical axis: a loss that explodes is cut, or nothing else would be seen."""
    finite = found.losses[np.isfinite(found.losses)]
    if not finite.size:
        return 0.0, 1.0
    begun, low = float(np.max(finite[: len(found.losses) // 10 + 1])), float(finite.min())
    room = max(begun - low, 1e-3 * abs(begun), 1e-12)
    return low - 0.05 * room, begun + 0.6 * room
