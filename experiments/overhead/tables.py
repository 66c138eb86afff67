"""What the benchmark of overhead found: a table on the terminal, the same in markdown, JSON, a picture."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnprobe.reporting.jsonfile import write_atomically
from cnnprobe.reporting.plots import write_figure
from experiments.overhead.names import METHODS, NETWORKS
from experiments.overhead.timing import Row

COLUMNS = ("method", "time", "quartiles", "core time", "quartiles", "compile", "memory")
TARGETS = {"parameters": 1.01, "forward": 1.03, "backward": 1.05, "everything": 1.05, "cadence": 1.01, "fit": 1.01}
COMPILE_TARGET, MEMORY_TARGET = 1.3, 1.05


def blocks(rows: Sequence[Row]) -> dict[tuple[str, int], list[Row]]:
    """The rows of each network and number of devices."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row.network, row.devices), []).append(row)
    return found


def caption(network: str, devices: int, rows: Sequence[Row]) -> str:
    """What was measured, and how long the bare step takes."""
    spread = f", on each of {devices} devices" if devices > 1 else ""
    return f"{NETWORKS[network]}{spread}: {1e3 * rows[0].baseline_seconds:.0f} ms a step"


def cells(row: Row) -> list[str]:
    """One row of a table, as ratios to its baseline."""
    text = METHODS[row.method].text
    return [
        text if row.method not in TARGETS else f"{text} (target {TARGETS[row.method]:.2f})",
        f"{row.ratio:.3f}",
        f"{row.ratio_low:.3f} to {row.ratio_high:.3f}",
        f"{row.cpu_ratio:.3f}",
        f"{row.cpu_low:.3f} to {row.cpu_high:.3f}",
        *(f"{ratio:.2f}" if math.isfinite(ratio) else "-" for ratio in (row.compile_ratio, row.memory_ratio)),
    ]


def markdown(rows: Sequence[Row]) -> str:
    """The tables as they stand in `docs/benchmarks.md`."""
    parts = []
    for (network, devices), block in blocks(rows).items():
        lines = [COLUMNS, ("---",) * len(COLUMNS), *(cells(row) for row in block)]
        parts.append(f"**{caption(network, devices, block)}**\n")
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    return "\n".join(parts)


def scaling(rows: Sequence[Row]) -> str:
    """Ratios of time and of core time by the number of devices, in markdown; "" for one number of devices."""
    counts = sorted({row.devices for row in rows})
    if len(counts) < 2:
        return ""
    ratios = {(row.network, row.method, row.devices): f"{row.ratio:.3f}, {row.cpu_ratio:.3f}" for row in rows}
    pairs = dict.fromkeys((row.network, row.method) for row in rows)
    lines = [
        ["network", "method", *("1 device" if count == 1 else f"{count} devices" for count in counts)],
        ["---"] * (2 + len(counts)),
    ]
    for network, method in pairs:
        found = [ratios.get((network, method, count), "-") for count in counts]
        lines.append([network, METHODS[method].text, *found])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def print_rows(rows: Sequence[Row], left_out: Mapping[str, str]) -> None:
    """Prints a table for each network, and why a method is missing."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for (network, devices), block in blocks(rows).items():
        table = Table(*COLUMNS, title=caption(network, devices, block))
        for row in block:
            table.add_row(*cells(row))
        console.print(table)
    for method, reason in left_out.items():
        console.print(f"- {METHODS[method].text}: {reason}")


def write_rows(
    rows: Sequence[Row], facts: Mapping[str, Any], settings: Mapping[str, Any], directory: str | Path
) -> Path:
    """Writes `overhead.json`, `overhead.md` and `overhead.png` into a folder, which is made if need be."""
    folder = Path(directory)
    content = {"machine": facts, "settings": settings, "rows": [_finite(row._asdict()) for row in rows]}
    write_atomically(folder / "overhead.json", json.dumps(content, indent=1) + "\n")
    told = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    write_atomically(folder / "overhead.md", "\n".join(filter(None, (told + "\n", markdown(rows), scaling(rows)))))
    draw(rows, folder / "overhead.png")
    return folder


def _finite(fields: dict[str, Any]) -> dict[str, Any]:
    """NaN as null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in fields.items()
    }


def draw(rows: Sequence[Row], path: Path) -> None:
    """A bar for each method, from the bare step to its own time, with its quartiles."""
    from matplotlib.figure import Figure

    found = blocks(rows)
    most = max(len(block) for block in found.values())
    figure = Figure(figsize=(9, (1 + 0.28 * most) * len(found)), layout="constrained")
    panels = figure.subplots(len(found), squeeze=False).flat
    for axes, ((network, devices), block) in zip(panels, found.items(), strict=True):
        places = range(len(block))
        extra = [row.ratio - 1 for row in block]
        spread = [[row.ratio - row.ratio_low for row in block], [row.ratio_high - row.ratio for row in block]]
        axes.barh(places, extra, left=1, xerr=spread, color="#0072b2", ecolor="#757677", height=0.6)
        axes.axvline(1, color="#757677", linewidth=0.8)
        axes.set_yticks(places, [METHODS[row.method].text.replace("`", "") for row in block], fontsize=7)
        axes.invert_yaxis()
        axes.set_title(caption(network, devices, block), fontsize=9)
    axes.set_xlabel("time of a step, as a multiple of the bare step")
    write_figure(figure, path, dpi=120)
