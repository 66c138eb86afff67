"""The numbers of a run as TensorBoard reads them: curves, histograms and images.

The records are tensorboardX's, but they are written here and at once: its own writer hands them to a thread, which is
lost without a word when the disk is full, and then everything waits for it.
"""

import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from cnnprobe.reporting.writers import close_held
from cnnprobe.training.journal import append_bytes
from cnnprobe.types import AnyArray, Writer

NUM_BINS = 64  # of a histogram
DRAWN = (1, 3, 4)  # channels that a picture can have


def tensorboard_writer(directory: str | os.PathLike[str]) -> Writer:
    """Writes scalars, histograms and images into a folder for `tensorboard --logdir`.

    A run that goes on opens a new file there, whose beginning makes TensorBoard forget the points after the checkpoint.
    Its functions raise `OSError` where the folder cannot be written.

    Raises:
      ImportError: tensorboardX is not installed.
    """
    try:
        from tensorboardX import summary
        from tensorboardX.proto.summary_pb2 import Summary
    except ImportError as error:
        raise ImportError('TensorBoard files need tensorboardX: pip install "cnnprobe[tensorboard]"') from error
    folder, held = Path(directory), list[FileIO]()

    def begin(step: int) -> None:
        """Opens a file behind those that are there."""
        close_held(held)
        held.append(_open_events(folder))
        _add(held[0], step=step, file_version="brain.Event:2")
        _add(held[0], step=step, session_log=_session_start())

    def write(step: int, values: Mapping[str, Any], make: Callable[[str, Any], Any]) -> None:
        """One event with all the values; a folder that was not begun begins here."""
        if not held:
            begin(step)
        made = [make(name, value).value for name, value in values.items()]
        _add(held[0], step=step, summary=Summary(value=[each for values in made for each in values]))

    def scalar(name: str, value: Any) -> Any:
        """One number, whatever it is: tensorboardX would print a line for each that is not finite."""
        return Summary(value=[Summary.Value(tag=name, simple_value=float(value))])

    def histogram(name: str, values: AnyArray) -> Any:
        """Of the finite entries; nothing where there are none."""
        finite = np.asarray(values, np.float64).ravel()
        finite = finite[np.isfinite(finite)]
        return summary.histogram(name, finite, NUM_BINS) if finite.size else Summary()

    def image(name: str, pixels: AnyArray) -> Any:
        """A picture; nothing of what is none."""
        drawn = as_picture(pixels)
        return summary.image(name, drawn, dataformats="HWC") if drawn is not None else Summary()

    return Writer(
        os.fspath(directory),
        begin,
        lambda step, values: write(step, values, scalar),
        lambda: close_held(held),
        lambda step, values: write(step, values, histogram),
        lambda step, values: write(step, values, image),
    )


def as_picture(pixels: AnyArray) -> Shaped[np.ndarray, "height width channels"] | None:
    """An image as bytes: bytes as they are, numbers from 0 to 1 scaled, others stretched from the least to the largest.

    Channels that no picture has are averaged. None for an array that is no image.
    """
    array = np.asarray(pixels)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or not array.size:
        return None
    if array.dtype == np.uint8 and array.shape[2] in DRAWN:
        return array
    array = np.nan_to_num(array.astype(np.float64), posinf=0.0, neginf=0.0)
    array = array if array.shape[2] in DRAWN else array.mean(axis=2, keepdims=True)
    low, high = min(array.min(), 0.0), max(array.max(), 1.0)
    if low < 0 or high > 1:
        low, high = array.min(), array.max()
    return np.round(255 * (array - low) / max(high - low, 1e-12)).astype(np.uint8)


def _open_events(folder: Path) -> FileIO:
    """A new file that sorts behind the older ones: TensorBoard reads them in the order of their names."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("events.out.tfevents.*")))
        name = f"events.out.tfevents.{int(time.time()):010d}.{number:04d}.{socket.gethostname()}"
        return (folder / name).open("xb", buffering=0)
    except OSError as error:
        raise OSError(f"{folder} must be a folder that can be written: {error.strerror}.") from error


def _session_start() -> Any:
    """What makes TensorBoard forget all points from the event's step on."""
    from tensorboardX.proto.event_pb2 import SessionLog

    return SessionLog(status=SessionLog.START)


def _add(file: FileIO, **content: Any) -> None:
    """Writes one event, framed as a TFRecord: length, its checksum, the event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    data = Event(wall_time=time.time(), **content).SerializeToString()
    length = struct.pack("<Q", len(data))
    frame = (length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data)))
    append_bytes(file, b"".join(frame))
