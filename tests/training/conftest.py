"""A small linear problem that the tests of training share."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnprobe.types import Dataset, Model, Problem


def init(key, images):
    """Parameters of a linear classifier of three classes, and a counter as its state."""
    num_inputs = int(np.prod(images.shape[1:]))
    kernel = 0.1 * jax.random.normal(key, (num_inputs, 3))
    return {"dense": {"kernel": kernel, "bias": jnp.zeros(3)}}, {"num_calls": jnp.zeros((), jnp.int32)}


def apply(params, state, images, *, key, train):
    """Logits, with a little noise in training mode."""
    flat = images.reshape(len(images), -1)
    noise = 0.01 * jax.random.normal(key, (len(images), 3)) if train else 0.0
    calls = state["num_calls"] + (1 if train else 0)
    return flat @ params["dense"]["kernel"] + params["dense"]["bias"] + noise, {"num_calls": calls}


def cross_entropy(logits, labels):
    """Mean over the batch, from logits and integer labels."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


LINEAR = Model(init, apply)
ADAM = optax.adam(1e-2)  # one for all tests, so that they share one compiled step


def separable(num_images, *, seed=0):
    """Noise images with the mean of each class shifted: easy for a linear classifier."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, num_images)
    images = rng.normal(size=(num_images, 4, 4, 1)) + np.eye(3)[labels].repeat(6, axis=1)[:, :16].reshape(-1, 4, 4, 1)
    return Dataset(images.astype(np.float32), labels)


@pytest.fixture
def problem():
    return Problem(
        model=LINEAR,
        loss=cross_entropy,
        optimizer=ADAM,
        train=separable(50),
        valid=separable(20, seed=1),
        num_classes=3,
        batch_size=8,
        num_epochs=2,
    )
