import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest

from cnnprobe.models.keras_optimizer import to_optax

PARAMS = {"conv": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}}
GRADS = {"conv": {"kernel": jnp.full((2, 3), 0.5), "bias": jnp.arange(3.0)}}


@pytest.fixture
def optimizer():
    """SGD with momentum, built in another order than that of the sorted names."""
    momentum = keras.optimizers.SGD(0.1, momentum=0.9)
    momentum.build([keras.Variable(jnp.ones((2, 3)), name="kernel"), keras.Variable(jnp.zeros(3), name="bias")])
    return to_optax(momentum, ["conv/kernel", "conv/bias"])


def two_steps(optimizer, params, grads):
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_two_steps_are_those_of_the_definition(optimizer):
    moved = two_steps(optimizer, PARAMS, GRADS)["conv"]
    np.testing.assert_allclose(moved["kernel"], 1 - 0.1 * 0.5 * (1 + 1.9), rtol=1e-6)
    np.testing.assert_allclose(moved["bias"], -0.1 * np.arange(3.0) * (1 + 1.9), rtol=1e-6)


def test_parameters_of_a_changed_model_are_trained_alike(optimizer):
    params, grads = {"model": PARAMS, "head": jnp.ones((4, 4))}, {"model": GRADS, "head": jnp.ones((4, 4))}
    moved = two_steps(optimizer, params, grads)
    np.testing.assert_allclose(moved["head"], 1 - 0.1 * (1 + 1.9), rtol=1e-6)
    np.testing.assert_allclose(moved["model"]["conv"]["kernel"], 1 - 0.1 * 0.5 * (1 + 1.9), rtol=1e-6)


def test_parameters_must_be_given(optimizer):
    with pytest.raises(ValueError, match=r"params must be given.*got None"):
        optimizer.update(GRADS, optimizer.init(PARAMS))
