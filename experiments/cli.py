"""What the scripts share: parsing that ends with exit code 2, and one line for bad input."""

import sys
from collections.abc import Callable, Sequence

from absl import app, flags

HEALTHY, FAULTY, BAD_INPUT = 0, 1, 2


def launch(main: Callable[[Sequence[str]], int | None]) -> None:
    """Parses the flags and runs `main`; its result is the exit code.

    A bad flag, and any `ValueError`, `OSError` or `ImportError` of `main`, is one line on standard error and exit code
    2: the library's messages name the argument, the rule and the value received.
    """

    def guarded(argv: Sequence[str]) -> int | None:
        try:
            refuse_arguments(argv)
            return main(argv)
        except (ValueError, OSError, ImportError) as error:
            return _complain(error)

    app.run(guarded, flags_parser=_parse)


def refuse_arguments(argv: Sequence[str]) -> None:
    """Raises `ValueError` if anything but flags was given."""
    if len(argv) > 1:
        raise ValueError(f"only flags are taken (see --help), got {' '.join(argv[1:])!r}.")


def _parse(argv: Sequence[str]) -> list[str]:
    """The positional arguments; a bad flag ends the program."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(_complain(error))


def _complain(error: Exception) -> int:
    """Prints the message in one line."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return BAD_INPUT
