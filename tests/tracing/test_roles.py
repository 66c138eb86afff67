"""Which axes are examples and which are places is asked of the first convolution."""

import jax
import jax.numpy as jnp
import pytest

from cnnprobe.tracing.graph import model_graph

KERNEL = jnp.ones((5, 3, 3, 3))  # output and input channels first


def conv(w, x):
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME")


@pytest.mark.parametrize(
    ("fn", "shape", "image", "places"),
    [
        (conv, (2, 3, 8, 6), (3, 8, 6), (8, 6)),
        (lambda w, x: conv(w, x.transpose(0, 3, 1, 2)), (2, 8, 6, 3), (8, 6, 3), (8, 6)),
        (lambda w, x: conv(w, x[None]), (3, 8, 6), (3, 8, 6), (8, 6)),
        (lambda w, x: jax.vmap(lambda one: conv(w, one[None])[0])(x), (2, 3, 8, 6), (3, 8, 6), (8, 6)),
        (lambda w, x: conv(w, x.astype(jnp.float32) / 255), (2, 3, 8, 6), (3, 8, 6), (8, 6)),
    ],
)
def test_axes(fn, shape, image, places):
    graph = model_graph(fn, KERNEL, jnp.ones(shape))
    assert (graph.input_shape, graph.input_places) == (image, places)


def test_state_is_not_taken_for_the_images():
    graph = model_graph(lambda w, s, x: conv(w, x - s), KERNEL, jnp.ones((1, 3, 1, 1)), jnp.ones((2, 3, 8, 6)))
    assert graph.input_places == (8, 6)


def test_without_data():
    graph = model_graph(lambda w: w @ w, jnp.eye(3))
    assert (graph.input_shape, graph.layers) == ((), ())
