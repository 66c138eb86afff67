"""What the scripts share: exit codes, and one line for bad input where a traceback would tell the user nothing."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from absl import app, flags, logging

from experiments import config_flags

HEALTHY, FAULTY, BAD_INPUT, CRASHED = 0, 1, 2, 3


class BadInputError(ValueError):
    """What the user gave is at fault, and the message says why."""


@contextmanager
def bad_input() -> Iterator[None]:
    """Marks what the library refuses inside as bad input; what fails outside is a fault of the program."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        raise BadInputError(str(error)) from error


def launch(main: Callable[[Sequence[str]], int | None]) -> None:
    """Parses the flags, with those of `--config`, and runs `main`; its result is the exit code.

    `BadInputError` is one line on standard error and exit code 2. Anything else that is raised is its traceback and
    exit code 3, so that a program that broke is not taken for a fault that was found.
    """

    def guarded(argv: Sequence[str]) -> int | None:
        """`main` with its errors told apart."""
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # jax logs every kind of device that this machine lacks
        if len(argv) > 1:
            return _complain(ValueError(f"only flags are taken (see --help), got {' '.join(argv[1:])!r}."))
        try:
            return main(argv)
        except BadInputError as error:
            return _complain(error)
        except Exception:
            traceback.print_exc()
            return CRASHED

    config_flags.register()
    app.run(guarded, flags_parser=_parse)


def announce(directory: str | os.PathLike[str] | None, *, name: str = "config.json") -> None:
    """Prints what the script runs with, unless only its result is wanted, and stores it in its folder, if it has one.

    Raises:
      BadInputError: the folder cannot be written.
    """
    with bad_input():
        config_flags.announce(directory, name=name)


@contextmanager
def waiting(message: str, *, shown: bool = True) -> Iterator[Callable[[str], None]]:
    """Shows on standard error, if that is a terminal, that work goes on, and for how long.

    What it yields prints a line of news with the seconds so far, on a terminal or not.
    """
    import time

    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    started, console = time.monotonic(), Console(stderr=True, quiet=not shown, highlight=False)
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        bar.add_task(message, total=None)
        yield lambda words: console.print(f"{time.monotonic() - started:6.1f} s  {words}", markup=False)


def _parse(argv: Sequence[str]) -> list[str]:
    """The positional arguments; a bad flag ends the program."""
    try:
        positional = flags.FLAGS(argv)
        config_flags.apply_config()
        return positional
    except (flags.Error, ValueError) as error:
        sys.exit(_complain(error))


def _complain(error: Exception) -> int:
    """Prints the message in one line."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return BAD_INPUT
