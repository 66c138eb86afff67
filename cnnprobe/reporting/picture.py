"""The network as a column of boxes: what each shows, where branches run beside them, and which are marked."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from cnnprobe.doctor.bands import healthy_band
from cnnprobe.reporting.formats import percent_text
from cnnprobe.types import Diagnosis, GraphRow, LayerRow

MOST_LANES = 4  # branches side by side that are drawn
SHORTEST_NAME = 3  # letters of a name that can be told from a word


class Lane(NamedTuple):
    """A piece of a line that runs beside one box."""

    number: int  # from the left
    is_start: bool  # it leaves the column here, in front of this box
    is_end: bool  # it joins the column here, behind this box


class Node(NamedTuple):
    """One box."""

    row: GraphRow
    lanes: tuple[Lane, ...]
    marks: tuple[str, ...]  # what is wrong, in words
    share: float  # of the parameters of all layers


def draw_nodes(diagnosis: Diagnosis) -> tuple[Node, ...]:
    """The boxes from the input to the last layer."""
    rows = diagnosis.graph
    lanes = branch_lanes(rows)
    total = sum(row.num_params for row in rows) or 1
    readings = {layer.name: layer for layer in diagnosis.layers}
    return tuple(
        Node(row, lanes[i], layer_marks(row.name, readings, diagnosis), row.num_params / total)
        for i, row in enumerate(rows)
    )


def branch_lanes(rows: Sequence[GraphRow]) -> list[tuple[Lane, ...]]:
    """For each row the lines of the branches that pass it.

    A branch from the output of one row to the join behind another runs beside all rows after the first of the two, in
    the leftmost lane that is free on all of them.
    """
    lanes: list[dict[int, Lane]] = [{} for _ in rows]
    branches = [(start + 1, end) for end, row in enumerate(rows) for start in row.branches if 0 <= start < end]
    for start, end in sorted(branches, key=lambda branch: branch[0] - branch[1]):
        passed = range(start, end + 1)
        free = (number for number in range(MOST_LANES) if not any(number in lanes[row] for row in passed))
        if (number := next(free, None)) is not None:
            for row in passed:
                lanes[row][number] = Lane(number, row == start, row == end)
    return [tuple(beside[number] for number in sorted(beside)) for beside in lanes]


def layer_marks(name: str, readings: dict[str, LayerRow], diagnosis: Diagnosis) -> tuple[str, ...]:
    """What is wrong with a layer: its own readings, and the findings whose evidence names it."""
    own = _reading_marks(readings[name]) if name in readings else []
    named = [
        f"named by {finding.cause}" for finding in diagnosis.findings if names_layer(finding.evidence.sentence, name)
    ]
    return (*own, *named)


def _reading_marks(layer: LayerRow) -> list[str]:
    """The readings of a layer that no healthy one has."""
    most_dead = healthy_band("dead unit share")[1]
    # The gradient of the weights alone is also NaN where a layer's kernel could not be told from its name.
    gradients = (layer.gradient_rms, layer.activation_gradient_rms)
    marks = {
        "gradient is not a number": not any(map(math.isfinite, gradients)),
        "no gradient": layer.gradient_rms == 0,
        "does not move": layer.log10_update_ratio == -math.inf,
        f"{percent_text(layer.dead_share)} dead units": most_dead is not None and layer.dead_share > most_dead,
    }
    return [text for text, is_wrong in marks.items() if is_wrong]


def names_layer(text: str, name: str) -> bool:
    """Whether a text names a layer or one of its arrays.

    >>> names_layer("All units of conv1/kernel are copies.", "conv1"), names_layer("conv10 is dead", "conv1")
    (True, False)
    """
    return len(name) >= SHORTEST_NAME and re.search(rf"(?<![\w/.-]){re.escape(name)}(?![\w#])", text) is not None
