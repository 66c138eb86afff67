"""An inserted normalisation does what the same network does with it written in."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.tracing.graph import model_graph
from cnnprobe.tracing.normalising import insert_normalisation

from .networks import IMAGES, LinenNet, assert_trees_equal, linen_arguments, plain_params

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def normalised(x, num_groups=1):
    """Group normalisation of images or rows, the slow way."""
    groups = jnp.split(x, num_groups, axis=-1)
    axes = tuple(range(1, x.ndim))
    return jnp.concatenate(
        [
            (group - group.mean(axes, keepdims=True)) / jnp.sqrt(group.var(axes, keepdims=True) + 1e-5)
            for group in groups
        ],
        axis=-1,
    )


def network(norm=lambda x: x, head_norm=lambda x: x, wrap=lambda fn: fn):
    """Two convolutions and a head; `norm` in front of the bias of both convolutions."""

    def layer(layer, x):
        x = jax.lax.conv_general_dilated(x, layer["w"], (1, 1), "SAME", dimension_numbers=DIMENSIONS)
        return jax.nn.relu(norm(x) + layer["b"])

    def apply(params, x):
        for name in ("conv1", "conv2"):
            x = wrap(layer)(params[name], x)
        return head_norm(x.reshape(len(x), -1) @ params["head"]["w"]) + params["head"]["b"]

    return apply


def value_and_gradient(fn, params):
    return jax.jit(jax.value_and_grad(lambda params: jnp.sum(jnp.sin(fn(params, IMAGES)))))(params)


def test_every_convolution():
    got = value_and_gradient(insert_normalisation(network()), plain_params())
    assert_trees_equal(got, value_and_gradient(network(normalised), plain_params()), rtol=1e-3)


def test_named_layers_with_groups():
    params = plain_params()
    fn = insert_normalisation(network(), ["head"], num_groups=2)
    expected = network(head_norm=lambda x: normalised(x, 2))
    np.testing.assert_allclose(fn(params, IMAGES), expected(params, IMAGES), rtol=1e-4, atol=1e-5)


WRAPS = {
    "jit": jax.jit,
    "remat": jax.checkpoint,
    "cond": lambda fn: lambda layer, x: jax.lax.cond(x.sum() < 1e9, fn, fn, layer, x),
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_inside(wrap):
    got = value_and_gradient(insert_normalisation(network(wrap=WRAPS[wrap])), plain_params())
    assert_trees_equal(got, value_and_gradient(network(normalised), plain_params()), rtol=1e-3)


def test_inside_a_loop_over_layers():
    def net(norm):
        return lambda w, x: jax.lax.scan(lambda x, w: (jnp.tanh(norm(x @ w)), None), x, w)[0].sum()

    w, x = jax.random.normal(jax.random.key(0), (3, 6, 6)), jax.random.normal(jax.random.key(1), (4, 6))
    got = jax.value_and_grad(insert_normalisation(net(lambda x: x), ["params"]))(w, x)
    assert_trees_equal(got, jax.jit(jax.value_and_grad(net(normalised)))(w, x), rtol=1e-3)


def test_linen_group_norm_is_the_same():
    conv, norm = nn.Conv(6, (3, 3), use_bias=False), nn.GroupNorm(3, use_bias=False, use_scale=False, epsilon=1e-5)
    params = conv.init(jax.random.key(0), IMAGES)
    got = insert_normalisation(conv.apply, num_groups=3)(params, IMAGES)
    np.testing.assert_allclose(got, norm.apply({}, conv.apply(params, IMAGES)), rtol=1e-3, atol=1e-4)


def test_several_feature_axes_of_a_dense_layer():
    module, x = nn.DenseGeneral((2, 3), use_bias=False), jax.random.normal(jax.random.key(0), (4, 5, 7))
    params = module.init(jax.random.key(1), x)
    got = insert_normalisation(module.apply, ["kernel"])(params, x)
    expected = normalised(module.apply(params, x).reshape(20, 6)).reshape(4, 5, 2, 3)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_channels_first():
    def fn(w, x):
        return jax.lax.conv(x, w, (1, 1), "SAME")

    w, x = jax.random.normal(jax.random.key(0), (4, 3, 3, 3)), IMAGES.transpose(0, 3, 1, 2)
    got = insert_normalisation(fn, num_groups=2)(w, x).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(got, normalised(fn(w, x).transpose(0, 2, 3, 1), 2), rtol=1e-3, atol=1e-4)


def test_an_example_does_not_depend_on_its_batch():
    fn = insert_normalisation(network())
    np.testing.assert_allclose(fn(plain_params(), IMAGES)[:1], fn(plain_params(), IMAGES[:1]), rtol=1e-4, atol=1e-5)


def test_precision_is_kept():
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), plain_params())
    assert insert_normalisation(network())(params, IMAGES.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_layers_with_a_normalisation_are_left_alone():
    params, batch_stats, images, *_ = linen_arguments()

    def apply(params, images):
        return LinenNet().apply({"params": params, "batch_stats": batch_stats}, images, False)

    with pytest.raises(
        ValueError, match=r"convolution without normalisation where names is None, got layers: \['Conv_0"
    ):
        insert_normalisation(apply)(params, images)


def test_the_graph_shows_it():
    layers = model_graph(insert_normalisation(network()), plain_params(), IMAGES).layers
    assert [layer.normalisation for layer in layers] == ["conv1", "conv2", ""]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["conv3"]}, r"names must be layers of fn .*got \['conv3'\]; layers: \['conv1', 'conv2', 'head'\]"),
        ({"names": "conv1"}, "names must be a sequence of names, got 'conv1'"),
        ({"num_groups": 2}, "num_groups must divide the 5 features of conv1, got 2"),
        ({"num_groups": 0}, "num_groups must be a whole number of at least 1, got 0"),
        ({"names": ["head"], "num_groups": 4}, "num_groups must leave several numbers a group in head, got 4"),
    ],
)
def test_what_cannot_be_normalised(options, message):
    with pytest.raises(ValueError, match=message):
        insert_normalisation(network(), **options)(plain_params(), IMAGES)


def test_a_layer_that_cannot_be_reached():
    def fn(w, x):
        return jax.lax.while_loop(lambda x: x.sum() < 1, lambda x: x @ w["kept"] + 1, x) @ w["head"]

    with pytest.raises(ValueError, match=r"got \['kept'\]; layers: \['head'\], not looked into: \['while"):
        insert_normalisation(fn, ["kept"])({"kept": jnp.eye(3), "head": jnp.eye(3)}, jnp.ones((2, 3)))
