"""Max pools computed another way: the same values and gradients, bit for bit, without XLA's slow scatter."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

import cnnprobe as cp
from cnnprobe.models.networks import small_cnn
from cnnprobe.tracing.pools import max_pool
from cnnprobe.tracing.surgery import quick_pools
from cnnprobe.training.step import init_state, make_train_step

from .networks import assert_trees_equal

SCATTER = "select-and-scatter"
KEY = jax.random.key(0)


def slow_gradient(x, gradient, window, strides):
    """The loop over windows: each gives its gradient to the first of its largest entries."""
    moved = np.zeros(x.shape, np.float64)
    for place in np.ndindex(gradient.shape):
        corner = [at * stride for at, stride in zip(place, strides, strict=True)]
        entries = x[tuple(slice(start, start + width) for start, width in zip(corner, window, strict=True))]
        first = np.unravel_index(np.argmax(entries), entries.shape)
        moved[tuple(start + at for start, at in zip(corner, first, strict=True))] += gradient[place]
    return moved


def reduce_window(x, window, strides, padding="VALID"):
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)


def pulled_back(fn, x, gradient):
    return jax.vjp(fn, x)[1](gradient)[0]


@st.composite
def pools(draw):
    """Whole numbers, so that many entries are equal, and a window that fits them."""
    height, width = draw(st.integers(3, 9)), draw(st.integers(3, 9))
    window = (1, draw(st.integers(1, 3)), draw(st.integers(1, 3)), 1)
    strides = (1, draw(st.integers(1, 3)), draw(st.integers(1, 3)), 1)
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    x = rng.integers(-2, 3, (2, height, width, draw(st.integers(1, 3)))).astype(np.float32)
    out = reduce_window(jnp.asarray(x), window, strides)
    return x, rng.integers(-8, 9, out.shape).astype(np.float32), window, strides


@given(pools())
def test_gradient_is_that_of_a_loop_over_windows(drawn):
    x, gradient, window, strides = drawn
    found = pulled_back(lambda x: max_pool(x, window, strides), jnp.asarray(x), gradient)
    np.testing.assert_array_equal(found, slow_gradient(x, gradient, window, strides))
    np.testing.assert_array_equal(found, pulled_back(lambda x: reduce_window(x, window, strides), x, gradient))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("padding", ["VALID", "SAME", ((0, 0), (1, 0), (0, 2), (0, 0))])
def test_pool_of_a_program_is_replaced_with_its_padding_and_precision(padding, dtype):
    x = jax.random.normal(KEY, (4, 9, 7, 3), dtype)

    def pool(x):
        return reduce_window(x, (1, 2, 3, 1), (1, 2, 2, 1), padding)

    quick = quick_pools(pool)
    gradient = jax.random.normal(KEY, pool(x).shape, dtype)
    assert_trees_equal(jax.jit(quick)(x), pool(x))
    assert_trees_equal(jax.jit(lambda x: pulled_back(quick, x, gradient))(x), pulled_back(pool, x, gradient))


def test_nan_stays_nan():
    x = jnp.ones((1, 4, 4, 1)).at[0, 1, 1, 0].set(jnp.nan)
    gradient = pulled_back(lambda x: max_pool(x, (1, 2, 2, 1), (1, 2, 2, 1)), x, jnp.full((1, 2, 2, 1), jnp.nan))
    assert jnp.isnan(max_pool(x, (1, 2, 2, 1), (1, 2, 2, 1))[0, 0, 0, 0])
    assert jnp.isnan(gradient[0, 1, 1, 0])


def test_works_under_vmap_forward_mode_and_second_derivatives():
    x = jax.random.normal(KEY, (3, 6, 6, 2))

    def energy(x, pool):
        return jnp.sum(pool(x) ** 3)

    own, quick = (
        lambda x: energy(x, lambda x: nn.max_pool(x, (2, 2), (2, 2))),
        lambda x: energy(x, lambda x: max_pool(x, (1, 2, 2, 1), (1, 2, 2, 1))),
    )
    direction = jax.random.normal(jax.random.key(1), x.shape)
    for of in (
        lambda fn: jax.jvp(fn, (x,), (direction,))[1],
        lambda fn: jax.jvp(jax.grad(fn), (x,), (direction,))[1],
        lambda fn: jax.vmap(jax.grad(lambda image: fn(image[None])))(x),
    ):
        np.testing.assert_allclose(of(quick), of(own), rtol=1e-5)


def test_pools_in_a_loop_are_replaced():
    x = jax.random.normal(KEY, (2, 8, 8, 3))
    w = jax.random.normal(KEY, (3, 3))

    def loss(w):
        def turn(x, _):
            return jnp.repeat(nn.max_pool(x @ w, (2, 2), (2, 1), padding="SAME"), 2, axis=1), None

        return jnp.sum(lax.scan(turn, x, None, length=3)[0])

    quick = jax.jit(jax.grad(quick_pools(loss)))
    assert SCATTER in jax.jit(jax.grad(loss)).lower(w).as_text("hlo")
    assert SCATTER not in quick.lower(w).as_text("hlo")
    np.testing.assert_allclose(quick(w), jax.grad(loss)(w), rtol=1e-5)


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: reduce_window(x, (1, 4, 4, 1), (1, 4, 4, 1)),
        lambda x: reduce_window(x, (1, 3, 3, 1), (1, 1, 1, 1), "SAME"),
        lambda x: lax.reduce_window(
            x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID", window_dilation=(1, 2, 2, 1)
        ),
    ],
    ids=["large windows", "windows that overlap much", "windows with holes"],
)
def test_other_pools_are_left_as_they_are(pool):
    x = jnp.ones((1, 8, 8, 1))
    assert str(jax.make_jaxpr(quick_pools(pool))(x)) == str(jax.make_jaxpr(pool)(x))


def test_an_accelerator_keeps_its_own_pools(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    pool = lambda x: nn.max_pool(x, (2, 2), (2, 2))  # noqa: E731
    assert "custom_jvp" not in str(jax.make_jaxpr(quick_pools(pool))(jnp.ones((1, 8, 8, 1))))


MODEL = small_cnn(3)
IMAGES = jax.random.normal(KEY, (8, 8, 8, 1))
LABELS = jnp.arange(8) % 3


def loss_of_batch(params):
    logits, _ = MODEL.apply(params, {}, IMAGES, key=KEY, train=True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()


def test_tapped_gradients_are_the_same_without_the_scatter():
    params, _ = MODEL.init(KEY, IMAGES)
    own, tapped = jax.jit(jax.value_and_grad(loss_of_batch)), jax.jit(cp.value_and_grad(loss_of_batch))
    assert SCATTER in own.lower(params).as_text("hlo")
    assert SCATTER not in tapped.lower(params).as_text("hlo")
    assert_trees_equal(tapped(params)[:2], own(params))


def test_a_training_step_takes_the_same_update_without_the_scatter():
    def loss(logits, labels):
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    data = cp.Dataset(np.asarray(IMAGES), np.asarray(LABELS))
    problem = cp.Problem(MODEL, loss, optax.sgd(0.1), data, batch_size=8)
    state = init_state(problem, KEY, IMAGES)
    gradient = jax.jit(jax.grad(loss_of_batch))(state.params)
    expected = jax.tree.map(lambda w, g: w - 0.1 * g, state.params, gradient)
    step = make_train_step(MODEL, loss, problem.optimizer, num_classes=3)
    assert SCATTER not in step.lower(state, IMAGES, LABELS).as_text("hlo")
    after, _ = step(state, IMAGES, LABELS)
    jax.tree.map(lambda found, wanted: np.testing.assert_allclose(found, wanted, atol=1e-7), after.params, expected)
