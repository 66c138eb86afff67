import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.models import plain

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(2, 5, 6, 3))


@pytest.fixture(params=[lambda f: f, jax.jit], ids=["eager", "jit"])
def variant(request):
    return request.param


def naive_conv(x, kernel, bias, stride):
    """Valid cross-correlation, place by place."""
    size = kernel.shape[0]
    rows, columns = ((n - size) // stride + 1 for n in x.shape[1:3])
    out = np.zeros((len(x), rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            patch = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
            out[:, i, j] = np.tensordot(patch, kernel, 3) + bias
    return out


@pytest.mark.parametrize("stride", [1, 2])
def test_conv_matches_its_definition(variant, stride):
    params = plain.init_conv(KEY, 3, 4) | {"bias": jnp.arange(4.0)}
    y = variant(lambda p, x: plain.conv(p, x, stride=stride, padding="VALID"))(params, jnp.asarray(X, jnp.float32))
    expected = naive_conv(X, np.float64(params["kernel"]), np.arange(4.0), stride)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_same_padding_keeps_the_size():
    assert plain.conv(plain.init_conv(KEY, 3, 4), jnp.asarray(X, jnp.float32)).shape == (2, 5, 6, 4)


def test_batch_norm_in_training_is_by_the_batch(variant):
    params, stats = plain.init_batch_norm(3)
    params = {"scale": jnp.array([1.0, 2.0, 3.0]), "bias": jnp.array([0.0, 1.0, 2.0])}
    y, after = variant(lambda p, s, x: plain.batch_norm(p, s, x, train=True))(
        params, stats, jnp.asarray(X, jnp.float32)
    )
    mean, var = X.mean((0, 1, 2)), X.var((0, 1, 2))
    expected = (X - mean) / np.sqrt(var + 1e-5) * [1, 2, 3] + [0, 1, 2]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after["var"], 0.9 + 0.1 * var, rtol=1e-5)


def test_batch_norm_in_evaluation_is_by_the_running_statistics():
    params, _ = plain.init_batch_norm(3)
    stats = {"mean": jnp.array([1.0, 2.0, 3.0]), "var": jnp.array([4.0, 1.0, 0.25])}
    y, after = plain.batch_norm(params, stats, jnp.asarray(X, jnp.float32), train=False)
    np.testing.assert_allclose(y, (X - [1, 2, 3]) / np.sqrt(np.array([4, 1, 0.25]) + 1e-5), rtol=1e-4, atol=1e-5)
    assert after is stats


@pytest.mark.parametrize(("size", "stride", "shape"), [(2, None, (2, 2, 3, 3)), (3, 2, (2, 2, 2, 3))])
def test_max_pool_takes_the_largest_of_each_window(variant, size, stride, shape):
    y = variant(lambda x: plain.max_pool(x, size=size, stride=stride))(jnp.asarray(X, jnp.float32))
    step = stride or size
    corner = X[:, step : step + size, step : step + size].max((1, 2))
    assert y.shape == shape
    np.testing.assert_allclose(y[:, 1, 1], corner, rtol=1e-6)


def test_global_average_pool_is_the_mean_over_places():
    np.testing.assert_allclose(plain.global_average_pool(jnp.asarray(X)), X.mean((1, 2)), rtol=1e-5, atol=1e-7)


def test_dropout_zeroes_its_rate_and_keeps_the_mean(variant):
    y = np.asarray(variant(lambda k, x: plain.dropout(k, x, rate=0.75))(KEY, jnp.ones((100, 100))))
    assert set(np.unique(y)) == {0.0, 4.0}
    assert abs(np.mean(y == 0) - 0.75) < 0.02  # five standard errors


@pytest.mark.parametrize("options", [{"rate": 0.5, "train": False}, {"rate": 0.0}])
def test_dropout_does_nothing_out_of_training(options):
    np.testing.assert_array_equal(plain.dropout(KEY, jnp.ones(10), **options), np.ones(10))


def test_kernels_are_he_normal():
    kernel = plain.init_conv(KEY, 16, 64)["kernel"]
    assert float(np.std(kernel)) == pytest.approx(np.sqrt(2 / (9 * 16)), rel=0.03)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan"), True, "half"])
def test_bad_rate_is_refused(rate):
    with pytest.raises(ValueError, match="rate must be a number of at least 0 and below 1, got"):
        plain.dropout(KEY, jnp.ones(3), rate=rate)


def test_layer_without_inputs_is_refused():
    with pytest.raises(ValueError, match="num_inputs must be a whole number of at least 1, got 0"):
        plain.init_dense(KEY, 0, 3)


def test_average_pool_matches_definition(variant):
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    windows = x[:, :4].reshape(2, 2, 2, 2, 2, 3)
    np.testing.assert_allclose(variant(plain.average_pool)(x), windows.mean(axis=(2, 4)), rtol=1e-5, atol=1e-6)
