import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnprobe.models.nnx import from_nnx

KEY = jax.random.key(0)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 6, 1)), jnp.float32)


class Net(nnx.Module):
    """Convolutions, batch norm, dropout, dense."""

    def __init__(self, width=4, *, rngs):
        self.convs = nnx.List([nnx.Conv(1, width, (3, 3), rngs=rngs), nnx.Conv(width, 4, (3, 3), rngs=rngs)])
        self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        for conv in self.convs:
            x = nnx.relu(conv(x))
        return self.head(self.dropout(self.norm(x).mean((1, 2))))


def build(rngs):
    return Net(rngs=rngs)


@pytest.fixture(params=["class", "function", "instance", "partial"])
def model(request):
    made = {
        "class": Net,
        "function": build,
        "instance": Net(rngs=nnx.Rngs(0)),
        "partial": functools.partial(Net, width=4),
    }
    return from_nnx(made[request.param])


def run(model, *, train, key=KEY, seed=0):
    return model.apply(*model.init(jax.random.key(seed), IMAGES), IMAGES, key=key, train=train)


def test_key_zero_is_the_modules_own_initialisation(model):
    own = nnx.to_pure_dict(nnx.state(Net(rngs=nnx.Rngs(0)), nnx.Param))
    chex.assert_trees_all_close(model.init(KEY, IMAGES)[0], own, rtol=1e-6)


def test_evaluation_is_the_modules_own(model):
    module = Net(rngs=nnx.Rngs(0))
    module.eval()
    np.testing.assert_allclose(run(model, train=False)[0], module(IMAGES), rtol=1e-4, atol=1e-5)


def test_training_carries_the_batch_statistics(model):
    module = Net(rngs=nnx.Rngs(0))
    module.train()
    module(IMAGES)
    expected = nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
    chex.assert_trees_all_close(run(model, train=True)[1], expected, rtol=1e-4, atol=1e-6)


def test_evaluation_leaves_the_state_alone(model):
    chex.assert_trees_all_equal(run(model, train=False)[1], model.init(KEY, IMAGES)[1])


def test_eager_and_compiled_agree(model):
    jitted = model._replace(apply=jax.jit(model.apply, static_argnames="train"))
    chex.assert_trees_all_close(run(jitted, train=True), run(model, train=True), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("seed", "same"), [(0, True), (1, False)])
def test_dropout_follows_the_key(model, seed, same):
    first, second = (run(model, train=True, key=jax.random.key(s))[0] for s in (0, seed))
    assert np.array_equal(first, second) is same


def test_another_key_gives_other_kernels_of_the_same_spread(model):
    first, second = (model.init(jax.random.key(s), IMAGES)[0]["convs"][1]["kernel"] for s in (0, 1))
    assert not np.array_equal(first, second)
    assert float(np.std(second)) == pytest.approx(float(np.std(first)), rel=0.2)


def test_constants_stay_constant_for_any_key(model):
    params, _ = model.init(jax.random.key(5), IMAGES)
    np.testing.assert_array_equal(params["norm"]["scale"], np.ones(4))
    np.testing.assert_array_equal(params["head"]["bias"], np.zeros(3))


def test_constructor_is_run_for_every_key():
    own = nnx.to_pure_dict(nnx.state(Net(rngs=nnx.Rngs(7)), nnx.Param))
    chex.assert_trees_all_close(from_nnx(build).init(jax.random.key(7), IMAGES)[0], own, rtol=1e-6)


def test_instance_deals_its_entries_anew():
    module = Net(rngs=nnx.Rngs(0))
    kernel = from_nnx(module).init(jax.random.key(3), IMAGES)[0]["head"]["kernel"]
    np.testing.assert_array_equal(np.sort(kernel, axis=None), np.sort(module.head.kernel[...], axis=None))


def test_instance_is_never_changed():
    module = Net(rngs=nnx.Rngs(0))
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.RngKey))))
    run(from_nnx(module), train=False)
    run(from_nnx(module), train=True)
    chex.assert_trees_all_equal(nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.RngKey))), before)
    assert not module.dropout.deterministic


def test_instance_is_read_anew_each_time():
    module = Net(rngs=nnx.Rngs(0))
    from_nnx(module)
    module.head.bias[...] = jnp.ones(3)
    np.testing.assert_array_equal(from_nnx(module).init(KEY, IMAGES)[0]["head"]["bias"], np.ones(3))


def test_gradient_reaches_every_parameter(model):
    params, state = model.init(KEY, IMAGES)
    grads = jax.grad(lambda p: jnp.sum(model.apply(p, state, IMAGES, key=KEY, train=True)[0] ** 2))(params)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(grads["head"]))
    chex.assert_trees_all_equal_structs(grads, params)


def test_mode_argument_is_found_by_its_name():
    class Told(nnx.Module):
        def __call__(self, x, *, deterministic):
            return x + (not deterministic)

    assert jnp.array_equal(run(from_nnx(Told()), train=True)[0], IMAGES + 1)
    assert jnp.array_equal(run(from_nnx(Told()), train=False)[0], IMAGES)


def test_variable_of_another_kind_is_state():
    class Counting(nnx.Module):
        def __init__(self, rngs):
            self.calls = nnx.Variable(jnp.zeros(()))

        def __call__(self, x):
            self.calls[...] += 1
            return x

    assert run(from_nnx(Counting), train=True)[1]["calls"] == 1


def test_same_constructor_gives_the_same_model():
    assert from_nnx(build) is from_nnx(build)


def test_sick_constructor_raises_its_own_error():
    def sick(rngs):
        raise KeyError("no such layer")

    with pytest.raises(KeyError, match="no such layer"):
        from_nnx(sick).init(KEY, IMAGES)


@pytest.mark.parametrize("module", [None, 3])
def test_what_is_neither_is_refused(module):
    with pytest.raises(ValueError, match=r"module must be an nnx.Module or a constructor of one, got"):
        from_nnx(module)


def test_constructor_of_something_else_is_refused():
    with pytest.raises(ValueError, match=r"module must be a constructor of an nnx.Module, got one of int"):
        from_nnx(lambda rngs: 3).init(KEY, IMAGES)
