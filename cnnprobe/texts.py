"""Texts that came with a stranger's files: names that a terminal or a page must not act on."""

import re
from collections.abc import Mapping
from typing import Any

# Control characters but for tabs and ends of lines, and halves of characters, as in file names that are no UTF-8.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text with escapes for what cannot be printed, or would move the cursor of a terminal.

    >>> printable("\x1b[31mred")
    '\\x1b[31mred'
    """
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def all_printable(value: Any) -> Any:
    """A record, tuple or mapping with all its texts printable; anything else as it is."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(all_printable, value))
    if isinstance(value, tuple | list):
        return type(value)(map(all_printable, value))
    if isinstance(value, Mapping):
        return {all_printable(key): all_printable(item) for key, item in value.items()}
    return value
