"""Flags of how a script prints what it found."""

from absl import flags

JSON = flags.DEFINE_bool("json", False, "Print the result as JSON and nothing else.")
QUIET = flags.DEFINE_bool("quiet", False, "Print one line and no progress; the exit code tells the rest.")


def is_silent() -> bool:
    """Whether anything but the result would be in the way."""
    return JSON.value or QUIET.value
