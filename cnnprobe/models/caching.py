"""Sharing compiled programs between calls that are made of the same parts."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

MAX_PROGRAMS = 32  # kept alive; a diagnosis with all its trials needs about twenty


def cached(build: Callable[..., T]) -> Callable[..., T]:
    """`functools.lru_cache` that builds anew, instead of raising, where an argument cannot be hashed.

    >>> length = cached(len)
    >>> length((1, 2)), length([1, 2, 3])
    (2, 3)
    """
    remembered = functools.lru_cache(maxsize=MAX_PROGRAMS, typed=True)(build)

    @functools.wraps(build)
    def call(*args: Any, **kwargs: Any) -> T:
        """The remembered result where there can be one."""
        try:
            hash((args, tuple(kwargs.values())))
        except TypeError:
            return build(*args, **kwargs)
        return remembered(*args, **kwargs)

    return call
