"""What the benchmark of reading measures is what it says."""

import numpy as np
import pytest

from experiments import benchmark_data
from experiments.benchmark_data import BATCH_SIZE, READERS, SHAPE, Row, cells, measure, own_bytes
from experiments.figures import make_figures, write_figures

NUM_IMAGES = 300


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "images.npy"
    benchmark_data.write_images(path, NUM_IMAGES, seed=0)
    return path


@pytest.mark.parametrize("reader", READERS, ids=", ".join)
def test_readers_give_the_images_of_the_file_epoch_after_epoch(path, reader):
    batches, known = READERS[reader](path), {image.tobytes() for image in np.load(path)}
    for _ in range(2 * (NUM_IMAGES // BATCH_SIZE)):
        images, labels = next(batches)
        assert (images.shape, len(labels)) == ((BATCH_SIZE, *SHAPE), BATCH_SIZE)
        assert {np.asarray(image).tobytes() for image in images} <= known


def test_time_and_memory_are_of_the_batches_behind_the_first(monkeypatch):
    clock, kept = [0.0], []
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def batches():
        while True:
            clock[0] += 0.5
            kept.append(np.ones(2**23))  # 64 MiB: never from memory that was freed before
            yield kept

    seconds, grown = measure(batches(), 4)
    assert seconds == 0.5
    assert own_bytes() == 0 or grown >= 3 * 8 * 2**23


def test_a_row_is_held_against_a_step(tmp_path):
    row = Row("a file", "a loop", 20_000, 0.01, 0.2, 3 * 2**20)
    assert cells(row) == ("a file", "a loop", "20,000", "12,800", "5.0%", "3 MiB")
    folder = write_figures(make_figures(benchmark_data.HEADER, cells, [row], {"cores": 2}), tmp_path, "data")
    assert "12,800" in (folder / "data.md").read_text()
