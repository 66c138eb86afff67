"""Clear errors for bad arguments: each names the argument, the rule and the value received."""

import inspect
import re
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import jax
import numpy as np

PACKAGE = Path(__file__).parent
NO_TIME = "no time was left"  # why something was not done


def check_numbers(name: str, x: Any) -> None:
    """Raises `ValueError` unless `x` is an array of real numbers or truth values, or can be read as one."""
    try:
        dtype = x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype
    except ValueError:  # rows of several lengths
        raise ValueError(f"{name} must be an array of real numbers, got {x!r:.200}.") from None
    if not is_real(dtype):
        raise ValueError(f"{name} must be an array of real numbers, got {f'dtype {dtype}' if np.ndim(x) else repr(x)}.")


def is_real(dtype: Any) -> bool:
    """Whether a dtype holds real numbers or truth values; the small floats of machine learning do."""
    return any(jax.dtypes.issubdtype(dtype, kind) for kind in (np.floating, np.integer, np.bool_))


def check_rank(name: str, x: Any, rank: int) -> None:
    """Raises `ValueError` unless `x` holds real numbers on exactly `rank` axes."""
    check_numbers(name, x)
    shape = np.shape(x)
    if len(shape) != rank:
        raise ValueError(f"{name} must have {rank} axes, got shape {shape}.")


def check_counts(name: str, x: Any) -> None:
    """Raises `ValueError` unless `x` holds counts, whole numbers of 0 or more, on two axes."""
    check_rank(name, x, 2)
    values = np.asarray(x)
    if np.shape(x)[1] == 0 or not np.all((values >= 0) & (values == np.round(values)) & np.isfinite(values)):
        raise ValueError(f"{name} must hold whole numbers of at least 0 for each class, got {values!r:.200}.")


def check_same_length(name: str, x: Any, other_name: str, other: Any) -> None:
    """Raises `ValueError` unless both have as many rows."""
    if np.shape(x)[:1] != np.shape(other)[:1]:
        raise ValueError(
            f"{name} and {other_name} must have as many rows, got shapes {np.shape(x)} and {np.shape(other)}."
        )


def check_at_least(name: str, value: Any, lowest: float) -> None:
    """Raises `ValueError` unless `value` is a number that is not below `lowest`."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not value >= lowest:
        raise ValueError(f"{name} must be a number of at least {lowest}, got {value!r}.")


def check_integer(name: str, value: Any, lowest: int) -> None:
    """Raises `ValueError` unless `value` is a whole number that is not below `lowest`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < lowest:
        raise ValueError(f"{name} must be a whole number of at least {lowest}, got {value!r}.")


def check_callable(name: str, value: Any) -> None:
    """Raises `ValueError` unless `value` can be called."""
    if not callable(value):
        raise ValueError(f"{name} must be a function, got {value!r}.")


def check_one_of(name: str, value: Any, known: Collection[str]) -> None:
    """Raises `ValueError` unless `value` is one of `known`."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(sorted(known))}, got {value!r}.")


def check_optional(check: Callable[..., None], name: str, value: Any, *rest: Any) -> None:
    """Runs `check` unless `value` is None."""
    if value is not None:
        check(name, value, *rest)


def check_file_name(name: str, value: Any) -> None:
    """Raises `ValueError` unless `value` is letters, digits, `-` and `_`: a file name that stays in its folder."""
    if not isinstance(value, str) or not re.fullmatch(r"[\w-]+", value):
        raise ValueError(f"{name} must be letters, digits, '-' and '_', got {value!r}.")


def place_of(function: Any) -> str:
    """Where a user's function is written, for the end of a message: ` (train.py, line 12)`; else nothing."""
    inner = inspect.unwrap(getattr(function, "func", function))  # the inside of a `functools.partial`
    code = getattr(inner, "__code__", None) or getattr(vars(type(inner)).get("__call__"), "__code__", None)
    if code is None or PACKAGE in Path(code.co_filename).parents:
        return ""
    return f" ({Path(code.co_filename).name}, line {code.co_firstlineno})"


def check_time(deadline: float) -> None:
    """Raises `TimeoutError` once `time.monotonic()` has passed `deadline`."""
    if time.monotonic() > deadline:
        raise TimeoutError(NO_TIME)
