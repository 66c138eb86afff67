"""A folder that holds a diagnosis: the page for people, the JSON for programs, the run step by step."""

import os
from pathlib import Path

from cnnprobe.reporting.html import render_html
from cnnprobe.reporting.jsonfile import write_atomically, write_json, write_readings
from cnnprobe.types import Diagnosis


def write_report(diagnosis: Diagnosis, directory: str | os.PathLike[str]) -> Path:
    """Writes `report.html`, `diagnosis.json` and `readings.jsonl` into `directory`, which is made if need be.

    Each file is replaced as a whole, so that a reader never sees half of one. The data come first: they are on the disk
    even if the page cannot be drawn.

    Returns:
      The path of the page.

    Raises:
      OSError: the folder cannot be written.
      ImportError: the page needs the extra `report`.
    """
    directory = Path(directory)
    write_json(diagnosis, directory / "diagnosis.json")
    write_readings(diagnosis.curve, directory / "readings.jsonl")
    return write_atomically(directory / "report.html", render_html(diagnosis))
