import itertools

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnprobe.data.batching import epoch_batches, num_batches, reshuffle
from cnnprobe.types import Batch, Dataset, Model, Problem


def problem_of(num=10, **fields):
    images = np.arange(num, dtype=np.float32).reshape(num, 1, 1, 1)
    model = Model(init=lambda key, images: ({}, {}), apply=lambda *args, **kwargs: (args[2], {}))
    problem = Problem(model, lambda outputs, labels: 0.0, optax.sgd(0.1), Dataset(images, np.arange(num)), batch_size=4)
    return problem._replace(**fields)


def labels_of(batches):
    return [batch.labels.tolist() for batch in batches]


def test_unshuffled_batches_come_as_stored():
    assert labels_of(epoch_batches(problem_of(shuffle=False), 3)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_images_and_labels_stay_together():
    for images, labels in epoch_batches(problem_of(), 0):
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels)


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 5))
def test_an_epoch_shows_no_example_twice_and_leaves_out_less_than_one_batch(num, batch_size, epoch):
    batches = labels_of(epoch_batches(problem_of(num, batch_size=batch_size), epoch))
    shown = list(itertools.chain(*batches))
    assert len(set(shown)) == len(shown) > num - batch_size
    assert {len(batch) for batch in batches} == {min(num, batch_size)}


def test_every_epoch_has_an_order_of_its_own():
    first, second, again = (labels_of(epoch_batches(problem_of(), epoch)) for epoch in (0, 1, 0))
    assert first == again != second


def test_seed_replaces_the_seed_of_the_problem():
    other = labels_of(epoch_batches(problem_of(seed=7), 0))
    assert labels_of(epoch_batches(problem_of(), 0, seed=7)) == other != labels_of(epoch_batches(problem_of(), 0))


@pytest.mark.parametrize("epoch", [-1, 1.5, True])
def test_epoch_must_be_a_number(epoch):
    with pytest.raises(ValueError, match="epoch must be a whole number of at least 0"):
        epoch_batches(problem_of(), epoch)


@pytest.mark.parametrize(("field", "lowest", "value"), [("batch_size", 1, 0), ("seed", 0, -1)])
def test_bad_fields_are_named(field, lowest, value):
    with pytest.raises(ValueError, match=f"{field} must be a whole number of at least {lowest}, got {value}"):
        epoch_batches(problem_of(**{field: value}), 0)


def test_an_empty_set_has_no_batches():
    assert list(epoch_batches(problem_of(0), 0)) == []
    assert num_batches(problem_of(0)) == 0


@given(st.integers(1, 40), st.integers(1, 50))
def test_num_batches_counts_them(num, batch_size):
    problem = problem_of(num, batch_size=batch_size)
    assert num_batches(problem) == len(list(epoch_batches(problem, 0)))


class Tensor:  # like torch's: an array only through the protocol
    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray, Tensor, list, lambda x: x.astype(ml_dtypes.bfloat16)])
def test_a_loader_yields_any_kind_of_array(convert):
    problem = problem_of(batches=lambda epoch: [[convert(np.full((2, 1), epoch)), convert(np.arange(2))]])
    (batch,) = epoch_batches(problem, 3)
    assert isinstance(batch, Batch)
    np.testing.assert_array_equal(batch.images.astype(int), [[3], [3]])


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (lambda: None, "got NoneType"),
        (lambda: [np.zeros((2, 1))], "must yield pairs .* got a ndarray at batch 0"),
        (lambda: [(1, 2, 3)], "got 3 values at batch 0"),
        (lambda: [{"image": 1, "label": 2}], "got a dict at batch 0"),
        (lambda: [(np.zeros((2, 1)), np.zeros(3))], r"got shapes \(2, 1\) and \(3,\) at batch 0"),
        (lambda: [(np.zeros(()), np.zeros(()))], r"got shapes \(\) and \(\)"),
        (lambda: [(["a.png"], [0])], "must yield images of numbers, got <U5"),
        (lambda: [([[1], [1, 2]], [0, 1])], "yields images that are no array at batch 0"),
    ],
)
def test_a_loader_of_anything_but_pairs_is_refused(loader, message):
    with pytest.raises(ValueError, match=message):
        list(epoch_batches(problem_of(batches=lambda epoch: loader()), 0))


def test_num_batches_of_a_loader_is_unknown():
    assert num_batches(problem_of(batches=lambda epoch: [])) is None


def test_reshuffle_of_arrays_sets_the_switch():
    problem = problem_of(shuffle=False)
    assert reshuffle(problem) == problem._replace(shuffle=True)


def sorted_loader(epoch):
    for start, stop in [(0, 4), (4, 8), (8, 10)]:
        yield np.full((stop - start, 2), 0.5), np.arange(start, stop)


def test_reshuffle_redeals_the_loader_in_batches_of_the_same_sizes():
    batches = labels_of(epoch_batches(reshuffle(problem_of(batches=sorted_loader)), 0))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(itertools.chain(*batches)) == list(range(10)) != list(itertools.chain(*batches))


def test_reshuffle_keeps_pairs_and_depends_on_the_epoch():
    problem = reshuffle(problem_of(batches=lambda epoch: [(np.arange(6.0), np.arange(6) * 10)] * 2))
    (first, _), (second, _) = (list(epoch_batches(problem, epoch)) for epoch in (0, 1))
    np.testing.assert_array_equal(first.labels, first.images * 10)
    assert first.labels.tolist() != second.labels.tolist()


def endless_loader(epoch):
    return ((np.zeros((3, 1)), np.full(3, step)) for step in itertools.count())


def test_reshuffle_cuts_an_endless_loader():
    batches = list(epoch_batches(reshuffle(problem_of(10, batches=endless_loader)), 0))
    assert sum(len(batch.labels) for batch in batches) == 21  # the first multiple of 3 from twice 10 on


def test_reshuffle_of_an_empty_loader_is_empty():
    assert list(epoch_batches(reshuffle(problem_of(batches=lambda epoch: [])), 0)) == []


def test_reshuffle_refuses_images_of_several_shapes():
    mixed = [(np.zeros((1, size)), np.zeros(1)) for size in (2, 3)]
    with pytest.raises(ValueError, match="of one shape to be reordered"):
        list(epoch_batches(reshuffle(problem_of(batches=lambda epoch: mixed)), 0))
