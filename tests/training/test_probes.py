import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.training.probes import LAYER_READINGS, gradient_norm, layer_names, layer_readings
from cnnprobe.training.step import Observation

PARAMS = {"conv": {"kernel": jnp.array([[3.0, 4.0]])}, "head": {"bias": jnp.zeros(2)}}
GRADS = {"conv": {"kernel": jnp.array([[0.0, 2.0]])}, "head": {"bias": jnp.array([1.0, -2.0])}}
UPDATES = {"conv": {"kernel": jnp.array([[0.03, 0.04]])}, "head": {"bias": jnp.array([1.0, 0.0])}}


def observe(params=PARAMS, grads=GRADS, updates=UPDATES):
    return Observation(params, grads, updates, None, None, None, None)


@pytest.fixture(params=[lambda f: f, jax.jit], ids=["eager", "jit"])
def variant(request):
    return request.param


def test_gradient_norm_is_over_all_parameters(variant):
    np.testing.assert_allclose(variant(gradient_norm)(observe()), 3.0, rtol=1e-6)


def test_layer_readings_match_their_definitions(variant):
    expected = {
        "gradient_norm": [2.0, np.sqrt(5)],
        "gradient_zero_share": [0.5, 0.0],
        "log10_update_ratio": [-2.0, np.inf],
    }
    readings = variant(layer_readings)(observe())
    np.testing.assert_allclose(readings, [expected[name] for name in LAYER_READINGS], rtol=1e-5)


def test_columns_are_named_in_their_order():
    assert layer_names(PARAMS) == ("conv/kernel", "head/bias")


@pytest.mark.parametrize("params", [PARAMS, jax.tree.map(jnp.zeros_like, PARAMS)])
def test_what_does_not_move_has_a_ratio_of_zero(params):
    readings = layer_readings(observe(params=params, updates=jax.tree.map(jnp.zeros_like, UPDATES)))
    np.testing.assert_array_equal(readings[LAYER_READINGS.index("log10_update_ratio")], [-np.inf, -np.inf])


def test_nan_gradient_is_a_nan_reading():
    grads = jax.tree.map(lambda x: x * jnp.nan, GRADS)
    assert np.isnan(layer_readings(observe(grads=grads))[0]).all()
