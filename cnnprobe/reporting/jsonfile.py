"""Diagnoses as strict JSON: every parser reads it, since NaN and infinity are not in it."""

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnnprobe.types import Curve, Diagnosis, Trial


def to_json(value: Any) -> Any:
    """A value in terms of what JSON holds.

    Records and mappings become objects, arrays become lists, functions their names, NaN null, and infinities the
    strings "inf" and "-inf". A `Trial` also holds its `gain` and `spread`.

    >>> to_json({"loss": float("nan"), "steps": np.arange(2), "peak": float("inf")})
    {'loss': None, 'steps': [0, 1], 'peak': 'inf'}
    """
    if isinstance(value, Trial):
        return {**to_json(value._asdict()), "gain": to_json(value.gain), "spread": to_json(value.spread)}
    if hasattr(value, "_asdict"):
        return to_json(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return to_json(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return _name(value)


def _name(value: Any) -> str:
    """What a function is called, or how any other object shows itself."""
    inner = getattr(value, "func", value)  # a `functools.partial` is named after its function
    return getattr(inner, "__qualname__", None) or str(value)


def diagnosis_to_dict(diagnosis: Diagnosis) -> dict[str, Any]:
    """The whole diagnosis as nested dicts and lists that `json.dumps(..., allow_nan=False)` takes."""
    return to_json(diagnosis)


def write_json(diagnosis: Diagnosis, path: str | os.PathLike[str]) -> Path:
    """Writes the diagnosis to `path` as JSON in one line: there is a count for each class in each batch."""
    text = json.dumps(diagnosis_to_dict(diagnosis), allow_nan=False, separators=(",", ":"))
    return write_atomically(path, f"{text}\n")


def write_readings(curve: Curve | None, path: str | os.PathLike[str]) -> Path:
    """Writes one JSON line a step: `step`, `loss`, `accuracy`, `prediction_counts`, `label_counts`.

    A run that never started (None) gives an empty file, so that a reader need not ask whether there is one.
    """
    rows = [] if curve is None else zip(*curve, strict=True)
    lines = (dict(zip(("step", *Curve._fields), (step, *row), strict=True)) for step, row in enumerate(rows))
    return write_atomically(path, "".join(json.dumps(to_json(line), allow_nan=False) + "\n" for line in lines))


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Writes to a temporary file beside `path`, then renames it: a reader sees the old file or the new one.

    Text is written as UTF-8; halves of characters, as in the names of broken files, are written as escapes.

    Raises:
      OSError: the folder cannot be written; the message names it.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OSError(f"{path.parent} must be a folder that can be written: {error.strerror}.") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
        Path(temporary).chmod(0o644)  # mkstemp grants the owner only
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
