"""What was seen of a problem: numbers and names, keyed by words that a report can print."""

import math
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnnprobe.doctor.bench import Bench
from cnnprobe.doctor.looks.loss import LossLook
from cnnprobe.doctor.run import Run
from cnnprobe.types import GraphRow, LayerRow

LONGEST = 300  # characters of an error that are kept
PACKAGE = Path(__file__).parents[1]


class Observation(NamedTuple):
    """Everything that the causes may read. A measurement that failed has no facts and stands in `failures`."""

    bench: Bench
    facts: Mapping[str, float]  # "input standard deviation", "label entropy", ...
    names: Mapping[str, str]  # "outputs": "probabilities", ...
    loss: LossLook | None
    run: Run | None
    layers: tuple[LayerRow, ...]
    failures: Mapping[str, str]  # measurement -> what its error said
    graph: tuple[GraphRow, ...] = ()  # the network as it is drawn
    num_settling: int = 0  # passes in which the run's statistics arrive; see `settle`


def fact(seen: Observation, name: str) -> float:
    """One measured number; NaN where it was not measured, which fails every comparison."""
    return seen.facts.get(name, math.nan)


def pairing_z(seen: Observation, *, of: str = "") -> float:
    """How clearly images tell their labels: standard deviations above shuffled ones, of the simple rule that is best.

    `of="stored "`: for the images as they are stored, not as they are fed.
    """
    return float(np.fmax(fact(seen, f"{of}pixel neighbours z"), fact(seen, f"{of}random features z")))


def error_text(error: Exception) -> str:
    """Kind and first line of an error, and the user's own line that raised it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:LONGEST]}{where}"


def _is_users(filename: str) -> bool:
    """Whether a file is neither cnnprobe's nor an installed library's."""
    return "site-packages" not in filename and PACKAGE not in Path(filename).parents and not filename.startswith("<")
