import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.trees import SMALL, joint_sums


@pytest.mark.parametrize("transform", [lambda fn: fn, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 3, 16, 16), (SMALL,), (SMALL + 1,), (0,)])
def test_sums_are_those_of_each_array(transform, shape):
    x, y = np.random.default_rng(0).normal(1.0, 2.0, (2, *shape)).astype(np.float32)
    got = transform(lambda x, y: joint_sums([x * x, -x * y, y > 0]))(x, y)
    wide = np.float64([x, y])
    expected = [(wide[0] ** 2).sum(), -(wide[0] * wide[1]).sum(), (wide[1] > 0).sum()]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_sums_of_bfloat16_are_in_float32():
    x = jnp.full(3000, 1.0, jnp.bfloat16)
    assert joint_sums([x])[0] == 3000  # bfloat16 has no number between 256 and 258


def test_seeds_have_sums_of_their_own():
    x = jnp.arange(12.0).reshape(3, 4)
    np.testing.assert_allclose(jax.vmap(lambda row: joint_sums([row, row * row]))(x)[:, 0], x.sum(1))


def test_small_arrays_are_summed_in_one_pass():
    text = jax.jit(lambda x: joint_sums([x, x * x, x == 0])).lower(jnp.ones(8)).as_text()
    assert text.count("stablehlo.reduce") == 1
