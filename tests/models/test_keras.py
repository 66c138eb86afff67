import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import chex
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from keras import layers

from cnnprobe.models.keras import WithPenalty, from_keras
from cnnprobe.trees import per_layer

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).normal(size=(4, 6, 6, 1)).astype(np.float32)


def make(**conv):
    """A fresh model."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3, name="conv", **conv),
            layers.BatchNormalization(momentum=0.9, name="norm"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(3, name="head"),
        ]
    )


class Unbuilt(keras.Model):
    """Knows its shapes only when it sees images."""

    def __init__(self):
        super().__init__()
        self.flatten, self.head = layers.Flatten(), layers.Dense(3, name="head")

    def call(self, x):
        return self.head(self.flatten(x))


def run(model, *, train, key=KEY, images=IMAGES):
    return jax.jit(model.apply, static_argnames="train")(*model.init(KEY, images), images, key=key, train=train)


def init(model, seed):
    params, _ = model.init(jax.random.key(seed), IMAGES)
    return per_layer(np.asarray, params)


@pytest.fixture(scope="module")
def keras_model():
    return make()


@pytest.fixture(scope="module")
def model(keras_model):
    return from_keras(keras_model)


def test_paths_name_the_parameters_and_seeds_are_no_state(model):
    params, state = model.init(KEY, IMAGES)
    assert list(per_layer(np.shape, params)) == [
        *("conv/bias", "conv/kernel", "head/bias", "head/kernel", "norm/beta", "norm/gamma")
    ]
    assert list(per_layer(np.shape, state)) == ["norm/moving_mean", "norm/moving_variance"]


def test_key_zero_is_the_models_own_weights(keras_model, model):
    np.testing.assert_array_equal(init(model, 0)["conv/kernel"], keras_model.get_layer("conv").kernel)


def test_another_key_draws_by_the_layers_own_initializers():
    orthogonal = keras.initializers.Orthogonal(seed=3)
    params = init(from_keras(make(kernel_initializer=orthogonal, bias_initializer="ones")), 1)
    columns = params["conv/kernel"].reshape(9, 4)
    np.testing.assert_allclose(columns.T @ columns, np.eye(4), atol=1e-5)
    assert not np.allclose(params["conv/kernel"], orthogonal((3, 3, 1, 4)))
    np.testing.assert_array_equal(params["conv/bias"], np.ones(4))


def test_initialisation_can_be_compiled(model):
    chex.assert_trees_all_close(jax.jit(model.init)(jax.random.key(2), IMAGES), model.init(jax.random.key(2), IMAGES))


def test_loaded_weights_are_kept_for_every_key():
    loaded = make()
    kernel = loaded.get_layer("conv").kernel
    kernel.assign(np.full(kernel.shape, 0.25))
    params = init(from_keras(loaded), 5)
    np.testing.assert_array_equal(params["conv/kernel"], 0.25)
    assert not np.array_equal(params["head/kernel"], loaded.get_layer("head").kernel)


def test_evaluation_is_the_models_own(keras_model, model):
    outputs, state = run(model, train=False)
    np.testing.assert_allclose(outputs, keras_model(IMAGES, training=False), rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(state, model.init(KEY, IMAGES)[1])


def test_training_moves_the_statistics_and_never_the_model(keras_model, model):
    before = keras_model.get_layer("norm").moving_mean.numpy().copy()
    moved = run(model, train=True)[1]["norm"]["moving_mean"]
    assert not np.array_equal(moved, before)
    np.testing.assert_array_equal(keras_model.get_layer("norm").moving_mean, before)


@pytest.mark.parametrize(("seed", "same"), [(0, True), (1, False)])
def test_dropout_follows_the_key(model, seed, same):
    first, second = (run(model, train=True, key=jax.random.key(s))[0] for s in (0, seed))
    assert np.array_equal(first, second) is same


def test_frozen_layers_are_state_and_stay_for_every_key():
    frozen = make()
    frozen.get_layer("conv").trainable = False
    params, state = from_keras(frozen).init(jax.random.key(1), IMAGES)
    assert "conv" not in params
    np.testing.assert_array_equal(state["conv"]["kernel"], frozen.get_layer("conv").kernel)


def test_regularisers_come_with_the_outputs():
    regularised = make(kernel_regularizer=keras.regularizers.L2(0.5))
    model = from_keras(regularised)
    outputs, _ = run(model, train=False)
    assert isinstance(outputs, WithPenalty)
    np.testing.assert_allclose(outputs.penalty, 0.5 * np.sum(np.square(init(model, 0)["conv/kernel"])), rtol=1e-5)


def test_unbuilt_model_is_built_from_the_first_images():
    model = from_keras(Unbuilt)
    params, _ = jax.jit(model.init)(KEY, IMAGES)
    assert params["head"]["kernel"].shape == (36, 3)
    assert run(model, train=True)[0].shape == (4, 3)


def test_bytes_are_taken_as_fit_takes_them(keras_model, model):
    images = np.arange(144, dtype=np.uint8).reshape(4, 6, 6, 1)
    expected = keras_model(images.astype(np.float32), training=False)
    np.testing.assert_allclose(run(model, train=False, images=images)[0], expected, rtol=1e-5, atol=1e-4)


def test_weights_are_those_of_the_moment_it_was_handed_over():
    changed = make()
    before = changed.get_layer("conv").kernel.numpy().copy()
    model = from_keras(changed)
    changed.get_layer("conv").kernel.assign(jnp.zeros((3, 3, 1, 4)))
    np.testing.assert_array_equal(init(model, 0)["conv/kernel"], before)


def test_another_backend_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match=r"keras must run on the backend 'jax', got 'torch'.*KERAS_BACKEND=jax"):
        from_keras(make)


@pytest.mark.parametrize("wrong", [None, 3, layers.Flatten(), lambda: 3])
def test_what_is_no_model_is_refused(wrong):
    with pytest.raises(ValueError, match=r"model must be a keras.Model.*got"):
        from_keras(wrong)
