"""Which devices a script runs on, and how it becomes several processes; free of heavy imports."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

POLL_SECONDS = 0.1


def choose_devices(backend: str | None, num_devices: int) -> None:
    """Makes jax use a backend, and so many virtual devices where that is the CPU; before jax is first imported."""
    os.environ |= {"JAX_PLATFORMS": {"gpu": "cuda"}.get(backend, backend)} if backend else {}
    os.environ |= {"JAX_NUM_CPU_DEVICES": str(num_devices)} if num_devices > 1 else {}


def join_processes(coordinator: str | None, num_processes: int, process_id: int | None) -> None:
    """Makes this process one of several that train together; before jax is first used.

    Raises:
      ValueError: no coordinator is named.
    """
    import jax

    if coordinator is None:
        raise ValueError("coordinator must be the HOST:PORT of the first process where process_id is given, got None.")
    jax.distributed.initialize(coordinator, num_processes, process_id)


def first_devices(num_devices: int) -> list[Any]:
    """So many devices of each process.

    Raises:
      ValueError: a process has fewer.
    """
    import jax

    found: dict[int, list[Any]] = {}
    for device in jax.devices():
        found.setdefault(device.process_index, []).append(device)
    fewest = min(map(len, found.values()))
    if fewest < num_devices:
        raise ValueError(f"devices must be at most {fewest}, which jax has here, got {num_devices}.")
    return [device for group in found.values() for device in group[:num_devices]]


def start_processes(module: str, num_processes: int) -> int:
    """Runs a script in several local processes and gives their exit code: the first that is not 0 ends them all.

    Each gets the flags of this one and says which of them it is. Only the first one's output is shown.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, "-m", module, *sys.argv[1:], f"--coordinator={coordinator}"]
    processes = [
        subprocess.Popen([*command, f"--process_id={number}"], stdout=subprocess.DEVNULL if number else None)
        for number in range(num_processes)
    ]
    try:
        return _wait(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _wait(processes: Sequence[subprocess.Popen]) -> int:
    """Waits until all have ended well or one has not."""
    while True:
        codes = [process.poll() for process in processes]
        if failed := [code for code in codes if code]:
            return failed[0]
        if all(code == 0 for code in codes):
            return 0
        time.sleep(POLL_SECONDS)
