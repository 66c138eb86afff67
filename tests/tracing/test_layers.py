"""Layers are found, named and followed to their true output in every library and order of operations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.tracing.readings import layer_stats, unit_stats
from cnnprobe.tracing.taps import tap, value_and_grad

from .networks import IMAGES, LABELS, LinenNet, linen_arguments, linen_loss, nnx_parts, reference


def summary(readings):
    return [(layer.name, layer.kind, layer.activation, layer.num_features) for layer in readings.layout.layers]


def linen_readings(module, images=IMAGES):
    params = module.init(jax.random.key(0), images)
    return params, tap(module.apply)(params, images)[1]


def test_linen_layers():
    readings = value_and_grad(linen_loss, has_aux=True)(*linen_arguments())[2]
    assert summary(readings) == [
        ("Conv_0", "conv", "relu", 6),
        ("Conv_1", "conv", "relu", 6),
        ("Dense_0", "dense", "", 4),
    ]


def test_variables_with_batch_statistics_as_one_argument():
    params, batch_stats, images, *_ = linen_arguments()
    variables = {"params": params, "batch_stats": batch_stats}
    readings = tap(lambda variables, x: LinenNet().apply(variables, x, False))(variables, images)[1]
    assert list(layer_stats(readings)) == ["Conv_0", "Conv_1", "Dense_0"]


def test_nnx_layers():
    loss, *parts = nnx_parts()
    readings = value_and_grad(loss, has_aux=True)(*parts, IMAGES, LABELS)[2]
    assert summary(readings) == [
        ("conv", "conv", "relu", 6),
        ("layers/0", "dense", "silu", 5),
        ("layers/1", "dense", "", 4),
    ]


def test_batch_norm_is_read_behind_its_activation():
    params, batch_stats, images, labels, key = linen_arguments()
    model = LinenNet()
    variables = {"params": params, "batch_stats": batch_stats}
    _, state = model.apply(variables, images, True, mutable=True, capture_intermediates=True, rngs={"dropout": key})
    normalised = state["intermediates"]["BatchNorm_0"]["__call__"][0]
    readings = value_and_grad(linen_loss, has_aux=True)(params, batch_stats, images, labels, key)[2]
    mean, *_, zeros = reference(jax.nn.relu(normalised))
    units = unit_stats(readings)["Conv_0"]
    np.testing.assert_allclose([units.mean, 1 - units.mean_sign], [mean, zeros], rtol=1e-4)


def test_both_branches_of_a_residual_share_the_reading_behind_their_sum():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.relu(nn.Conv(5, (3, 3), name="main")(x) + nn.Conv(5, (1, 1), name="shortcut")(x))

    stats = layer_stats(linen_readings(Net())[1])
    assert stats["main"][:-2] == stats["shortcut"][:-2]
    assert stats["main"].activation == "relu"


def test_without_an_activation_a_residual_branch_ends_before_the_sum():
    def fn(params, x):
        y = x @ params["w"] + params["b"]
        return x + y, y

    params = {"w": jnp.eye(3), "b": jnp.arange(3.0)}
    (_, y), readings = tap(fn)(params, jnp.ones((4, 3)))
    np.testing.assert_allclose(unit_stats(readings)["w"].mean, y.mean(0))


def test_shared_module_is_numbered():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            conv = nn.Conv(3, (3, 3))
            return nn.relu(conv(nn.relu(conv(x))))

    _, readings = linen_readings(Net())
    assert list(layer_stats(readings)) == ["Conv_0", "Conv_0#1"]


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (nn.Conv(6, (3, 3)), "conv"),
        (nn.Conv(6, (3, 3), kernel_dilation=2), "conv"),
        (nn.Conv(6, (3, 3), feature_group_count=3), "depthwise-conv"),
        (nn.ConvTranspose(6, (3, 3), strides=(2, 2)), "transposed-conv"),
        (nn.Dense(6), "dense"),
        (nn.DenseGeneral((2, 3)), "dense"),
        (nn.Conv(6, (3, 3), dtype=jnp.bfloat16), "conv"),
    ],
)
def test_kinds_and_units(module, kind):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return module.copy(name="layer")(x)

    params, readings = linen_readings(Net())
    out = Net().apply(params, IMAGES)
    (layer,) = readings.layout.layers
    assert (layer.name, layer.kind, layer.num_features) == ("layer", kind, 6)
    expected = np.asarray(out, np.float64).reshape(-1, 6).mean(0)
    np.testing.assert_allclose(unit_stats(readings)["layer"].mean, expected, rtol=1e-2, atol=1e-3)


def test_grouped_convolution():
    assert linen_readings(nn.Conv(8, (3, 3), feature_group_count=2), jnp.ones((2, 4, 4, 4)))[1].layout.layers[
        0
    ].kind == ("grouped-conv")


ORDERS = {
    "pool before": (lambda x: nn.relu(nn.max_pool(x, (2, 2), (2, 2))), "relu"),
    "mean pool before": (lambda x: nn.relu(nn.avg_pool(x, (2, 2), (2, 2))), "relu"),
    "layer norm": (lambda x: nn.gelu(nn.LayerNorm()(x)), "gelu"),
    "group norm": (lambda x: nn.silu(nn.GroupNorm(2)(x)), "silu"),
    "flattened": (lambda x: nn.relu(x.reshape(len(x), -1, 6)), "relu"),
    "channels first": (lambda x: nn.relu(x.transpose(0, 3, 1, 2)), "relu"),
    "rematerialised activation": (lambda x: nn.relu(x.astype(jnp.bfloat16)), "relu"),
    "softmax": (nn.softmax, "softmax"),
    "other nonlinearity": (jnp.sin, ""),
}


@pytest.mark.parametrize("order", ORDERS)
def test_what_may_lie_between_a_layer_and_its_activation(order):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return ORDERS[order][0](nn.Conv(6, (3, 3))(x))

    (layer,) = linen_readings(Net())[1].layout.layers
    assert (layer.activation, layer.num_features) == (ORDERS[order][1], 6)


def test_units_follow_a_transposition():
    def fn(w, x):
        return jax.nn.relu((x @ w).reshape(4, 2, 3, 5).transpose(0, 3, 1, 2))

    w, x = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(7, 5), (4, 6, 7)]))
    out, readings = tap(fn)(w, x)
    np.testing.assert_allclose(unit_stats(readings)["params"].mean, np.asarray(out).mean((0, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("kernel_first", [True, False])
def test_per_example_functions_under_vmap(kernel_first):
    def example(w, x):
        return jnp.tanh(w @ x if kernel_first else x @ w)

    w, x = jax.random.normal(jax.random.key(0), (5, 5)), jax.random.normal(jax.random.key(1), (8, 5))
    out, readings = tap(jax.vmap(example, in_axes=(None, 0)))(w, x)
    np.testing.assert_allclose(unit_stats(readings)["params"].mean, np.asarray(out).mean(0), rtol=1e-5, atol=1e-7)


def test_softmax_is_read_before():
    w, x = jax.random.normal(jax.random.key(0), (5, 4)), jax.random.normal(jax.random.key(1), (8, 5))
    readings = tap(lambda w, x: jax.nn.softmax(x @ w))(w, x)[1]
    np.testing.assert_allclose(unit_stats(readings)["params"].mean, np.asarray(x @ w).mean(0), rtol=1e-5, atol=1e-7)


def test_weight_standardisation_keeps_the_name():
    def fn(params, x):
        w = params["conv"]["kernel"]
        return jax.nn.relu(x @ ((w - w.mean(0)) / (w.std(0) + 1e-5)))

    readings = tap(fn)({"conv": {"kernel": jnp.arange(12.0).reshape(3, 4) ** 2}}, jnp.ones((2, 3)))[1]
    assert summary(readings) == [("conv", "dense", "relu", 4)]


def test_attention_products_of_data_are_no_layers():
    module = nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=6)
    names = list(layer_stats(linen_readings(module, jnp.ones((2, 4, 6)))[1]))
    assert sorted(names) == ["key", "out", "query", "value"]


def test_a_backward_pass_inside_is_no_layer():
    def penalty(w, x):
        return jnp.sum(jax.grad(lambda x: jnp.sum(jnp.tanh(x @ w)))(x) ** 2)

    assert len(tap(penalty)(jnp.eye(3), jnp.ones((2, 3)))[1].layout.layers) == 1


def test_penalty_on_the_parameters_is_no_layer():
    readings = tap(lambda w, x: jnp.sum(x @ w) + jnp.sum(w.T @ w))(jnp.eye(3), jnp.ones((2, 3)))[1]
    assert list(layer_stats(readings)) == ["params"]


# --- kernels that are made, not given -----------------------------------------------------------------------------

MASK = np.tril(np.ones((3, 4), np.float32))
NOISE = jax.random.normal(jax.random.key(2), (3, 4))
KERNELS = {
    "masked by a constant": lambda w, extra: w * MASK,
    "masked by an argument": lambda w, extra: w * extra,
    "masked by selection": lambda w, extra: jnp.where(extra > 0, w, 0.0),
    "noisy": lambda w, extra: w + 0.1 * extra,
    "masked, then standardised": lambda w, extra: (w * MASK - (w * MASK).mean(0)) / (w * MASK).std(0),
    "reshaped and transposed": lambda w, extra: (w.T.reshape(2, 6) * extra.reshape(2, 6)).reshape(4, 3).T,
    "divided by its norm": lambda w, extra: w / jnp.linalg.norm(w @ extra[0]),
}


@pytest.mark.parametrize("make", KERNELS)
@pytest.mark.parametrize("is_closed_over", [True, False])
def test_a_kernel_made_with_constants_and_data_keeps_its_name(make, is_closed_over):
    x, params = jnp.ones((2, 3)), {"conv": {"kernel": jnp.arange(12.0).reshape(3, 4)}, "head": jnp.eye(4)}

    def fn(params, x):
        return jax.nn.relu(x @ KERNELS[make](params["conv"]["kernel"], NOISE)) @ params["head"]

    readings = tap(lambda params: fn(params, x))(params)[1] if is_closed_over else tap(fn)(params, x)[1]
    assert summary(readings) == [("conv", "dense", "relu", 4), ("head", "dense", "", 4)]


@pytest.mark.parametrize("train", [True, False])
def test_spectral_normalisation_is_one_layer(train):
    module = nn.SpectralNorm(nn.Dense(4))
    variables = module.init(jax.random.key(0), IMAGES[:, 0, 0], update_stats=True)
    readings = tap(lambda p, s, x: module.apply({"params": p, **s}, x, update_stats=train, mutable=True)[0])(
        variables["params"], {"batch_stats": variables["batch_stats"]}, IMAGES[:, 0, 0]
    )[1]
    assert list(layer_stats(readings)) == ["layer_instance"]


def test_spectral_normalisation_in_a_branch_is_one_layer():
    def divided(w):
        v = jax.lax.stop_gradient(w @ NOISE[:, 0])
        return w / (v @ w @ NOISE[:, 0])

    def fn(w, x):
        return jnp.tanh(x @ jax.lax.cond(jnp.all(w == 0), lambda w: w, divided, w))

    w = jnp.eye(NOISE.shape[0])
    assert list(layer_stats(tap(fn)(w, w)[1])) == ["params"]


def test_a_kernel_adapted_by_its_own_gradient_is_read_twice():
    def fn(w, x):
        return jnp.tanh(x @ (w - jax.grad(lambda w: jnp.sum(jnp.tanh(x @ w)))(w)))

    assert list(layer_stats(tap(fn)(jnp.eye(3), jnp.ones((2, 3)))[1])) == ["params", "params#1"]


@pytest.mark.parametrize(
    "product", [lambda w, x: (x * w) @ (x * w).T, lambda w, x: x @ (x * w[0]).T, lambda w, x: (w[:1] + x) @ NOISE.T]
)
def test_data_that_a_parameter_scales_or_shifts_is_no_kernel(product):
    x = jnp.ones((3, 4))
    with pytest.raises(ValueError, match="got none"):
        tap(product)(jnp.ones((3, 4)), x)


def test_a_convolution_with_a_fixed_kernel_is_listed():
    def fn(w, x, blur):
        for kernel in (blur, w, np.ones((3, 3, 3, 3), np.float32)):
            x = jax.lax.conv(x, kernel, (1, 1), "SAME")
        return x

    readings = tap(fn)(jnp.ones((3, 3, 3, 3)), IMAGES.transpose(0, 3, 1, 2), jnp.ones((3, 3, 3, 3)))[1]
    assert len(readings.layout.layers) == 1
    assert readings.skipped == ("conv_general_dilated (2 with a kernel that is no parameter)",)
