"""One writer for a folder: a lock that the system takes back when its holder ends, however it ends."""

import os
from pathlib import Path
from typing import TextIO

LOCK_FILE = ".lock"


def hold_folder(folder: Path) -> TextIO:
    """Keeps a folder for this run until the returned file is closed, or the process ends.

    A file that is merely there would outlive a killed run; the system's lock on it does not. Where a file system has no
    locks, nobody is kept out.

    Raises:
      ValueError: another run holds the folder.
    """
    file = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    if not _is_locked(file):
        file.seek(0)
        holder = file.read()
        file.close()
        raise ValueError(f"directory must hold no run that is still going, got {folder}, where process {holder} runs.")
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _is_locked(file: TextIO) -> bool:
    """Locks the file for this opening of it; False if another one has it locked."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return True
    return True
