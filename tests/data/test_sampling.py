import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnprobe.data.sampling import Subset, num_examples, sample, split, take, to_dataset
from cnnprobe.types import Dataset

IMAGES = np.arange(7 * 2 * 2 * 1, dtype=np.float32).reshape(7, 2, 2, 1)
LABELS = np.arange(7) * 10


def as_arrays(tmp_path):
    return Dataset(IMAGES, LABELS)


def as_jax(tmp_path):
    return Dataset(jnp.asarray(IMAGES), jnp.asarray(LABELS))


def as_lists(tmp_path):
    return Dataset(IMAGES.tolist(), LABELS.tolist())


def as_items(tmp_path):
    return [{"image": image, "label": label} for image, label in zip(IMAGES, LABELS, strict=True)]


def as_memmap(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    return Dataset(np.load(tmp_path / "images.npy", mmap_mode="r"), LABELS)


def as_subset(tmp_path):
    return Subset(Dataset(IMAGES[::-1], LABELS[::-1]), np.arange(7)[::-1])


@pytest.fixture(params=[as_arrays, as_jax, as_lists, as_items, as_memmap, as_subset])
def source(request, tmp_path):
    return request.param(tmp_path)


def test_num_examples_is_the_number_of_rows(source):
    assert num_examples(source) == 7


@pytest.mark.parametrize("indices", [[3, 0, 3], np.array([6]), jnp.array([1, 2])])
def test_take_reads_rows_in_the_order_asked_for(source, indices):
    images, labels = take(source, indices)
    np.testing.assert_array_equal(images, [IMAGES[i] for i in indices])
    np.testing.assert_array_equal(labels, [LABELS[i] for i in indices])


def test_take_returns_numpy(source):
    assert all(isinstance(field, np.ndarray) for field in take(source, [0]))


def test_take_of_nothing_is_empty(source):
    images, labels = take(source, [])
    assert len(images) == len(labels) == 0


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([7], r"indices must be in 0..6, got values from 7 to 7"),
        ([-1, 2], r"got values from -1 to 2"),
        ([0.5], r"list of integers, got shape \(1,\) of float64"),
        (3, r"list of integers, got shape \(\)"),
    ],
)
def test_take_refuses_bad_indices(source, indices, message):
    with pytest.raises(ValueError, match=message):
        take(source, indices)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"image": np.zeros((2, 2, 1))}, r"item 1 is the keys \['image'\]"),
        ({"picture": 1, 3: 4}, r"item 1 is the keys \['3', 'picture'\]"),
        ((np.zeros((2, 2, 1)), 0), r"item 1 is a tuple"),
        ({"image": np.zeros((3, 2, 1)), "label": 0}, r"item 0 has \(2, 2, 1\), item 1 has \(3, 2, 1\)"),
        ({"image": np.zeros((2, 2, 1)), "label": [0]}, r'"label" .* item 1 has \(1,\)'),
    ],
)
def test_take_names_the_bad_item(item, message):
    with pytest.raises(ValueError, match=message):
        take([{"image": np.zeros((2, 2, 1)), "label": 0}, item], [0, 1])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Dataset(IMAGES, LABELS[:5]), "got 7 images and 5 labels"),
        (Dataset(IMAGES, np.int32(3)), "labels must be an array with one row per example, got np.int32"),
        (iter([]), "source must be a Dataset or have len.* got list_iterator"),
        (None, "got NoneType"),
    ],
)
def test_num_examples_refuses_what_has_no_length(source, message):
    with pytest.raises(ValueError, match=message):
        num_examples(source)


class CountingArray(np.ndarray):
    reads = 0

    def __getitem__(self, index):
        CountingArray.reads += np.size(index)
        return np.asarray(self)[index]


def test_take_touches_only_the_rows_asked_for():
    CountingArray.reads = 0
    take(Dataset(IMAGES.view(CountingArray), LABELS), [1, 5])
    assert CountingArray.reads == 2


@given(st.integers(1, 20), st.integers(0, 2**31))
def test_sample_draws_without_replacement(num, seed):
    labels = sample(Dataset(IMAGES, LABELS), num, seed=seed).labels
    assert len(set(labels)) == len(labels) == min(num, 7)


def test_sample_keeps_pairs_together(source):
    images, labels = sample(source, 5, seed=1)
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels / 10 * 4)


def test_sample_reaches_every_example_alike():
    counts = sum(np.isin(LABELS, sample(Dataset(IMAGES, LABELS), 2, seed=seed).labels) for seed in range(700))
    np.testing.assert_allclose(counts, 200, atol=50)  # binomial(700, 2/7): standard deviation 12


def test_sample_is_a_function_of_its_seed(source):
    first, second, other = (sample(source, 6, seed=seed).labels.tolist() for seed in (4, 4, 5))
    assert first == second != other


def test_sample_refuses_none():
    with pytest.raises(ValueError, match="num must be a whole number of at least 1, got 0"):
        sample(Dataset(IMAGES, LABELS), 0)


@given(st.floats(0.1, 0.9), st.integers(0, 1000))
def test_split_parts_hold_every_example_once(share, seed):
    first, held_out = split(Dataset(IMAGES, LABELS), share, seed=seed)
    assert len(held_out.labels) == round(7 * share)
    assert sorted([*first.labels, *held_out.labels]) == LABELS.tolist()


def test_split_of_what_is_not_in_memory_is_a_view(tmp_path):
    for source in (as_items(tmp_path), as_memmap(tmp_path)):
        first, held_out = split(source, 0.3, seed=2)
        assert isinstance(first, Subset)
        np.testing.assert_array_equal(to_dataset(held_out).labels, split(as_arrays(tmp_path), 0.3, seed=2)[1].labels)


@pytest.mark.parametrize("share", [0.0, 1.0, 0.01, 0.99, -1, float("nan")])
def test_split_refuses_an_empty_part(share):
    with pytest.raises(ValueError, match=r"share must leave examples in both parts of 7, got"):
        split(Dataset(IMAGES, LABELS), share)


def test_subset_is_a_source(source):
    item = Subset(source, np.array([5, 2]))[1]
    assert (item["image"].shape, item["label"]) == ((2, 2, 1), 20)


def test_to_dataset_reads_everything(source):
    images, labels = to_dataset(source)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)


def test_to_dataset_leaves_a_data_set_alone():
    dataset = Dataset(jax.numpy.asarray(IMAGES), LABELS)
    assert to_dataset(dataset) is dataset
