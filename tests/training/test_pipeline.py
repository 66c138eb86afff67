import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.training.pipeline import prepare
from cnnprobe.types import Batch

KEY = jax.random.key(0)


@pytest.fixture
def batch():
    return Batch(np.arange(24.0, dtype=np.float32).reshape(2, 3, 4, 1), np.array([0, 1]))


def add_noise(key, images):
    return images + jax.random.normal(key, images.shape)


def test_batch_without_functions_is_left_alone(problem, batch):
    assert prepare(problem, batch, KEY, train=True).images is batch.images


def test_training_images_are_preprocessed_then_augmented(problem, batch):
    problem = problem._replace(preprocess=lambda x: x / 2, augment=add_noise)
    expected = batch.images / 2 + jax.random.normal(KEY, batch.images.shape)
    np.testing.assert_allclose(prepare(problem, batch, KEY, train=True).images, expected, rtol=1e-6)


def test_validation_images_are_not_augmented(problem, batch):
    problem = problem._replace(preprocess=lambda x: x / 2, augment=add_noise)
    np.testing.assert_array_equal(prepare(problem, batch, KEY, train=False).images, batch.images / 2)


@pytest.mark.parametrize(("train", "factor"), [(True, 2), (False, 3)])
def test_validation_has_its_own_preprocessing(problem, batch, train, factor):
    problem = problem._replace(preprocess=lambda x: x * 2, preprocess_valid=lambda x: x * 3)
    np.testing.assert_array_equal(prepare(problem, batch, KEY, train=train).images, batch.images * factor)


@pytest.mark.parametrize(("train", "factor"), [(True, 1), (False, 2)])
def test_batches_of_the_users_loader_are_ready(problem, batch, train, factor):
    problem = problem._replace(preprocess=lambda x: x * 2, augment=add_noise, batches=lambda epoch: [batch])
    np.testing.assert_array_equal(prepare(problem, batch, KEY, train=train).images, batch.images * factor)


def test_pure_augmentation_is_compiled_once(problem, batch):
    traced = chex.assert_max_traces(add_noise, n=2)  # to see whether it can be compiled, and to compile it
    for step in range(4):
        seen = prepare(problem._replace(augment=traced), batch, jax.random.fold_in(KEY, step), train=True)
    assert not np.array_equal(seen.images, batch.images)


def test_augmentation_that_draws_from_numpy_draws_anew(problem, batch):
    rng = np.random.default_rng(0)
    problem = problem._replace(augment=lambda key, images: images + jnp.asarray(rng.normal()))
    first, second = (prepare(problem, batch, KEY, train=True).images for _ in range(2))
    assert not np.array_equal(first, second)


def test_augmentation_written_in_numpy_works(problem, batch):
    def flip(key, images):
        return np.asarray(images)[:, ::-1] if jax.random.uniform(key) >= 0 else images

    seen = prepare(problem._replace(augment=flip), batch, KEY, train=True)
    np.testing.assert_array_equal(seen.images, batch.images[:, ::-1])


def test_labels_pass_through(problem, batch):
    problem = problem._replace(preprocess=lambda x: x / 2, augment=add_noise)
    assert prepare(problem, batch, KEY, train=True).labels is batch.labels


@pytest.mark.parametrize(
    ("field", "function"),
    [
        ("preprocess", lambda x: x[:1]),
        ("preprocess", lambda x: None),
        ("preprocess_valid", lambda x: x[0, 0, 0, 0]),
        ("augment", lambda key, x: x.reshape(-1)),
    ],
)
def test_another_number_of_images_is_refused(problem, batch, field, function):
    with pytest.raises(ValueError, match=f"{field} must return an array with one image for each given, got"):
        prepare(problem._replace(**{field: function}), batch, KEY, train=field != "preprocess_valid")
