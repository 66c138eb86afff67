import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.models.cases import blood_cell_cnn, digit_resnet, folder_cnn, sixteen_cnn
from cnnprobe.models.chain import batch_norm, chain, conv, dense, dropout, function, residual
from cnnprobe.trees import tree_size

KEY = jax.random.key(0)


def shapes(model, image):
    """Parameters, and outputs of two images, without computing anything."""
    images = jax.ShapeDtypeStruct((2, *image), jnp.float32)
    params, state = jax.eval_shape(lambda x: model.init(KEY, x), images)
    outputs, _ = jax.eval_shape(lambda p, s, x: model.apply(p, s, x, key=KEY, train=True), params, state, images)
    return params, outputs


@pytest.mark.parametrize(
    ("model", "image", "total", "output"),
    [
        (folder_cnn(), (256, 256, 3), 1_382_819, (2, 3)),
        (folder_cnn(blocks=2, units=(128,)), (256, 256, 3), 6_582_755, (2, 3)),
        (sixteen_cnn(), (224, 224, 3), 448 + 4_640 + 18_496 + 73_856 + 2_064, (2, 106, 106, 16)),
        (sixteen_cnn(flat=True), (224, 224, 3), 448 + 4_640 + 18_496 + 73_856 + 106 * 106 * 2_048 + 16, (2, 16)),
        (blood_cell_cnn(), (80, 80, 1), 800 + 46_144 + 36_928 + 40 * 40 * 64 * 128 + 128 + 516, (2, 4)),
    ],
)
def test_shapes_and_totals_are_those_of_the_reports(model, image, total, output):
    params, outputs = shapes(model, image)
    assert tree_size(params) == total
    assert outputs.shape == output


def test_classifier_of_the_digits_has_the_reported_inputs():
    params, outputs = shapes(digit_resnet(), (50, 50, 1))
    assert params["head"]["kernel"].shape == (21_632, 10)
    assert outputs.shape == (2, 10)


@pytest.mark.parametrize("build", [blood_cell_cnn, folder_cnn, digit_resnet, sixteen_cnn])
def test_width_scales_a_network_down(build):
    small, large = (tree_size(shapes(build(width=width), (60, 60, 1))[0]) for width in (4, 8))
    assert 1.2 < large / small < 4.1


def test_chain_is_its_steps_one_after_the_other():
    model = chain(
        [conv("a", 4), batch_norm("n"), function(jax.nn.relu), function(lambda x: x.mean((1, 2))), dense("b", 3)]
    )
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 6, 6, 2)), jnp.float32)
    params, state = model.init(KEY, x)
    y = jax.lax.conv_general_dilated(
        x, params["a"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    y = (y - y.mean((0, 1, 2))) / jnp.sqrt(y.var((0, 1, 2)) + 1e-5)
    expected = jax.nn.relu(y).mean((1, 2)) @ params["b"]["kernel"]
    outputs, new_state = model.apply(params, state, x, key=KEY, train=True)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(new_state["n"]["mean"], state["n"]["mean"])


def test_residual_without_shortcut_adds_its_input():
    model = chain([residual("r", [conv("a", 2)])])
    x = jnp.ones((1, 4, 4, 2))
    params, state = jax.tree.map(jnp.zeros_like, model.init(KEY, x))
    np.testing.assert_array_equal(model.apply(params, state, x, key=KEY, train=True)[0], x)


def test_dropouts_draw_masks_of_their_own():
    model = chain([dropout(0.5), function(lambda x: (x == 0).astype(jnp.float32) + 1), dropout(0.5)])
    x = jnp.ones((1, 100))
    once = model.apply({}, {}, x, key=KEY, train=True)[0]
    assert len(np.unique(once)) == 3
    np.testing.assert_array_equal(model.apply({}, {}, x, key=KEY, train=False)[0], x)


def test_names_must_differ():
    with pytest.raises(ValueError, match=r"steps must have names of their own, got \['a', 'a'\]"):
        chain([conv("a", 2), conv("a", 2)])
