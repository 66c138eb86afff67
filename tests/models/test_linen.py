import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnnprobe.models.linen import from_linen

KEY = jax.random.key(0)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 6, 1)), jnp.float32)


class Net(nn.Module):
    """Convolution, batch norm, dropout, dense."""

    rate: float = 0.5

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = nn.Dropout(self.rate, deterministic=not train)(nn.relu(x))
        return nn.Dense(3)(x.reshape(len(x), -1))


class Training(nn.Module):
    def __call__(self, x, *, training=False):
        return x + training


class IsTraining(nn.Module):
    def __call__(self, x, is_training):
        return x + is_training


class Deterministic(nn.Module):
    def __call__(self, x, deterministic=True):
        return x + (not deterministic)


class RunningAverage(nn.Module):
    def __call__(self, x, use_running_average):
        return x + (not use_running_average)


def run(model, *, train, key=KEY, images=IMAGES):
    params, state = model.init(KEY, images)
    return model.apply(params, state, images, key=key, train=train)


def test_initialisation_is_the_modules_own():
    params, state = from_linen(Net()).init(KEY, IMAGES)
    expected = Net().init(KEY, IMAGES, train=False)
    chex.assert_trees_all_close({"params": params, **state}, expected, rtol=1e-6)


def test_evaluation_is_the_modules_own():
    variables = Net().init(KEY, IMAGES, train=False)
    outputs, _ = run(from_linen(Net()), train=False)
    np.testing.assert_allclose(outputs, Net().apply(variables, IMAGES, train=False), rtol=1e-5, atol=1e-6)


def test_training_carries_the_batch_statistics():
    model = from_linen(Net())
    variables = Net().init(KEY, IMAGES, train=False)
    _, expected = Net().apply(variables, IMAGES, train=True, mutable=["batch_stats"], rngs={"dropout": KEY})
    chex.assert_trees_all_close(run(model, train=True)[1], expected, rtol=1e-5, atol=1e-7)


def test_evaluation_leaves_the_state_alone():
    model = from_linen(Net())
    chex.assert_trees_all_equal(run(model, train=False)[1], model.init(KEY, IMAGES)[1])


@pytest.mark.parametrize(("seed", "same"), [(0, True), (1, False)])
def test_dropout_follows_the_key(seed, same):
    first, second = (run(from_linen(Net()), train=True, key=jax.random.key(s))[0] for s in (0, seed))
    assert np.array_equal(first, second) is same


@pytest.mark.parametrize("module", [Training(), IsTraining(), Deterministic(), RunningAverage()])
@pytest.mark.parametrize("train", [True, False])
def test_mode_argument_is_found_by_its_name(module, train):
    outputs, _ = run(from_linen(module), train=train)
    np.testing.assert_array_equal(outputs, IMAGES + train)


def test_module_without_mode_runs_in_both():
    model = from_linen(nn.Sequential([lambda x: x.reshape(len(x), -1), nn.Dense(3)]))
    chex.assert_trees_all_equal(run(model, train=True), run(model, train=False))


def test_stream_of_any_name_is_drawn_from_the_key():
    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x + jax.random.normal(self.make_rng("pepper"), x.shape)

    first, second = (run(from_linen(Noisy()), train=True, key=jax.random.key(s))[0] for s in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("collection", ["intermediates", "losses"])
def test_what_is_sown_does_not_grow_the_state(collection):
    class Sowing(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.sow(collection, "mean", x.mean())
            return nn.Dense(3)(x)

    model = from_linen(Sowing())
    params, state = model.init(KEY, IMAGES)
    _, after = model.apply(params, state, IMAGES, key=KEY, train=True)
    chex.assert_trees_all_equal_structs(after, state)


def test_collection_of_another_name_is_state():
    class Counting(nn.Module):
        @nn.compact
        def __call__(self, x):
            calls = self.variable("tally", "calls", lambda: jnp.zeros(()))
            calls.value += 1
            return nn.Dense(3)(x)

    assert run(from_linen(Counting()), train=True)[1]["tally"]["calls"] == 2
    assert run(from_linen(Counting()), train=False)[1]["tally"]["calls"] == 1


def test_equal_modules_share_one_model():
    assert from_linen(Net(0.1)) is from_linen(Net(0.1))
    assert from_linen(Net(0.1)) is not from_linen(Net(0.2))


def test_module_that_cannot_be_hashed_works():
    class Wide(nn.Module):
        widths: list

        @nn.compact
        def __call__(self, x):
            return nn.Dense(self.widths[0])(x)

    assert run(from_linen(Wide([2, 3])), train=True)[0].shape == (4, 6, 6, 2)


def test_sick_initialisation_raises_its_own_error():
    class Sick(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(x.reshape(7, -1))

    with pytest.raises(TypeError, match="cannot reshape"):
        from_linen(Sick()).init(KEY, IMAGES)


@pytest.mark.parametrize("module", [Net, None, lambda x: x])
def test_what_is_no_module_is_refused(module):
    with pytest.raises(ValueError, match=r"module must be a flax.linen.Module instance, got"):
        from_linen(module)
