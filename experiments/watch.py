"""Follows a running training in the terminal: curves, every layer, and alarms as the doctor raises them.

python -m experiments.watch --run_dir=runs/textures
python -m experiments.watch --run_dir=runs/textures --reading=dead_share --layer=conv --once

It reads what `cp.fit(..., directory=...)` and `experiments.train --directory=...` append step by step, and runs nothing
of the training. Ctrl-C ends it. In a pipe it prints a line whenever something was added.

Exit code 0: no alarm stands. 1: one does. 2: bad input, or with --once no log yet.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from experiments import cli, devices

if TYPE_CHECKING:
    from rich.console import Console

    from cnnprobe.reporting.live import Live

OF_PARAMETERS = ("log10_update_ratio", "gradient_norm", "gradient_zero_share")  # in every step
OF_LAYERS = (  # in every 16th
    "mean",
    "std",
    "max",
    "zero_share",
    "dead_share",
    "constant_share",
    "nonfinite_share",
    "gradient_rms",
    "no_gradient_share",
)
LOG = "readings.jsonl"
EVERY_LINE = 1_000_000  # a height that leaves nothing out

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run, with readings.jsonl in it.")
_READING = flags.DEFINE_enum("reading", OF_PARAMETERS[0], OF_PARAMETERS + OF_LAYERS, "What to show of every layer.")
_LAYER = flags.DEFINE_string("layer", None, "Show the layers whose name holds this text.")
_ONCE = flags.DEFINE_bool("once", False, "Show the present state and end.")
_REFRESH = flags.DEFINE_float("refresh_seconds", 1.0, "Time between two looks at the log.", lower_bound=0.1)


def states(path: Path, *, reading: str, refresh_seconds: float) -> "Iterator[Live | None]":
    """The run as it is at each look, without end; None while there is no log."""
    from cnnprobe.reporting.follow import follow
    from cnnprobe.reporting.live import Live, grown

    look, live = follow(path), Live()
    while True:
        growth = look()
        live = live if growth is None else grown(live, growth, reading=reading)
        yield None if growth is None else live
        time.sleep(refresh_seconds)


def run(
    *,
    run_dir: str,
    reading: str = OF_PARAMETERS[0],
    layer: str | None = None,
    once: bool = False,
    refresh_seconds: float = 1.0,
    console: "Console | None" = None,
) -> int:
    """Shows a run until Ctrl-C, or once; gives the exit code.

    Raises:
      cli.BadInputError: there is no log, and `once` does not wait for one.
    """
    from rich.console import Console

    path = Path(run_dir) / LOG
    console = console or Console(highlight=False)
    seen = states(path, reading=reading, refresh_seconds=refresh_seconds)
    if once:
        return _show_once(seen, path, console, reading, layer)
    show = _show_live if console.is_terminal else _show_lines
    return show(seen, path, console, reading, layer)


def _show_once(seen: "Iterator[Live | None]", path: Path, console: "Console", reading: str, layer: str | None) -> int:
    """The present state, with every layer."""
    from cnnprobe.reporting.live_view import view

    live = next(seen)
    if live is None:
        raise cli.BadInputError(f"run_dir must hold {LOG}, got {path.parent}.")
    console.print(view(live, str(path.parent), reading=reading, layer=layer, width=console.width, height=EVERY_LINE))
    return _exit_code(live)


def _show_live(seen: "Iterator[Live | None]", path: Path, console: "Console", reading: str, layer: str | None) -> int:
    """A view that is drawn anew at each look."""
    from rich.live import Live as Screen
    from rich.text import Text

    from cnnprobe.reporting.live_view import view

    live = None
    with Screen(Text("reading"), console=console, auto_refresh=False) as screen:
        try:
            for live in seen:
                sizes = {"width": console.width, "height": console.height}
                waits = Text(f"waiting for {path}")
                shown = waits if live is None else view(live, str(path.parent), reading=reading, layer=layer, **sizes)
                screen.update(shown, refresh=True)
        except KeyboardInterrupt:
            pass
    return _exit_code(live)


def _show_lines(seen: "Iterator[Live | None]", path: Path, console: "Console", reading: str, layer: str | None) -> int:
    """A line whenever steps were added, and one for each alarm that comes or goes."""
    from cnnprobe.reporting.live_view import alarm_lines, status_line

    del console, reading, layer  # a line has no room for layers
    before = live = None
    is_waiting = False
    try:
        for live in seen:
            if live is None:
                if not is_waiting:
                    print(f"waiting for {path}", flush=True)
                is_waiting = True
                continue
            for line in alarm_lines(before.alarms if before else (), live.alarms):
                print(line, flush=True)
            if before is None or live.num_steps != before.num_steps:
                print(status_line(live, str(path.parent)), flush=True)
            before = live
    except KeyboardInterrupt:
        pass
    return _exit_code(live)


def _exit_code(live: "Live | None") -> int:
    """Whether an alarm stands."""
    return cli.FAULTY if live is not None and any(alarm.until is None for alarm in live.alarms) else cli.HEALTHY


def main(argv: Sequence[str]) -> int:
    """Watches with the parsed flags."""
    del argv
    if _RUN_DIR.value is None:
        raise cli.BadInputError("run_dir must name the folder of a run, got none.")
    devices.choose_devices("cpu", 1)  # the accelerator is the training's own
    try:
        return run(
            run_dir=_RUN_DIR.value,
            reading=_READING.value,
            layer=_LAYER.value,
            once=_ONCE.value,
            refresh_seconds=_REFRESH.value,
        )
    except KeyboardInterrupt:  # before there was anything to show
        return cli.HEALTHY


if __name__ == "__main__":
    cli.launch(main)
