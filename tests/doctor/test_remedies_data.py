import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.doctor import remedies_data as remedies
from cnnprobe.types import Dataset

RNG = np.random.default_rng(0)


@pytest.fixture
def problem(tiny_bench):
    return tiny_bench.problem


def reshuffling(problem):
    images, labels = problem.train

    def batches(epoch):
        dealt = labels if epoch == 0 else np.random.default_rng(epoch).permutation(labels)
        return [(images[:10], dealt[:10]), (images[10:], dealt[10:])]

    return problem._replace(batches=batches)


def test_enlarged_images_repeat_every_pixel():
    image = np.arange(4.0).reshape(1, 2, 2, 1)
    assert remedies.enlarged(image, 2)[0, :, :, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def test_enlarging_reaches_training_and_validation(problem):
    mended = remedies.enlarge_images(2)(problem)
    assert mended.preprocess(problem.train.images).shape == (20, 16, 16, 1)


def test_first_labels_are_kept(problem):
    mended = remedies.keep_first_labels(reshuffling(problem))
    labels = np.concatenate([labels for _, labels in mended.batches(3)])
    np.testing.assert_array_equal(labels, problem.train.labels)


def test_first_labels_of_a_problem_without_loader(problem):
    assert remedies.keep_first_labels(problem) is problem


def test_stored_pairs_come_in_batches_of_the_loaders_size(problem):
    mended = remedies.train_as_stored(reshuffling(problem))
    assert (mended.batches, mended.batch_size, mended.shuffle) == (None, 10, True)


def test_new_division_gives_both_splits_every_class(problem):
    images, labels = problem.train
    order = np.argsort(labels, kind="stable")
    split = problem._replace(
        train=Dataset(images[order[:10]], labels[order[:10]]), valid=Dataset(images[order[10:]], labels[order[10:]])
    )
    mended = remedies.divide_anew(split)
    assert sorted(mended.train.labels) == sorted(mended.valid.labels) == list(range(10))
    assert sorted(np.concatenate([mended.train.images, mended.valid.images]).ravel()) == sorted(images.ravel())


def test_new_division_keeps_the_sizes(problem):
    mended = remedies.divide_anew(problem._replace(valid=Dataset(problem.train.images[:7], problem.train.labels[:7])))
    assert (len(mended.train.images), len(mended.valid.images)) == (20, 7)


def test_kept_validation_images(problem):
    mended = remedies.keep_valid(np.array([2, 5]))(problem._replace(valid=problem.train))
    assert mended.valid.labels.tolist() == [2, 5]


def test_wrong_labels_are_dropped_and_right_ones_kept(problem):
    ids = np.arange(400) % 2
    shapes = np.stack([np.eye(8), np.eye(8)[::-1]])[..., None]
    images = (0.5 * RNG.random((400, 8, 8, 1)) + shapes[ids]).astype(np.float32)
    wrong = RNG.random(400) < 0.3
    noisy = problem._replace(train=Dataset(images, np.where(wrong, 1 - ids, ids)), num_classes=2)
    kept = remedies.drop_suspicious(noisy).train
    clean = kept.labels == (kept.images[:, 0, 7, 0] > 0.75)
    assert clean.mean() > 0.85


def test_contradicted_by_more_than_the_shortest_leads():
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.45, 0.55]])
    assert remedies.contradicted(scores, np.array([0, 1, 0, 0])).tolist() == [False, True, False, False]


@pytest.mark.parametrize("encode", [lambda ids: ids, lambda ids: jax.nn.one_hot(ids, 3)])
def test_generalised_cross_entropy_matches_definition(encode):
    logits, ids = RNG.normal(size=(5, 3)), np.array([0, 1, 2, 1, 0])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.mean((1 - p[np.arange(5), ids] ** 0.7) / 0.7)
    assert remedies.generalised_cross_entropy(jnp.asarray(logits), encode(ids)) == pytest.approx(expected, rel=1e-5)


def test_augmentation_is_dropped(problem):
    assert remedies.drop_augmentation(problem._replace(augment=lambda key, images: images)).augment is None
