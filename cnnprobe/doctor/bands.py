"""The healthy bands: for each fact, the range that healthy problems kept in the calibration runs.

`bands.json` is written by `experiments/calibrate.py` and by nothing else; a margin around a band belongs to the cause
that uses it.
"""

import json
from functools import cache
from importlib.resources import files


@cache
def _bands() -> dict[str, list[float | None]]:
    """All bands, by fact."""
    return json.loads((files("cnnprobe.doctor") / "bands.json").read_text())["bands"]


def healthy_band(name: str) -> tuple[float | None, float | None]:
    """The lowest and the highest value of a fact over the healthy calibration runs; open where there is none."""
    low, high = _bands().get(name, (None, None))
    return low, high
