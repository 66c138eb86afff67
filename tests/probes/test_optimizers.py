"""Probes inside an optimizer: equal to the direct ones, found in any state, and without any effect."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnprobe.probes.gradients import gradient_stats
from cnnprobe.probes.optimizers import gradient_probe, probe_readings, update_probe
from cnnprobe.probes.updates import update_ratio
from cnnprobe.trees import per_layer

PARAMS = {"conv": {"w": jnp.linspace(-1, 2, 24).reshape(2, 3, 4)}, "b": jnp.array([0.5, -0.25])}
GRADS = jax.tree.map(lambda leaf: jnp.sin(7 * leaf), PARAMS)
LAYERS = {"conv/w", "b"}

WRAPPERS = {
    "chain": lambda tx: optax.chain(optax.clip(1.0), tx),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2),
    "inject_hyperparams": lambda tx: optax.inject_hyperparams(lambda rate: optax.chain(tx, optax.scale(rate)))(
        rate=1.0
    ),
    "multi_transform": lambda tx: optax.multi_transform({"x": tx, "y": tx}, {"conv": "x", "b": "y"}),
    "masked": lambda tx: optax.masked(tx, {"conv": True, "b": False}),
    "flatten": optax.flatten,
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "lookahead of chain": lambda tx: optax.chain(optax.chain(tx), optax.ema(0.9)),
}


def run(tx, num_steps=2, update=None):
    state, update = tx.init(PARAMS), update or jax.jit(tx.update)
    for _ in range(num_steps):
        updates, state = update(GRADS, state, PARAMS)
    return updates, state


def double(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


@pytest.mark.parametrize("variant", [lambda f: f, jax.jit])
def test_updates_are_measured_in_float64(variant):
    tx = optax.chain(optax.scale(-0.1), update_probe())
    stats = probe_readings(run(tx, 1, variant(tx.update))[1])["updates"]["conv/w"]
    update, param = (np.asarray(tree["conv"]["w"], np.float64) for tree in (double(GRADS), double(PARAMS)))
    expected = [
        np.linalg.norm(0.1 * update),
        np.linalg.norm(param),
        0.1 * np.linalg.norm(update) / np.linalg.norm(param),
    ]
    np.testing.assert_allclose(stats, expected, rtol=1e-5)


@pytest.mark.parametrize("variant", [lambda f: f, jax.jit])
def test_gradients_are_measured_in_float64(variant):
    tx = gradient_probe()
    stats = probe_readings(run(tx, 1, variant(tx.update))[1])["gradients"]["b"]
    grad = double(GRADS)["b"]
    expected = [np.linalg.norm(grad), np.sqrt(np.mean(grad**2)), np.abs(grad).max(), 0, 0]
    np.testing.assert_allclose(stats, expected, rtol=1e-5)


def test_equal_to_the_direct_probes():
    updates, state = run(optax.chain(gradient_probe(), optax.adam(1e-2), update_probe()))
    readings = probe_readings(state)
    direct = per_layer(gradient_stats, GRADS), per_layer(update_ratio, updates, PARAMS)
    np.testing.assert_allclose(readings["gradients"]["b"], direct[0]["b"], rtol=1e-6)
    np.testing.assert_allclose(readings["updates"]["conv/w"].ratio, direct[1]["conv/w"], rtol=1e-6)


@pytest.mark.parametrize("name", WRAPPERS)
def test_found_in_any_state(name):
    readings = probe_readings(run(WRAPPERS[name](gradient_probe("mine")))[1])
    expected = {"masked": {"conv/w"}}.get(name, LAYERS)
    assert set(readings) == {"mine"}
    assert name == "flatten" or set(readings["mine"]) == expected
    assert all(np.isfinite(stats.norm) for stats in readings["mine"].values())


def test_several_probes_in_one_chain():
    tx = optax.chain(gradient_probe(), optax.clip_by_global_norm(0.1), gradient_probe("after clip"), update_probe())
    readings = probe_readings(run(tx)[1])
    assert list(readings) == ["gradients", "after clip", "updates"]
    total = np.linalg.norm([stats.norm for stats in readings["after clip"].values()])
    np.testing.assert_allclose(total, 0.1, rtol=1e-5)


@pytest.mark.parametrize("name", ["chain", "MultiSteps", "inject_hyperparams", "multi_transform"])
def test_updates_pass_unchanged(name):
    bare = run(WRAPPERS[name](optax.adam(0.1)))[0]
    probed = run(WRAPPERS[name](optax.chain(gradient_probe(), optax.adam(0.1), update_probe())))[0]
    jax.tree.map(np.testing.assert_array_equal, probed, bare)


def test_accumulating_steps_are_not_read():
    tx = optax.MultiSteps(update_probe(), 3)
    assert np.isnan(probe_readings(run(tx, 2)[1])["updates"]["b"].ratio)
    assert np.isfinite(probe_readings(run(tx, 3)[1])["updates"]["b"].ratio)


def test_one_compilation():
    tx, traces = optax.chain(gradient_probe(), optax.adam(0.1), update_probe()), []

    @jax.jit
    def step(grads, state, params):
        traces.append(1)
        return tx.update(grads, state, params)

    run(tx, 4, step)
    assert len(traces) == 1


def test_the_state_keeps_its_types():
    tx = optax.chain(gradient_probe(), optax.adam(0.1), update_probe())
    before, after = tx.init(PARAMS), run(tx)[1]
    describe = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)  # noqa: E731
    assert describe(before) == describe(after)


def test_half_precision_is_measured_in_full():
    tx = gradient_probe()
    grads = {"w": jnp.full(10_000, 0.01, jnp.bfloat16)}
    _, state = tx.update(grads, tx.init(grads))
    np.testing.assert_allclose(probe_readings(state)["gradients"]["w"].norm, 1.0, rtol=2e-3)


def test_a_state_without_probes():
    assert probe_readings(optax.adam(0.1).init(PARAMS)) == {}


def test_two_probes_of_one_name():
    state = optax.chain(update_probe(), update_probe()).init(PARAMS)
    with pytest.raises(ValueError, match="names of their own, got two named 'updates' on b, conv/w"):
        probe_readings(state)


def test_updates_without_params():
    tx = update_probe()
    with pytest.raises(ValueError, match="'updates' needs params"):
        tx.update(GRADS, tx.init(PARAMS))


@pytest.mark.parametrize("make", [update_probe, gradient_probe])
@pytest.mark.parametrize("name", ["", None, 3])
def test_names_are_strings(make, name):
    with pytest.raises(ValueError, match=f"name must be a string that is not empty, got {name!r}"):
        make(name)
