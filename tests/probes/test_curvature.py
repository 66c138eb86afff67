import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnprobe.probes.curvature import hessian_trace, hessian_vector_product, top_eigenvalue
from cnnprobe.probes.vectors import tree_norm

KEY = jax.random.key(0)


def quadratic(eigenvalues, seed=0):
    """`x'Hx / 2` on a tree of two arrays, and H."""
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues), len(eigenvalues))))
    hessian = basis @ np.diag(eigenvalues) @ basis.T

    def loss(params):
        x = jnp.concatenate([params["a"], params["b"].ravel()])
        return x @ jnp.asarray(hessian, jnp.float32) @ x / 2

    return loss, hessian


def as_tree(x):
    return {"a": jnp.asarray(x[:2], jnp.float32), "b": jnp.asarray(x[2:], jnp.float32).reshape(2, -1)}


def as_vector(tree):
    return np.concatenate([tree["a"], np.ravel(tree["b"])])


def small_net(params):
    x = np.random.default_rng(0).normal(size=(8, 3))
    return jnp.mean((jnp.tanh(x @ params["a"]) @ params["b"]) ** 4)


NET = {"a": jnp.array([[0.5, -0.2], [1.0, 0.3], [-0.4, 0.7]]), "b": jnp.array([0.8, -1.1])}


def test_product_matches_the_matrix(variant):
    (loss, hessian), vector = quadratic([5, 2, 1, -1, 0.5, 0]), np.arange(6.0)
    product = variant(lambda p, v: hessian_vector_product(loss, p, v))(as_tree(np.ones(6)), as_tree(vector))
    np.testing.assert_allclose(as_vector(product), hessian @ vector, rtol=1e-4, atol=1e-5)


def test_product_matches_differences_of_gradients(variant):
    vector = jax.tree.map(lambda leaf: jnp.cos(3 * leaf), NET)
    product = variant(lambda p, v: hessian_vector_product(small_net, p, v))(NET, vector)
    ends = [jax.grad(small_net)(jax.tree.map(lambda p, v, h=h: p + h * v, NET, vector)) for h in (1e-2, -1e-2)]
    for got, high, low in zip(*map(jax.tree.leaves, (product, *ends)), strict=True):
        np.testing.assert_allclose(got, (high - low) / 2e-2, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("eigenvalues", [[9, 3, 1, 0, 0, -1], [-8, 3, 2, 1, 0, 0], [1e-6, 2e-7, 0, 0, 0, 0]])
def test_top_eigenvalue_is_the_largest_in_size(variant, eigenvalues):
    loss, hessian = quadratic(eigenvalues)
    top = variant(lambda p, k: top_eigenvalue(loss, p, k))(as_tree(np.zeros(6)), KEY)
    vector = as_vector(top.vector)
    np.testing.assert_allclose(top.value, eigenvalues[0], rtol=1e-4)
    np.testing.assert_allclose(hessian @ vector, eigenvalues[0] * vector, rtol=1e-2, atol=1e-3 * abs(eigenvalues[0]))


def test_top_eigenvalue_of_a_network(variant):
    flat, unravel = jax.flatten_util.ravel_pytree(NET)
    values = np.linalg.eigvalsh(np.asarray(jax.hessian(lambda x: small_net(unravel(x)))(flat), np.float64))
    top = variant(lambda p, k: top_eigenvalue(small_net, p, k, num_steps=100))(NET, KEY)
    np.testing.assert_allclose(top.value, values[np.argmax(np.abs(values))], rtol=1e-3)


def test_residual_tells_whether_it_converged():
    loss, _ = quadratic([1.0, 0.95, 0.9, 0.5, 0, 0])
    residuals = [top_eigenvalue(loss, as_tree(np.zeros(6)), KEY, num_steps=num).residual for num in (1, 200)]
    assert residuals[0] > 0.02
    assert residuals[1] < 1e-3


def test_trace_matches_the_mean_over_all_signs():
    loss, hessian = quadratic([5, 2, 1, -1, 0.5, 0])
    estimate = hessian_trace(loss, as_tree(np.zeros(6)), KEY, num_samples=2000)
    assert abs(estimate.mean - np.trace(hessian)) < 4 * estimate.standard_error
    off_diagonal = hessian - np.diag(np.diag(hessian))
    np.testing.assert_allclose(estimate.standard_error, np.sqrt(2 * np.sum(off_diagonal**2) / 2000), rtol=0.2)


def test_trace_of_a_diagonal_hessian_is_exact(variant):
    estimate = variant(lambda p, k: hessian_trace(lambda x: jnp.sum(x**3), p, k))(jnp.array([1.0, 2.0, 3.0]), KEY)
    np.testing.assert_allclose(estimate, [36, 0], atol=1e-5)


@pytest.mark.parametrize("probe", [top_eigenvalue, hessian_trace])
@pytest.mark.parametrize(("scale", "expected"), [(0.0, 0.0), (np.nan, np.nan)])
def test_flat_and_broken_losses_do_not_raise(variant, probe, scale, expected):
    reading = variant(lambda p, k: probe(lambda x: scale * jnp.sum(x["a"]), p, k))(NET, KEY)
    assert np.all(np.asarray([reading[0], reading[-1]]) == 0)
    reading = variant(lambda p, k: probe(lambda x: scale * jnp.sum(x["a"] ** 2), p, k))(NET, KEY)
    np.testing.assert_equal(np.asarray([reading[0], reading[-1]]), [expected, expected])


@given(st.floats(0.125, 8, width=32), st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_curvature_grows_with_the_loss(scale, seed):
    readings = [top_eigenvalue(lambda p, s=s: s * small_net(p), NET, jax.random.key(seed)).value for s in (1.0, scale)]
    np.testing.assert_allclose(readings[1], scale * readings[0], rtol=1e-3)


def test_half_precision_parameters_are_read():
    top = top_eigenvalue(lambda x: jnp.sum(x * x), jnp.ones(4, jnp.bfloat16), KEY)
    np.testing.assert_allclose([top.value, tree_norm(top.vector)], [2, 1], rtol=2e-2)


@pytest.mark.parametrize(
    ("loss", "params", "message"),
    [
        (3, NET, "loss_fn must be a function, got 3"),
        (lambda p: p["b"], NET, r"loss_fn must return one number, got .*\(2,\)"),
        (lambda p: (0.0, {}), NET, r"loss_fn must return one number, got \("),
        (lambda p: 0.0, {"n": jnp.arange(3)}, "params must be floating-point, got int32 at 'n'"),
    ],
)
def test_arguments_are_checked(loss, params, message):
    with pytest.raises(ValueError, match=message):
        hessian_vector_product(loss, params, params)


def test_vector_must_match_parameters():
    with pytest.raises(ValueError, match=r"vector and params must have the same shapes, got \(3,\) and \(2,\)"):
        hessian_vector_product(jnp.sum, jnp.ones(2), jnp.ones(3))


def test_counts_are_checked():
    with pytest.raises(ValueError, match="num_steps must be a whole number of at least 1, got 0"):
        top_eigenvalue(small_net, NET, KEY, num_steps=0)
    with pytest.raises(ValueError, match="num_samples must be a whole number of at least 2, got 1"):
        hessian_trace(small_net, NET, KEY, num_samples=1)


def test_standard_error_is_that_of_the_samples():
    loss, _ = quadratic(np.array([1.0, -2.0, 5.0, 7.0, 0.5, 3.0]))
    estimate = hessian_trace(loss, as_tree(np.zeros(6)), KEY, num_samples=3)
    values = [_sample(loss, key) for key in jax.random.split(KEY, 3)]
    np.testing.assert_allclose(estimate, (np.mean(values), np.std(values, ddof=1) / np.sqrt(3)), rtol=1e-4)


def _sample(loss, key):
    """One product with a vector of signs."""
    signs = optax.tree.random_like(key, as_tree(np.zeros(6)), jax.random.rademacher)
    return float(as_vector(signs) @ as_vector(hessian_vector_product(loss, as_tree(np.zeros(6)), signs)))
