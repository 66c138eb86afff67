"""Functions of the user's that misbehave: what they did is told with their own line, and spoils nothing else."""

import itertools
import math
import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.data.batching import epoch_batches
from cnnprobe.training.evaluate import evaluate
from cnnprobe.training.fit import fit
from cnnprobe.training.pipeline import prepare
from cnnprobe.types import Batch, Dataset, Model

FILE = Path(__file__).name
FUNCTIONS = ("init", "apply", "loss", "batches", "augment", "preprocess", "predict")


def doubled(x):
    return x if np.ndim(x) == 0 else jnp.concatenate([jnp.asarray(x)] * 2, axis=-1)


def overwritten(args):
    """Writes into every array that can be written to."""
    for array in args:
        if isinstance(array, np.ndarray) and array.flags.writeable and array.dtype != object:
            array[...] = 0


def misbehaving(what, function):
    """The function as it misbehaves; `wrapped` is what a message must point to."""
    calls = itertools.count()

    def wrapped(*args, **kwargs):
        number, result = next(calls), function(*args, **kwargs)
        if what == "raises":
            raise RuntimeError("the user's own error")
        if what == "changes its arguments":
            overwritten(args)
        changes = {
            "gives NaN": lambda: jax.tree.map(lambda x: x * math.nan, result),
            "gives None": lambda: None,
            "gives numpy": lambda: jax.tree.map(np.asarray, result),
            "gives other shapes later": lambda: jax.tree.map(doubled, result) if number else result,
        }
        return changes.get(what, lambda: result)()

    return wrapped


def spoilt(problem, where, what):
    """The problem with one function that misbehaves."""
    images, labels = problem.train
    own = {
        "augment": lambda key, x: x + 0.0 * jax.random.normal(key, x.shape),
        "preprocess": lambda x: x * 1.0,
        "predict": lambda outputs: outputs.argmax(axis=1),
        "batches": lambda epoch: [(images[i : i + 8].copy(), labels[i : i + 8].copy()) for i in range(0, 40, 8)],
        "loss": problem.loss,
    }
    if where in own:
        return problem._replace(**{where: misbehaving(what, own[where])})
    return problem._replace(
        model=Model(**{**problem.model._asdict(), where: misbehaving(what, getattr(problem.model, where))})
    )


def outcome(problem):
    """What comes of it: what an error says, and through which functions of the user's it went."""
    try:
        history = fit(problem, progress=False, tap_every=None)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        return f"{error} {[frame.name for frame in frames if Path(frame.filename).name in (FILE, 'conftest.py')]}"
    assert set(map(len, history.train.values())) == {2}
    return "trained"


@pytest.mark.parametrize("what", ["raises", "gives None"])
@pytest.mark.parametrize("where", FUNCTIONS)
def test_an_error_has_the_users_own_line(problem, where, what):
    told = outcome(spoilt(problem, where, what))
    assert "wrapped" in told or f"({FILE}, line" in told


@pytest.mark.parametrize("what", ["gives NaN", "gives numpy", "gives other shapes later", "changes its arguments"])
@pytest.mark.parametrize("where", FUNCTIONS)
def test_whatever_is_given_trains_or_is_told(problem, where, what):
    before = [array.copy() for array in (*problem.train, *problem.valid)]
    told = outcome(spoilt(problem, where, what))
    assert told == "trained" or any(
        name in told for name in ("'wrapped'", "'apply'", "'cross_entropy'", f"({FILE}, line")
    )
    for array, kept in zip((*problem.train, *problem.valid), before, strict=True):
        np.testing.assert_array_equal(array, kept)


def test_a_loader_that_fills_one_buffer_gives_different_batches(problem):
    buffer = np.zeros((4, 2, 2, 1), np.float32)

    def batches(epoch):
        for number in range(3):
            buffer[...] = number
            yield buffer, np.zeros(4, int)

    seen = list(epoch_batches(problem._replace(batches=batches), 0))
    assert [batch.images.max() for batch in seen] == [0, 1, 2]


def test_a_loader_without_images_is_told(problem):
    empty = problem._replace(batches=lambda epoch: itertools.repeat((np.zeros((0, 4, 4, 1)), np.zeros(0))))
    with pytest.raises(ValueError, match=rf"at least one image a batch, got none at batch 0 \({FILE}, line"):
        fit(empty, progress=False)


def test_augmentation_that_writes_into_its_images_works(problem):
    def augment(key, images):
        images[:, 0] = 7.0
        return images

    images = np.zeros((2, 3, 3, 1), np.float32)
    seen = prepare(problem._replace(augment=augment), Batch(images, np.zeros(2)), jax.random.key(0), train=True)
    assert np.unique(seen.images[:, 0]) == 7.0


def test_a_metric_that_writes_into_the_outputs_changes_no_score(problem):
    def predict(outputs):
        outputs[outputs < 100.0] = 0.0
        return outputs.argmax(axis=1)

    data = Dataset(problem.train.images, problem.train.labels)
    weights = problem.model.init(jax.random.key(0), data.images)
    plain, own = (evaluate(each, *weights, data) for each in (problem, problem._replace(predict=predict)))
    assert own.loss == plain.loss
    assert np.all(own.predictions == 0)
    assert fit(problem._replace(predict=predict), progress=False, num_epochs=1).num_steps == 6
