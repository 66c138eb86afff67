"""What was seen of a problem: numbers and names, keyed by words that a report can print."""

from collections.abc import Mapping
from typing import NamedTuple

from cnnprobe.doctor.bench import Bench
from cnnprobe.doctor.looks.loss import LossLook
from cnnprobe.doctor.run import Run
from cnnprobe.types import LayerRow


class Observation(NamedTuple):
    """Everything that the causes may read. A measurement that failed has no facts and stands in `failures`."""

    bench: Bench
    facts: Mapping[str, float]  # "input std", "label entropy", ...
    names: Mapping[str, str]  # "outputs": "probabilities", ...
    loss: LossLook | None
    run: Run | None
    layers: tuple[LayerRow, ...]
    failures: Mapping[str, str]  # measurement -> what its error said
