import jax
import numpy as np
import optax
import pytest

from cnnprobe.cases.parts import cross_entropy, scale_pixels
from cnnprobe.models.chain import chain, conv, dense, dropout, function
from cnnprobe.models.plain import flatten
from cnnprobe.training import folds
from cnnprobe.training.folds import Splits, fold_splits, keep_share, train_folds
from cnnprobe.training.step import init_state, make_train_step
from cnnprobe.types import Dataset, Problem

MODEL = chain([conv("a", 3), function(jax.nn.relu), dropout(0.2), function(flatten), dense("b", 2)])


@pytest.fixture
def problem():
    labels = np.arange(24, dtype=np.int32) % 2
    images = np.random.default_rng(0).integers(0, 100, (24, 5, 5, 1)) + 100 * labels[:, None, None, None]
    data = Dataset(images.astype(np.uint8), labels)
    return Problem(MODEL, cross_entropy, optax.adam(1e-2), data, num_classes=2, batch_size=4, preprocess=scale_pixels)


def one_by_one(problem, splits, num_steps):
    """Every run in a plain loop."""
    images, labels = scale_pixels(problem.train.images), problem.train.labels
    step = make_train_step(problem.model, problem.loss, problem.optimizer, num_classes=2)
    keys, scores = jax.random.split(jax.random.key(problem.seed), len(splits.train)), []
    for run, key in enumerate(keys):
        state = init_state(problem, key, images[:4])
        for places in folds._places(problem, splits.train[run], run, num_steps):
            state, _ = step(state, images[places], labels[places])
        scores_of = problem.model.apply(state.params, state.model_state, images, key=key, train=False)[0]
        hits = np.argmax(scores_of, axis=1) == labels
        scores.append((hits[splits.train[run]].mean(), hits[splits.valid[run]].mean()))
    return np.array(scores).T


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_runs_in_turn_and_together_are_those_of_a_plain_loop(backend, problem, monkeypatch):
    monkeypatch.setattr(folds.jax, "default_backend", lambda: backend)
    splits = fold_splits(24, num_folds=3)
    expected = one_by_one(problem, splits, 9)
    np.testing.assert_allclose(train_folds(problem, splits, num_steps=9), expected, atol=1e-6)


def test_runs_learn_and_differ(problem):
    scores = train_folds(problem, fold_splits(24, num_folds=4), num_steps=60)
    assert scores.valid.mean() > 0.9


def test_augmentation_is_applied(problem):
    splits = fold_splits(24, num_folds=2)
    blinded = problem._replace(augment=lambda key, images: 0 * images)
    assert (
        train_folds(blinded, splits, num_steps=40).train.mean()
        < train_folds(problem, splits, num_steps=40).train.mean()
    )


def test_folds_part_the_images():
    splits = fold_splits(23, num_folds=5, seed=1)
    assert sorted(splits.valid.ravel()) == sorted(set(splits.valid.ravel()))
    for train, valid in zip(*splits, strict=True):
        assert sorted([*train, *valid]) == sorted(splits.valid.ravel())


def test_a_share_of_a_split_is_its_beginning():
    splits = fold_splits(40, num_folds=4)
    half = keep_share(splits, 0.5)
    np.testing.assert_array_equal(half.train, splits.train[:, :15])
    np.testing.assert_array_equal(half.valid, splits.valid)


def test_epochs_show_every_image_once(problem):
    places = folds._places(problem, np.arange(12), 0, 7)
    assert places.shape == (7, 4)
    assert sorted(places[:3].ravel()) == sorted(places[3:6].ravel()) == list(range(12))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: fold_splits(3, num_folds=5), "num must be a whole number of at least 5, got 3"),
        (lambda p: fold_splits(30, num_folds=1), "num_folds must be a whole number of at least 2, got 1"),
        (lambda p: keep_share(fold_splits(30), 0.0), "share must be above 0 and at most 1 and leave an image, got 0.0"),
        (lambda p: train_folds(p, fold_splits(24), num_steps=0), "num_steps must be a whole number of at least 1"),
        (lambda p: train_folds(p, fold_splits(40), num_steps=1), "splits must hold places from 0 to 23, got 39"),
        (
            lambda p: train_folds(p._replace(batches=lambda epoch: []), fold_splits(24), num_steps=1),
            "problem.batches must be None",
        ),
        (
            lambda p: train_folds(
                p._replace(train=Dataset(p.train.images, np.zeros((24, 5, 5)))),
                Splits(*np.zeros((2, 1, 1), int)),
                num_steps=1,
            ),
            r"labels must tell the class of each image, got shape \(24, 5, 5\)",
        ),
    ],
)
def test_bad_arguments_are_refused(call, message, problem):
    with pytest.raises(ValueError, match=message):
        call(problem)
