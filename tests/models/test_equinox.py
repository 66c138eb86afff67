import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.models.equinox import from_equinox

KEY = jax.random.key(0)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(4, 1, 6, 6)), jnp.float32)  # channels first


class Net(eqx.Module):
    """Takes one example."""

    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear
    scale: float = 2.0  # no array: not trained

    def __init__(self, key):
        self.conv = eqx.nn.Conv2d(1, 4, 3, key=key)
        self.norm = eqx.nn.BatchNorm(4, "batch", mode="ema")
        self.dropout = eqx.nn.Dropout(0.5)
        self.head = eqx.nn.Linear(4, 3, key=key)

    def __call__(self, x, state, key=None):
        x, state = self.norm(self.scale * self.conv(x), state)
        return self.head(self.dropout(x.mean((1, 2)), key=key)), state


class Simple(eqx.Module):
    head: eqx.nn.Linear

    def __init__(self, key):
        self.head = eqx.nn.Linear(36, 3, key=key)

    def __call__(self, x):
        return self.head(x.ravel())


class Batched(Simple):
    def __call__(self, x):
        return jax.vmap(self.head)(x.reshape(len(x), 36))


def pair(key):
    return eqx.nn.make_with_state(Net)(key)


FORMS = {"class": Net, "function": lambda key: Net(key), "pair of a function": pair, "instance": Net(KEY)}
FORMS |= {"pair": pair(KEY)}


@pytest.fixture(params=FORMS)
def model(request):
    return from_equinox(FORMS[request.param])


def run(model, *, train, key=KEY):
    return model.apply(*model.init(KEY, IMAGES), IMAGES, key=key, train=train)


def test_evaluation_is_the_modules_own(model):
    module, state = pair(KEY)
    own = jax.vmap(eqx.nn.inference_mode(module), axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    np.testing.assert_allclose(run(model, train=False)[0], own(IMAGES, state)[0], rtol=1e-4, atol=1e-5)


def test_paths_in_the_module_name_the_parameters(model):
    params, _ = model.init(KEY, IMAGES)
    assert set(params) == {"conv", "norm", "head"}
    assert params["head"]["weight"].shape == (3, 4)


def test_training_carries_the_state_and_evaluation_does_not(model):
    before = model.init(KEY, IMAGES)[1]
    chex.assert_trees_all_equal(run(model, train=False)[1], before)
    after = run(model, train=True)[1]
    chex.assert_trees_all_equal_structs(after, before)
    assert not np.array_equal(jax.tree.leaves(after)[-1], jax.tree.leaves(before)[-1])


def test_examples_have_dropout_masks_of_their_own():
    images = jnp.broadcast_to(IMAGES[:1], (64, 1, 6, 6))
    model = from_equinox(lambda key: eqx.nn.Sequential([eqx.nn.Dropout(0.5)]))
    outputs, _ = model.apply(*model.init(KEY, images), images, key=KEY, train=True)
    assert len(np.unique(outputs.reshape(64, -1) == 0, axis=0)) == 64


def test_another_key_gives_another_network_of_the_same_spread(model):
    first, second = (model.init(jax.random.key(seed), IMAGES)[0]["conv"]["weight"] for seed in (0, 1))
    assert not np.array_equal(first, second)
    assert float(np.std(second)) == pytest.approx(float(np.std(first)), rel=0.5)


def test_instance_deals_its_entries_anew():
    weight = from_equinox(FORMS["instance"]).init(jax.random.key(3), IMAGES)[0]["head"]["weight"]
    np.testing.assert_array_equal(np.sort(weight, axis=None), np.sort(FORMS["instance"].head.weight, axis=None))


@pytest.mark.parametrize("module", [Simple, Batched])
def test_module_is_mapped_over_the_batch_where_it_takes_one_example(module):
    expected = jax.vmap(Simple(KEY))(IMAGES)
    np.testing.assert_allclose(run(from_equinox(module), train=True)[0], expected, rtol=1e-5, atol=1e-6)


def test_mode_argument_is_found_by_its_name():
    class Told(Simple):
        def __call__(self, x, *, inference):
            return x + (not inference)

    assert jnp.array_equal(run(from_equinox(Told), train=True)[0], IMAGES + 1)
    assert jnp.array_equal(run(from_equinox(Told), train=False)[0], IMAGES)


def test_arrays_that_are_not_floating_are_state():
    class Permuting(Simple):
        order: jax.Array

        def __init__(self, key):
            super().__init__(key)
            self.order = jnp.arange(36)[::-1]

    params, state = from_equinox(Permuting).init(KEY, IMAGES)
    assert set(params) == {"head"}
    assert set(state) == {"order"}


def test_same_constructor_gives_the_same_model():
    assert from_equinox(Net) is from_equinox(Net)


def test_sick_module_raises_the_error_it_raises_on_an_example():
    class Sick(Simple):
        def __call__(self, x):
            return self.head(x)

    with pytest.raises(TypeError, match="dot_general"):
        run(from_equinox(Sick), train=True)


@pytest.mark.parametrize("module", [None, 3, (1, 2), ()])
def test_what_is_neither_is_refused(module):
    with pytest.raises(ValueError, match=r"must be an eqx.Module, a pair \(module, state\) or a constructor, got"):
        from_equinox(module)


def test_constructor_of_something_else_is_refused():
    with pytest.raises(ValueError, match=r"module must be a constructor of an eqx.Module, got one of int"):
        from_equinox(lambda key: 3).init(KEY, IMAGES)
