"""Flags of how a script prints what it found."""

import sys
from contextlib import AbstractContextManager, nullcontext, redirect_stdout

from absl import flags

JSON = flags.DEFINE_bool("json", False, "Print the result as JSON and nothing else.")
QUIET = flags.DEFINE_bool("quiet", False, "Print one line and no progress; the exit code tells the rest.")


def is_silent() -> bool:
    """Whether anything but the result would be in the way."""
    return JSON.value or QUIET.value


def result_only() -> AbstractContextManager:
    """Sends what the user's own code prints to standard error, where standard output is for the result alone."""
    return redirect_stdout(sys.stderr) if is_silent() else nullcontext()
