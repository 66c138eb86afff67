"""Facts about the machine that a timing cannot be read without."""

import os
import platform
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config_flags import installed_version

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")
NUM_NUMBERS = 2**26  # float32, 256 MiB: far more than any cache holds


def machine_facts() -> dict[str, Any]:
    """Processor, memory, device, versions and load."""
    return {
        "processor": _line_of("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": _line_of("/proc/meminfo", "MemTotal"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "read gigabytes a second": round(read_bandwidth(), 1),
        **{name: version for name in PACKAGES if (version := installed_version(name))},
    }


def read_bandwidth() -> float:
    """Gigabytes that one sum over a large array reads in a second; median of five."""
    x = jnp.ones(NUM_NUMBERS)
    total = jax.jit(jnp.sum)
    total(x).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        total(x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return float(x.nbytes / np.median(seconds) / 1e9)


def _line_of(path: str, name: str) -> str:
    """The value of the first line of a file that begins with `name`; "" without one."""
    lines = Path(path).read_text().splitlines() if Path(path).exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")
