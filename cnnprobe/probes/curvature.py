"""Curvature of the loss by products with its Hessian, which is never formed."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from cnnprobe.checks import check_callable, check_integer
from cnnprobe.probes.vectors import check_same_shapes, tree_dot, tree_norm
from cnnprobe.trees import is_floating, leaf_name
from cnnprobe.types import Key, Params

LossOfParams = Callable[[Params], Float[Array, ""]]


class TopEigenvalue(NamedTuple):
    """The eigenvalue of the Hessian that is largest in size, and its direction."""

    value: Float[Array, ""]  # signed; gradient descent is stable below a learning rate of 2 / value
    vector: Params  # of length 1; its sign means nothing
    residual: Float[Array, ""]  # |H v - value v| / |H v|: 0 where v is an eigenvector; above about .1, take more steps


class TraceEstimate(NamedTuple):
    """Trace of the Hessian, estimated from random directions."""

    mean: Float[Array, ""]
    standard_error: Float[Array, ""]  # of `mean`


def hessian_vector_product(loss_fn: LossOfParams, params: Params, vector: Params) -> Params:
    """Product of the Hessian of `loss_fn` at `params` with `vector`; costs about two gradients.

    Raises:
      ValueError: `loss_fn` does not return one number, `params` holds an array that is not floating-point, or `vector`
        has other shapes.

    >>> hessian_vector_product(lambda x: jnp.sum(x**3), jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0])).tolist()
    [6.0, 12.0]
    """
    params = _checked(loss_fn, params)
    check_same_shapes("vector", vector, "params", params)
    vector = optax.tree.cast_like(vector, params)
    return jax.jvp(jax.grad(loss_fn), (params,), (vector,))[1]


def top_eigenvalue(loss_fn: LossOfParams, params: Params, key: Key, *, num_steps: int = 20) -> TopEigenvalue:
    """Finds the Hessian's eigenvalue of largest size by power iteration from a random direction.

    Each step costs one `hessian_vector_product` and shrinks the error by the ratio of the second largest eigenvalue to
    the largest. All is 0 where the Hessian is, and NaN where a product is not finite.

    Raises:
      ValueError: as `hessian_vector_product`; or `num_steps` is below 1.
    """
    params = _checked(loss_fn, params)
    check_integer("num_steps", num_steps, 1)

    def step(_: Int[Array, ""], vector: Params) -> Params:
        """One turn of the power iteration."""
        return _unit(hessian_vector_product(loss_fn, params, vector))

    start = _unit(optax.tree.random_like(key, params))
    vector = jax.lax.fori_loop(0, num_steps, step, start)
    product = hessian_vector_product(loss_fn, params, vector)
    value, size = tree_dot(vector, product), tree_norm(product)
    rest = tree_norm(jax.tree.map(lambda p, v: p - value.astype(p.dtype) * v, product, vector))
    return TopEigenvalue(value, vector, rest / jnp.where(size == 0, 1, size))


def hessian_trace(loss_fn: LossOfParams, params: Params, key: Key, *, num_samples: int = 10) -> TraceEstimate:
    """Estimates the Hessian's trace as the mean of v'Hv over random vectors v of signs.

    Exact, with an error of 0, where the Hessian is diagonal.

    Raises:
      ValueError: as `hessian_vector_product`; or `num_samples` is below 2.

    References:
      Hutchinson, A stochastic estimator of the trace of the influence matrix, 1990.
    """
    params = _checked(loss_fn, params)
    check_integer("num_samples", num_samples, 2)

    def sample(key: Key) -> Float[Array, ""]:
        """One sample of the trace."""
        signs = optax.tree.random_like(key, params, jax.random.rademacher)
        return tree_dot(signs, hessian_vector_product(loss_fn, params, signs))

    # One after the other: a batch of products would need the memory of as many backward passes.
    samples = jax.lax.map(sample, jax.random.split(key, num_samples))
    return TraceEstimate(jnp.mean(samples), jnp.std(samples, ddof=1) / np.sqrt(num_samples))


def _unit(vector: Params) -> Params:
    """The vector at length 1; zeros stay zeros."""
    length = tree_norm(vector)
    length = jnp.where(length == 0, 1, length)
    return jax.tree.map(lambda leaf: (leaf / length).astype(leaf.dtype), vector)


def _checked(loss_fn: LossOfParams, params: Params) -> Params:
    """The parameters as arrays; raises `ValueError` unless the loss takes such floats to one number."""
    check_callable("loss_fn", loss_fn)
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    for path, leaf in leaves:
        if not is_floating(leaf):
            raise ValueError(f"params must be floating-point, got {jnp.result_type(leaf)} at {leaf_name(path)!r}.")
    value = jax.eval_shape(loss_fn, params)
    if getattr(value, "shape", None) != ():
        raise ValueError(f"loss_fn must return one number, got {value}.")
    return jax.tree.map(jnp.asarray, params)
