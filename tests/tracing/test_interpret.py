"""Loops, branches and rematerialisation are rebuilt around the readings; what is opaque is listed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.tracing.readings import layer_stats, unit_stats
from cnnprobe.tracing.taps import tap, value_and_grad

from .networks import assert_trees_equal

X = jax.random.normal(jax.random.key(0), (4, 3))
W = 0.5 * jax.random.normal(jax.random.key(1), (3, 3))
STACK = 0.5 * jax.random.normal(jax.random.key(2), (5, 3, 3))


def over_layers(params, x, *, reverse=False):
    def body(x, w):
        x = jax.nn.relu(x @ w)
        return x, x

    return jax.lax.scan(body, x, params["blocks"]["kernel"], reverse=reverse)


def repeated(params, x):
    return jax.lax.fori_loop(0, 4, lambda _, x: jnp.tanh(x @ params["w"]), x)


def rematerialised(params, x):
    return jax.checkpoint(lambda x, w: jax.nn.relu(x @ w))(x, params["w"]) @ params["w"]


def branched(params, x):
    return jax.lax.cond(x[0, 0] > 0, lambda x: jax.nn.relu(x @ params["w"]), lambda x: x, x)


def nested(params, x):
    inner = jax.jit(jax.checkpoint(lambda x: jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["w"])[0]))
    return inner(x)


FUNCTIONS = {
    "scan": (over_layers, {"blocks": {"kernel": STACK}}),
    "fori_loop": (repeated, {"w": W}),
    "remat": (rematerialised, {"w": W}),
    "cond": (branched, {"w": W}),
    "nested": (nested, {"w": STACK}),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_value_and_gradient_are_unchanged(name):
    fn, params = FUNCTIONS[name]

    def loss(params, x):
        return jnp.sum(jnp.square(jax.tree.leaves(fn(params, x))[0]))

    got = jax.jit(value_and_grad(loss))(params, X)[:2]
    assert_trees_equal(got, jax.jit(jax.value_and_grad(loss))(params, X))


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_over_layers_reads_each_layer(reverse):
    (_, outputs), readings = tap(over_layers)(FUNCTIONS["scan"][1], X, reverse=reverse)
    units = unit_stats(readings)
    assert list(units) == [f"blocks[{index}]" for index in range(5)]
    np.testing.assert_allclose([stats.mean for stats in units.values()], outputs.mean(1), rtol=1e-5)


def test_scan_over_layers_reads_each_gradient():
    def loss(offsets):
        def body(x, inputs):
            return jax.nn.relu(x @ inputs[0]) + inputs[1], None

        return jnp.sum(jax.lax.scan(body, X, (STACK, offsets))[0] ** 2)

    gradient = jax.grad(loss)(jnp.zeros((5, 4, 3)))
    tapped = value_and_grad(lambda params: jnp.sum(over_layers(params, X)[0] ** 2))(FUNCTIONS["scan"][1])[2]
    got = [stats.gradient_rms for stats in unit_stats(tapped).values()]
    np.testing.assert_allclose(got, np.sqrt(np.mean(np.square(gradient), axis=1)), rtol=1e-5)


def test_loop_with_shared_parameters_is_one_layer():
    readings = tap(repeated)({"w": W}, X)[1]
    x, outputs = X, []
    for _ in range(4):
        x = jnp.tanh(x @ W)
        outputs.append(x)
    stats = unit_stats(readings)["w"]
    assert stats.num_activations == 4 * len(X)
    np.testing.assert_allclose([stats.mean, stats.max], [np.mean(outputs, (0, 1)), np.max(outputs, (0, 1))], rtol=1e-5)


@pytest.mark.parametrize(("sign", "count"), [(1, 12), (-1, 0)])
def test_branch_not_taken_has_no_activations(sign, count):
    x = X.at[0, 0].set(float(sign))
    stats = layer_stats(jax.jit(tap(branched))({"w": W}, x)[1])["w"]
    assert stats.num_activations == count


@pytest.mark.parametrize("policy", [None, jax.checkpoint_policies.dots_saveable])
def test_remat_keeps_its_policy(policy):
    def loss(w):
        return jnp.sum(jax.checkpoint(lambda w: jnp.sin(jax.nn.relu(X @ w)), policy=policy)(w))

    bare, tapped = (str(jax.make_jaxpr(grad(loss))(W)) for grad in (jax.value_and_grad, value_and_grad))
    assert ("dots_saveable" in bare) == ("dots_saveable" in tapped)
    assert bare.count("remat") == tapped.count("remat")


def test_opaque_operations_are_listed():
    def fn(w, x):
        x = jax.lax.while_loop(lambda x: jnp.sum(x) < 10, lambda x: jnp.abs(x @ w) + 1, x)
        return x @ w

    readings = tap(fn)(W, X)[1]
    assert readings.skipped == ("while (1 convolutions or products inside)",)


def test_custom_derivatives_run_whole():
    @jax.custom_vjp
    def product(x, w):
        return x @ w

    product.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, g: (g @ kept[1].T, 100 * kept[0].T @ g))

    def loss(w):
        return jnp.sum(product(jnp.tanh(X @ w), w))

    value, grads, readings = value_and_grad(loss)(W)
    assert_trees_equal((value, grads), jax.value_and_grad(loss)(W))
    assert len(readings.skipped) == 1
