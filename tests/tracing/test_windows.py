"""Multiply-adds, by hand and as the compiler counts them, and the words for windows."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from cnnprobe.tracing.graph import model_graph

# On 8x8 maps of 4 channels: (layer, multiply-adds of one example, from the shapes).
BY_HAND = {
    "same": (nn.Conv(6, (3, 3)), 8 * 8 * 6 * 3 * 3 * 4),
    "valid": (nn.Conv(6, (3, 5), padding="VALID"), 6 * 4 * 6 * 3 * 5 * 4),
    "strided": (nn.Conv(6, (3, 3), 2), 4 * 4 * 6 * 3 * 3 * 4),
    "grouped": (nn.Conv(6, (3, 3), feature_group_count=2), 8 * 8 * 6 * 3 * 3 * 2),
    "depthwise": (nn.Conv(8, (3, 3), feature_group_count=4), 8 * 8 * 8 * 3 * 3 * 1),
    "dilated": (nn.Conv(6, (3, 3), kernel_dilation=2, padding="VALID"), 4 * 4 * 6 * 3 * 3 * 4),
    "transposed": (nn.ConvTranspose(6, (3, 3), (2, 2), padding="VALID"), 8 * 8 * 4 * 3 * 3 * 6),
    "transposed, kernel 2": (nn.ConvTranspose(6, (2, 2), (2, 2)), 8 * 8 * 4 * 2 * 2 * 6),
    "dense on every place": (nn.Dense(5), 8 * 8 * 4 * 5),
    "dense over two axes": (nn.DenseGeneral(5, axis=(-2, -1)), 8 * 8 * 4 * 5),
}


def graph_of(module, images):
    return model_graph(module.apply, jax.eval_shape(module.init, jax.random.key(0), images), images)


@pytest.mark.parametrize("name", BY_HAND)
def test_multiply_adds_by_hand(name):
    module, expected = BY_HAND[name]
    assert graph_of(module, jnp.ones((3, 8, 8, 4))).multiply_adds == expected


@pytest.mark.parametrize("name", [name for name in BY_HAND if name not in ("same", "strided", "grouped", "depthwise")])
def test_multiply_adds_as_the_compiler_counts_them(name):
    module, images = BY_HAND[name][0].clone(use_bias=False), jnp.ones((3, 8, 8, 4))
    params = jax.eval_shape(module.init, jax.random.key(0), images)
    flops = jax.jit(module.apply).lower(params, images).cost_analysis()["flops"]
    assert 2 * 3 * model_graph(module.apply, params, images).multiply_adds == flops


def test_a_loop_costs_all_its_turns():
    graph = model_graph(lambda w, x: jax.lax.fori_loop(0, 5, lambda _, x: x @ w, x), jnp.eye(3), jnp.ones((2, 3)))
    assert graph.multiply_adds == 5 * 3 * 3


def test_a_single_image_under_vmap_costs_as_much_as_in_a_batch():
    def single(w, image):
        return jax.lax.conv_general_dilated(image[None], w, (1, 1), "SAME")[0]

    weights, images = jnp.ones((6, 3, 3, 3)), jnp.ones((5, 3, 8, 8))
    batched = model_graph(lambda w, x: jax.vmap(single, (None, 0))(w, x), weights, images)
    assert batched.multiply_adds == model_graph(single, weights, images[0]).multiply_adds == 8 * 8 * 6 * 3 * 3 * 3


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (nn.Conv(6, (3, 3)), "3x3 same"),
        (nn.Conv(6, (3, 1), (2, 2), padding="VALID"), "3x1/2 valid"),
        (nn.Conv(6, (3, 3), kernel_dilation=2, padding=((1, 2), (3, 4))), "3x3 dilated 2 1,2 3,4"),
        (nn.ConvTranspose(6, (4, 4), (2, 2)), "4x4 up 2 "),
    ],
)
def test_words_for_windows(module, text):
    assert text in str(graph_of(module, jnp.ones((3, 8, 8, 4))))
