"""Problems of every kind: each is refused in words or trains; what is refused is said before anything is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnprobe as cp
from cnnprobe.doctor.bench import make_bench
from cnnprobe.doctor.looks.data import look_at_images, look_at_labels, look_at_order
from cnnprobe.doctor.looks.passes import look_at_passes
from cnnprobe.doctor.looks.splits import look_at_splits
from cnnprobe.training.fit import fit
from cnnprobe.training.validate import check_problem
from cnnprobe.types import Dataset, Model, Problem
from tests.fuzz.test_probes import DTYPES, ODD, SPECIAL

NUM_CHECKED, NUM_LOOKED_AT, NUM_TRAINED = 1000, 100, 8
NUM = 12  # images
SHAPES = ((NUM, 4, 4, 1), (NUM, 4, 4, 3), (NUM, 16), (NUM,), (0, 4, 4, 1), (NUM - 1, 4, 4, 1), (1, 4, 4, 1), ())
ANYTHING = (*ODD, 0, -1, 0.5, True, float("nan"), 10**30, print, int, {}, (1, 2))


def linear_init(key, images):
    """A linear classifier of three classes."""
    return {"w": 0.1 * jax.random.normal(key, (int(np.prod(images.shape[1:])), 3))}, {}


def linear_apply(params, state, images, *, key, train):
    return jnp.asarray(images, jnp.float32).reshape(len(images), -1) @ params["w"], state


LINEAR, NET, ADAM, SGD = Model(linear_init, linear_apply), cp.small_cnn(3), optax.adam(1e-2), optax.sgd(0.1)


def cross_entropy(outputs, labels):
    """Of integers, or of rows."""
    labels = jnp.asarray(labels)
    if labels.ndim == 2:
        return optax.softmax_cross_entropy(outputs, labels).mean()
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels.astype(jnp.int32)).mean()


def squared(outputs, labels):
    return jnp.mean((outputs.mean(axis=1) - jnp.asarray(labels, jnp.float32).reshape(len(outputs), -1)[:, 0]) ** 2)


@st.composite
def arrays(draw, shapes, dtypes):
    """Ordinary and extreme numbers of one shape and type, in several layouts."""
    shape, dtype = draw(st.sampled_from(shapes)), draw(st.sampled_from(dtypes))
    rng = np.random.default_rng(draw(st.integers(0, 5)))
    values = rng.normal(scale=draw(st.sampled_from((0.0, 1.0, 100.0))), size=shape)
    values = np.where(
        rng.random(shape) < draw(st.sampled_from((0.0, 0.0, 0.2, 1.0))), draw(st.sampled_from(SPECIAL)), values
    )
    with np.errstate(all="ignore"):
        array = values.astype(dtype)
    layout = draw(st.sampled_from(("plain", "read only", "reversed", "fortran")))
    array = {"reversed": array[::-1] if array.ndim else array, "fortran": np.asfortranarray(array)}.get(layout, array)
    array.flags.writeable = layout != "read only"
    return array


def labels_of(num):
    """Labels as people have them, right and wrong."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 3, num)
    kinds = [
        ids,
        ids + 1,
        ids.astype(np.uint8),
        ids.astype(float),
        ids[:, None],
        np.eye(3)[ids],
        np.eye(3, dtype=bool)[ids],
    ]
    kinds += [np.zeros(num, int), -ids, ids + 0.5, np.full(num, np.nan), np.eye(3)[ids] * 0.9 + 0.03, ids == 1]
    return st.sampled_from(kinds)


class Items:
    """A source, item by item."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data.labels)

    def __getitem__(self, index):
        return {"image": self.data.images[index], "label": self.data.labels[index]}


def loader_of(data, size):
    """A loader that goes through the data in order."""
    places = range(0, len(data.labels), size)
    return lambda epoch: ((data.images[i : i + size], data.labels[i : i + size]) for i in places)


@st.composite
def sound(draw, shapes=SHAPES[:1], dtypes=(np.float32, np.uint8, np.float64, bool, np.float16)):
    """Problems whose parts fit together, however sick their numbers are."""
    data = Dataset(draw(arrays(shapes, dtypes)), draw(labels_of(NUM)))
    size, as_items = draw(st.sampled_from((1, 5, NUM, 100))), draw(st.booleans())
    problem = Problem(LINEAR, draw(st.sampled_from((cross_entropy, squared))), draw(st.sampled_from((ADAM, SGD))), data)
    problem = problem._replace(train=Items(data) if as_items else data, batch_size=size, num_epochs=1)
    problem = problem._replace(num_classes=draw(st.sampled_from((None, 3))), shuffle=draw(st.booleans()))
    problem = problem._replace(valid=draw(st.sampled_from((None, data))), seed=draw(st.integers(0, 3)))
    return problem._replace(batches=draw(st.sampled_from((None, loader_of(data, min(size, NUM))))))


@st.composite
def malformed(draw):
    """Problems with one or two fields of anything at all."""
    problem = Problem(LINEAR, cross_entropy, ADAM, Dataset(np.zeros((NUM, 4, 4, 1)), np.arange(NUM) % 3))
    for _ in range(draw(st.integers(1, 2))):
        field = draw(st.sampled_from(Problem._fields))
        value = draw(st.sampled_from(ANYTHING))
        if field in ("train", "valid"):
            value = draw(
                st.sampled_from((value, Dataset(draw(arrays(SHAPES, DTYPES)), value), Dataset(value, np.arange(NUM))))
            )
            value = draw(
                st.sampled_from((value, [{"image": value, "label": 1}], [value], Items(Dataset(np.zeros(3), value))))
            )
        problem = problem._replace(**{field: value})
    return problem


def complaint(function):
    """What a function says of its arguments; empty where it takes them."""
    try:
        function()
    except ValueError as error:
        return str(error)
    return ""


def test_a_malformed_problem_is_refused_in_words():
    said = []

    @settings(max_examples=NUM_CHECKED)
    @given(problem=malformed())
    def search(problem):
        said.append(complaint(lambda: check_problem(problem)))
        assert not said[-1] or said[-1].endswith(".")

    search()
    print(f"{len(said)} problems checked, {sum(map(bool, said))} refused")
    assert said.count("") > 20


def test_looks_at_the_data_give_numbers_and_change_nothing():
    read = []

    @settings(max_examples=NUM_LOOKED_AT)
    @given(problem=sound())
    def search(problem):
        before = [np.array(array, copy=True) for array in getattr(problem.train, "data", problem.train)]
        bench = make_bench(problem)
        for look in (look_at_images, look_at_labels, look_at_order, look_at_passes, lambda b: look_at_splits(b)[0]):
            assert all(isinstance(value, float) for value in look(bench).values())
        for array, kept in zip(getattr(problem.train, "data", problem.train), before, strict=True):
            np.testing.assert_array_equal(array, kept)
        read.append(1)

    search()
    print(f"{len(read)} problems looked at")


@pytest.mark.slow
def test_whole_problems_train_or_are_refused_in_words():
    said = []

    @settings(max_examples=NUM_TRAINED)
    @given(problem=sound(shapes=SHAPES[:2]), net=st.booleans())
    def search(problem, net):
        problem = problem._replace(model=NET) if net and problem.batches is None else problem
        said.append(complaint(lambda: fit(problem, progress=False, tap_every=None)))
        assert not said[-1] or said[-1].endswith(".")

    search()
    print(f"{len(said)} problems trained, {sum(map(bool, said))} refused")
    assert said.count("") > NUM_TRAINED / 2
