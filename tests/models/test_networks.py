import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnprobe.models import plain
from cnnprobe.models.networks import baseline_cnn, residual_cnn, small_cnn
from cnnprobe.models.plain import average_pool
from cnnprobe.training.evaluate import evaluate
from cnnprobe.training.step import init_state, make_train_step
from cnnprobe.trees import tree_size
from cnnprobe.types import Dataset, Problem

KEY = jax.random.key(0)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 1)), jnp.float32)
NETWORKS = {
    "baseline": baseline_cnn(3),
    "small": small_cnn(3),
    "small, batch norm, dropout": small_cnn(3, batch_norm=True, dropout_rate=0.5),
    "small, one wide kernel, average pool": small_cnn(3, widths=(8,), kernel_size=5, pool=average_pool),
    "residual": residual_cnn(3, widths=(4, 8), num_blocks=2),
}


@pytest.fixture(params=NETWORKS, ids=str)
def model(request):
    return NETWORKS[request.param]


def run(model, *, train, key=KEY):
    return model.apply(*model.init(KEY, IMAGES), IMAGES, key=key, train=train)


def bright_corner(num_images):
    """Noise images whose class is the corner with a bright patch."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, num_images)
    images = rng.normal(0, 0.5, (num_images, 12, 12, 1)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[6 * (label // 2) :, 6 * (label % 2) :][:6, :6] += 1
    return Dataset(images, labels)


def test_baseline_has_the_published_number_of_parameters():
    params, _ = baseline_cnn().init(KEY, jnp.zeros((1, 28, 28, 1)))
    sizes = {name: tree_size(layer) for name, layer in params.items()}
    assert sizes == {"conv1": 320, "conv2": 18_496, "dense1": 31_370}
    assert tree_size(params) == 50_186


def test_residual_network_has_as_many_parameters_as_its_layers():
    params, _ = residual_cnn(10).init(KEY, jnp.zeros((1, 50, 50, 1)))
    stages = [
        9 * before * width + 2 * width + 2 * (9 * width**2 + 2 * width)
        for before, width in ((1, 16), (16, 32), (32, 64))
    ]
    assert tree_size(params) == sum(stages) + 64 * 10 + 10


@pytest.mark.parametrize("train", [True, False])
def test_one_row_of_logits_for_each_image(model, train):
    assert run(model, train=train)[0].shape == (4, 3)


def test_state_keeps_its_structure(model):
    chex.assert_trees_all_equal_shapes_and_dtypes(run(model, train=True)[1], model.init(KEY, IMAGES)[1])


def test_eager_and_compiled_agree(model):
    jitted = model._replace(apply=jax.jit(model.apply, static_argnames="train"))
    chex.assert_trees_all_close(run(jitted, train=True), run(model, train=True), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "small, batch norm, dropout"])
def test_networks_without_dropout_draw_nothing(name):
    first, second = (run(NETWORKS[name], train=True, key=jax.random.key(seed))[0] for seed in (0, 1))
    np.testing.assert_array_equal(first, second)


def test_dropout_follows_the_key():
    network = small_cnn(3, dropout_rate=0.5)
    first, second = (run(network, train=True, key=jax.random.key(seed))[0] for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_a_block_of_zero_kernels_is_the_identity():
    network = residual_cnn(3, widths=(4,))
    params, state = network.init(KEY, IMAGES)
    stage = params["stage1"]
    zeroed = params | {"stage1": stage | jax.tree.map(jnp.zeros_like, {k: stage[k] for k in ("conv1", "conv2")})}
    outputs, _ = network.apply(zeroed, state, IMAGES, key=KEY, train=False)
    x = jax.nn.relu(plain.conv(stage["conv0"], IMAGES) / jnp.sqrt(1 + 1e-5))
    np.testing.assert_allclose(outputs, plain.dense(params["head"], x.mean((1, 2))), rtol=1e-5, atol=1e-6)


def test_same_arguments_give_the_same_model():
    assert small_cnn(7, activation=jnp.tanh) is small_cnn(activation=jnp.tanh, num_classes=7)


def test_small_network_learns_in_seconds():
    def loss(logits, labels):
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    data = bright_corner(200)
    problem = Problem(small_cnn(4), loss, optax.adam(3e-3), data, num_classes=4, batch_size=200)
    state, step = init_state(problem, KEY, data.images), make_train_step(*problem[:3], num_classes=4)
    for _ in range(40):
        state, _ = step(state, *data)
    assert evaluate(problem, state.params, state.model_state, data).accuracy > 0.9


def test_pixels_may_be_bytes(model):
    pixels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    params, state = model.init(KEY, pixels)
    outputs, _ = model.apply(params, state, pixels, key=KEY, train=False)
    expected, _ = model.apply(params, state, pixels.astype(np.float32), key=KEY, train=False)
    np.testing.assert_array_equal(outputs, expected)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: small_cnn(0), "num_classes must be a whole number of at least 1, got 0"),
        (lambda: small_cnn(3, dropout_rate=1.5), "dropout_rate must be a number of at least 0 and below 1, got 1.5"),
        (lambda: small_cnn(3, kernel_size=0), "kernel_size must be a whole number of at least 1, got 0"),
        (lambda: small_cnn(3, widths=(8, 0)), "widths must be a whole number of at least 1, got 0"),
        (lambda: small_cnn(3, activation="relu"), "activation must be a function, got 'relu'"),
        (lambda: residual_cnn(3, widths=(4, 0)), "widths must be a whole number of at least 1, got 0"),
        (lambda: residual_cnn(3, num_blocks=0), "num_blocks must be a whole number of at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(network, message):
    with pytest.raises(ValueError, match=message):
        network()


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 8, 3, 1), r"images must be at least 4x4, got shape \(2, 8, 3, 1\)"), ((2, 8, 8), "images must have 4 axes")],
)
def test_bad_images_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        small_cnn(3).init(KEY, jnp.zeros(shape))
