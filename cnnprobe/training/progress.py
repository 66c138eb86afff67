"""A progress bar with the time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

Tick: TypeAlias = Callable[[int, int | None, str], None]  # (steps done, steps in all if known, words to show)


@contextmanager
def progress_bar(*, shown: bool = True) -> Iterator[Tick]:
    """A bar on the terminal, as the function that moves it; nothing if it is not to be shown."""
    if not shown:
        yield _nothing
        return
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns) as bar:
        task = bar.add_task("compiling", total=None)
        yield lambda done, total, words: bar.update(task, completed=done, total=total, description=words)


def _nothing(*_: int | str | None) -> None:
    """Shows nothing."""
