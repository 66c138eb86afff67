"""Times the reading of batches beside a training step, and the memory that it takes as the set grows.

python -m experiments.benchmark_data --set_sizes=20000,200000

The images are random bytes of 32x32x3; the step is that of the plain network of `benchmark_overhead`. A reader that
takes a small share of the step, and no more memory for a larger set, is not what a training waits for.
"""

import io
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from absl import flags

from experiments import cli

if TYPE_CHECKING:
    import numpy as np

Batches: TypeAlias = Iterator[tuple[Any, Any]]

_SIZES = flags.DEFINE_list("set_sizes", ["20000", "200000"], "Numbers of images in the set.")
_NUM_BATCHES = flags.DEFINE_integer("read_batches", 100, "Batches that are timed.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("data_dir", "runs/data", "Folder of the figures and the table.")

SHAPE, BATCH_SIZE = (32, 32, 3), 128
NUM_PNGS = 1000  # different images, however large the set
STEPS = 5  # that are timed, after one to warm up
HEADER = ("source", "reader", "images", "images a second", "share of a step", "memory grown by")

flags.register_validator(
    "set_sizes",
    lambda nums: bool(nums) and all(n.isdigit() and int(n) >= BATCH_SIZE for n in nums),
    f"must be whole numbers, {BATCH_SIZE} or more",
)


class Row(NamedTuple):
    """One reader on one set."""

    source: str
    reader: str
    num_images: int
    seconds: float  # of a batch, mean
    step_seconds: float  # of a training step, median
    grown_bytes: int  # of the process's own memory while it read, files that are mapped left out


def write_images(path: Path, num_images: int, *, seed: int) -> None:
    """A numpy file of random images, written in parts."""
    import numpy as np

    rng = np.random.default_rng(seed)
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(num_images, *SHAPE))
    for start in range(0, num_images, 10_000):
        part = images[start : start + 10_000]
        part[:] = rng.integers(0, 256, part.shape, np.uint8)
    images.flush()


def in_memory(path: Path) -> Batches:
    """The file read whole; batches are taken as `cp.fit` takes them of a `Dataset`."""
    import numpy as np

    return _own_batches(np.load(path))


def mapped(path: Path) -> Batches:
    """The same of a file that stays on the disk."""
    import numpy as np

    return _own_batches(np.load(path, mmap_mode="r"))


def _own_batches(images: "np.ndarray") -> Batches:
    """Batches of a `Dataset` in a random order."""
    import numpy as np
    import optax

    from cnnprobe.data.batching import endless_batches
    from cnnprobe.models.networks import small_cnn
    from cnnprobe.types import Dataset, Problem
    from experiments.problems import cross_entropy

    data = Dataset(images, np.zeros(len(images), np.int32))
    problem = Problem(small_cnn(10), cross_entropy, optax.sgd(0.1), data, num_classes=10, batch_size=BATCH_SIZE)
    return endless_batches(problem)


def read_ahead(path: Path) -> Batches:
    """The file on the disk, read by the threads of grain."""
    import numpy as np

    from cnnprobe.data.streaming import grain_batches
    from cnnprobe.types import Dataset

    images = np.load(path, mmap_mode="r")
    batches = grain_batches(Dataset(images, np.zeros(len(images), np.int32)), batch_size=BATCH_SIZE)
    return chain.from_iterable(map(batches, count()))


def decoded_ahead(path: Path) -> Batches:
    """PNG files in memory, decoded by the threads of grain."""
    import grain
    import numpy as np
    from PIL import Image

    from cnnprobe.data.streaming import grain_batches

    images = np.load(path, mmap_mode="r")
    files = []
    for image in images[:NUM_PNGS]:
        with io.BytesIO() as file:
            Image.fromarray(image).save(file, format="png")
            files.append(file.getvalue())

    def decode(index: int) -> Mapping[str, Any]:
        """One example."""
        return {"image": np.asarray(Image.open(io.BytesIO(files[index % len(files)]))), "label": 0}

    examples = grain.MapDataset.range(len(images)).map(decode)
    batches = grain_batches(examples, batch_size=BATCH_SIZE)
    return chain.from_iterable(map(batches, count()))


READERS: dict[tuple[str, str], Callable[[Path], Batches]] = {
    ("an array in memory", "cp.fit"): in_memory,
    ("a numpy file on the disk", "cp.fit"): mapped,
    ("a numpy file on the disk", "cp.grain_batches"): read_ahead,
    ("PNG files", "cp.grain_batches"): decoded_ahead,
}


def own_bytes() -> int:
    """Memory of this process that no file backs; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def measure(batches: Batches, num_batches: int) -> tuple[float, int]:
    """Seconds of a batch, after the first; and the most by which memory grew since then."""
    next(batches)
    before, most, start = own_bytes(), 0, time.perf_counter()
    for _ in range(num_batches):
        next(batches)
        most = max(most, own_bytes() - before)
    return (time.perf_counter() - start) / num_batches, most


def step_seconds() -> float:
    """Of the plain network's step, median."""
    import numpy as np

    from experiments.overhead.networks import NETWORKS
    from experiments.overhead.timing import make_runner

    runner = make_runner("bare", NETWORKS["plain"], 1)
    return float(np.median([runner.run(True)[0] for _ in range(STEPS + 1)][1:]))


def run(*, set_sizes: Sequence[int] = (20_000, 200_000), num_batches: int = 100) -> list[Row]:
    """Times every reader on sets of each size."""
    step, rows = step_seconds(), []
    for num_images in set_sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "images.npy"
            write_images(path, num_images, seed=0)
            for (source, reader), batches_of in READERS.items():
                with cli.waiting(f"{source}, {reader}, {num_images} images"):
                    seconds, grown = measure(batches_of(path), num_batches)
                    rows.append(Row(source, reader, num_images, seconds, step, grown))
    return rows


def cells(row: Row) -> tuple[str, ...]:
    """One row of the table."""
    speed, share = f"{BATCH_SIZE / row.seconds:,.0f}", f"{row.seconds / row.step_seconds:.1%}"
    return row.source, row.reader, f"{row.num_images:,}", speed, share, f"{row.grown_bytes / 2**20:.0f} MiB"


def main(argv: Sequence[str]) -> None:
    """Runs, prints the table, and stores it."""
    del argv
    cli.announce(_OUTPUT.value)
    from experiments.figures import make_figures, print_figures, write_figures
    from experiments.overhead.machine import machine_facts

    facts = machine_facts()
    rows = run(set_sizes=[int(size) for size in _SIZES.value], num_batches=_NUM_BATCHES.value)
    figures = make_figures(HEADER, cells, rows, facts)
    print_figures(figures)
    with cli.bad_input():
        print(f"Written: {write_figures(figures, _OUTPUT.value, 'data')}")


if __name__ == "__main__":
    cli.launch(main)
