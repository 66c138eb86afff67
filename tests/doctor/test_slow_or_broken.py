"""The doctor beside functions that misbehave, and within its time whatever they cost; the clock is a fake."""

import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cnnprobe as cp
from cnnprobe.doctor.bench import make_bench
from cnnprobe.doctor.looks.augmentation import look_at_augmentation
from cnnprobe.types import Dataset, Model, Problem
from experiments.problems import cross_entropy

FILE = "test_slow_or_broken.py"
MODEL = cp.small_cnn(4)
ADAM = optax.adam(1e-2)


def tiny(**changes):
    rng = np.random.default_rng(0)
    labels = np.arange(160) % 4
    images = (rng.random((160, 8, 8, 1)) + labels[:, None, None, None]).astype(np.float32) / 4
    problem = Problem(MODEL, cross_entropy, ADAM, Dataset(images, labels), num_classes=4)
    return problem._replace(batch_size=16, num_epochs=2)._replace(**changes)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the user's own functions move."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def slow(function, seconds):
        """The function, taking so long at every call."""

        def wrapped(*args, **kwargs):
            now[0] += seconds
            return function(*args, **kwargs)

        return wrapped

    slow.now = now
    return slow


def slow_model(clock, seconds):
    """The tiny model, whose every pass takes so long."""

    def apply(params, state, images, *, key, train):
        outputs, state = MODEL.apply(params, state, images, key=key, train=train)
        same = clock(lambda x: np.asarray(x), seconds)
        waited = jax.pure_callback(
            same, jax.ShapeDtypeStruct(outputs.shape, outputs.dtype), jax.lax.stop_gradient(outputs)
        )
        return outputs + 0.0 * waited, state

    return Model(MODEL.init, apply)


class Items:
    """A source that is read item by item."""

    def __init__(self, data, read):
        self.data, self.read = data, read

    def __len__(self):
        return len(self.data.labels)

    def __getitem__(self, index):
        return self.read({"image": self.data.images[index], "label": self.data.labels[index]})


def batches_of(data, size=16):
    return lambda epoch: (
        (data.images[i : i + size], data.labels[i : i + size]) for i in range(0, len(data.labels), size)
    )


def loader(clock, seconds):
    """The loader of the tiny problem, slow at every batch."""

    def batches(epoch):
        return map(clock(lambda batch: batch, seconds), batches_of(tiny().train)(epoch))

    return batches


SLOW = {
    "apply": lambda clock, s: {"model": slow_model(clock, s / 4)},
    "preprocess": lambda clock, s: {"preprocess": clock(lambda x: x, s)},
    "loader": lambda clock, s: {"batches": loader(clock, s)},
    "items": lambda clock, s: {"train": Items(tiny().train, clock(lambda item: item, s / 4))},
}


@pytest.mark.slow
@pytest.mark.parametrize("where", ["apply", "loader"])
def test_the_budget_is_kept_whatever_is_slow(where, clock):
    started = clock.now[0]
    diagnosis = cp.diagnose(tiny(**SLOW[where](clock, 1.0)), budget_seconds=20.0)
    assert clock.now[0] - started <= 1.2 * 20.0
    assert diagnosis.verdict != "healthy"  # for want of time
    assert "no time was left" in " ".join(diagnosis.untried)


@pytest.mark.parametrize("where", ["loader", "items", "preprocess"])
def test_slow_data_are_read_in_part(where, clock):
    problem = tiny(**SLOW[where](clock, 0.5))
    started = clock.now[0]
    bench = make_bench(problem, seconds=2.0)
    assert len(bench.train.images) < 160
    assert clock.now[0] - started < 3 * 2.0


def test_data_that_are_not_slow_are_read_whole():
    for seconds in (60.0, float("inf")):
        assert len(make_bench(tiny(valid=tiny().train), seconds=seconds).valid.images) == 160


def test_augmentation_that_writes_into_its_images_spoils_no_other_look():
    def augment(key, images):
        images[...] = 0.0
        return images

    bench = make_bench(tiny(augment=augment))
    before = bench.train.images.copy()
    assert look_at_augmentation(bench, {})["augmented std ratio"] == 0.0
    np.testing.assert_array_equal(bench.train.images, before)


def changing(function):
    """The function, which gives arrays of twice the last axis from its second call on."""
    calls = itertools.count()
    twice = lambda x: jnp.concatenate([jnp.asarray(x)] * 2, axis=-1) if np.ndim(x) > 1 else x  # noqa: E731
    return lambda *a, **k: jax.tree.map(twice, function(*a, **k)) if next(calls) else function(*a, **k)


def raising(*args, **kwargs):
    raise RuntimeError("the user's own error")


ENDING = batches_of(tiny().train)(0)  # a generator, which can be read once
MISBEHAVING = {
    "loss gives None": {"loss": lambda outputs, labels: None},
    "loss raises": {"loss": raising},
    "init gives None": {"model": Model(lambda key, images: None, MODEL.apply)},
    "apply gives None": {"model": Model(MODEL.init, lambda *args, **kwargs: None)},
    "outputs are None": {"model": Model(MODEL.init, lambda p, s, x, *, key, train: (None, s))},
    "augment gives None": {"augment": lambda key, images: None},
    "predict gives None": {"predict": lambda outputs: None},
    "loader raises": {"batches": raising},
    "loader gives None": {"batches": lambda epoch: None},
    "loader ends": {"batches": lambda epoch: ENDING},
    "loader changes shape": {"batches": lambda epoch: map(changing(lambda batch: batch), batches_of(tiny().train)(0))},
}


@pytest.mark.slow
@pytest.mark.parametrize("what", MISBEHAVING)
def test_a_finding_or_a_clear_error_has_the_users_own_line(what):
    try:
        diagnosis = cp.diagnose(tiny(**MISBEHAVING[what]), budget_seconds=20.0)
    except ValueError as error:
        told = str(error)
    else:
        assert diagnosis.verdict in ("faulty", "cannot-tell")
        told = " ".join([diagnosis.summary, *(f.evidence.sentence for f in diagnosis.findings), *diagnosis.untried])
    assert f"({FILE}, line " in told
