import sys
import tracemalloc

import numpy as np
import pytest

from cnnprobe.data.streaming import grain_batches
from cnnprobe.types import Dataset

grain = pytest.importorskip("grain")

NUMBERS = Dataset(np.arange(10.0).reshape(10, 1, 1, 1), np.arange(10))
FOUR = {"batch_size": 4, "num_threads": 2}


def shown(batches, epoch):
    """The labels of each batch."""
    return [labels.tolist() for _, labels in batches(epoch)]


def test_batches_are_pairs_of_arrays_that_belong_together():
    for images, labels in grain_batches(NUMBERS, **FOUR)(0):
        assert images.shape == (4, 1, 1, 1)
        np.testing.assert_array_equal(images.ravel(), labels)


def test_an_epoch_is_a_function_of_its_number():
    first, second = grain_batches(NUMBERS, **FOUR), grain_batches(NUMBERS, **FOUR)
    assert shown(first, 3) == shown(first, 3) == shown(second, 3)
    assert shown(first, 3) != shown(first, 4)


def test_seeds_give_other_orders():
    assert shown(grain_batches(NUMBERS, seed=1, **FOUR), 0) != shown(grain_batches(NUMBERS, seed=2, **FOUR), 0)


@pytest.mark.parametrize("epoch", [0, 2])
def test_an_epoch_shows_every_example_once_but_for_the_rest(epoch):
    whole = grain_batches(NUMBERS, batch_size=5)
    assert sorted(label for labels in shown(whole, epoch) for label in labels) == list(range(10))
    assert [len(labels) for labels in shown(grain_batches(NUMBERS, **FOUR), epoch)] == [4, 4]


def test_without_shuffling_the_order_is_the_stored_one():
    assert shown(grain_batches(NUMBERS, shuffle=False, **FOUR), 1) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_source_of_examples_is_read():
    source = [{"image": np.full((2, 2, 1), k), "label": k} for k in range(8)]
    assert shown(grain_batches(source, shuffle=False, **FOUR), 0) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_steps_of_the_users_own_are_drawn_anew_in_each_epoch():
    source = [{"image": np.zeros((2, 2, 1)), "label": k} for k in range(8)]
    noisy = grain.MapDataset.source(source).seed(0).random_map(lambda x, rng: x | {"image": rng.normal(size=(2, 2, 1))})
    batches = grain_batches(noisy, shuffle=False, **FOUR)
    first, again, other = (next(iter(batches(epoch)))[0] for epoch in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.any(first == other)


def test_memory_does_not_grow_with_the_set(tmp_path):
    images = np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.float32, (2000, 64, 64, 1))  # 33 MB
    tracemalloc.start()
    for _ in grain_batches(Dataset(images, np.zeros(2000, int)), batch_size=16)(0):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 11}, "batch_size must be at most 10, the number of examples, got 11"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"seed": 2**32}, "seed must be at most 4294967295, got 4294967296"),
        ({"num_threads": -1}, "num_threads must be a whole number of at least 0, got -1"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        grain_batches(NUMBERS, **{"batch_size": 4, **options})


def test_grain_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError, match=r'pip install "cnnprobe\[grain\]"'):
        grain_batches(NUMBERS, batch_size=4)


def test_examples_without_a_label_are_named():
    with pytest.raises(ValueError, match=r"must be a mapping with \"image\" and \"label\", got \['image'\]"):
        next(grain_batches([{"image": np.zeros((2, 2, 1))}] * 4, batch_size=2)(0))
