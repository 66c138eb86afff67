"""The numbers of a run as Weights & Biases keeps them, on this machine only: `wandb sync` uploads them."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnprobe.reporting.tensorboard import as_picture
from cnnprobe.types import AnyArray, Writer

QUIET: Mapping[str, Any] = {  # nothing but what is written: no console, no facts of the machine, no watching of it
    "console": "off",
    "silent": True,
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
}


def wandb_writer(directory: str | os.PathLike[str], *, project: str = "cnnprobe") -> Writer:
    """Writes an offline run of Weights & Biases into `directory/wandb`; nothing is sent.

    What an offline run holds cannot be taken back. A run that goes on at a step is a run of its own, `from-STEP`, in
    the group of the first one, which is named after the folder; where both have a step, the later run counts.

    Raises:
      ImportError: wandb is not installed.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # which would call home, offline or not
    try:
        import wandb
    except ImportError as error:
        raise ImportError('Runs of Weights & Biases need wandb: pip install "cnnprobe[wandb]"') from error
    folder, held = Path(directory).resolve(), list[Any]()

    def begin(step: int) -> None:
        """Starts an offline run."""
        close()
        held.append(_start(folder, project, step))

    def write(step: int, values: Mapping[str, Any], make: Callable[[Any], Any]) -> None:
        """Adds values to a step; a folder that was not begun begins here."""
        if not held:
            begin(step)
        held[0].log({name: made for name, value in values.items() if (made := make(value)) is not None}, step=step)

    def histogram(values: AnyArray) -> Any:
        """Of the finite entries; None where there are none."""
        array = np.asarray(values, np.float64)
        finite = array[np.isfinite(array)]
        return wandb.Histogram(finite.tolist()) if finite.size else None

    def image(pixels: AnyArray) -> Any:
        """A picture; None of what is none."""
        drawn = as_picture(pixels)
        return None if drawn is None else wandb.Image(drawn)

    def close() -> None:
        """Ends the run, if there is one."""
        while held:
            held.pop().finish()

    return Writer(
        os.fspath(directory),
        begin,
        lambda step, values: write(step, values, float),
        close,
        lambda step, values: write(step, values, histogram),
        lambda step, values: write(step, values, image),
    )


def _start(folder: Path, project: str, step: int) -> Any:
    """A new offline run in a folder, which is made if need be."""
    import wandb

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder} must be a folder that can be written: {error.strerror}.") from error
    return wandb.init(
        project=project,
        dir=str(folder),
        mode="offline",
        group=folder.name,
        name=f"from-{step}",
        reinit="create_new",
        settings=wandb.Settings(**QUIET),
    )
