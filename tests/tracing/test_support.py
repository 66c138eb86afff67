"""A jax that is not understood is named; never wrong numbers."""

import jax
import jax.numpy as jnp
import pytest

from cnnprobe.probes.gradients import gradient_stats
from cnnprobe.tracing import axes, compat, layers, support
from cnnprobe.tracing.graph import model_graph
from cnnprobe.tracing.surgery import keep_gradients
from cnnprobe.tracing.taps import tap, value_and_grad


@pytest.fixture(autouse=True)
def afresh():
    support._problem.cache_clear()
    yield
    support._problem.cache_clear()


def swapped_features(op, kernel):
    return axes.layer_axes(op, 1 - kernel)


def broken_kind(op):
    return op.params["feature_groups"]


BREAKS = {
    "remat is called otherwise": (compat, "REMAT", frozenset(), "should have the operations|expected the layers"),
    "jit is called otherwise": (compat, "INLINED", frozenset(), "expected the layers|should have the operations"),
    "scan lost a parameter": (compat, "SCAN_SETTINGS", ("length", "reverse", "unroll", "x"), "expected the layers"),
    "scan counts otherwise": (compat, "_scan_sizes", lambda params: (1, 0), "run again, scan gives"),
    "branches are kept elsewhere": (
        compat,
        "BODY_PARAMS",
        ("jaxpr",),
        "expected the layers|Error while reading|should",
    ),
    "products number their axes otherwise": (layers, "layer_axes", swapped_features, "expected the layers|Error"),
    "convolutions name their groups otherwise": (
        layers,
        "_kind",
        broken_kind,
        "KeyError while reading.*feature_groups",
    ),
}


def test_this_version_of_jax_is_understood():
    support.check_jax()


@pytest.mark.parametrize("name", BREAKS)
def test_a_jax_that_is_not_understood_is_named(monkeypatch, name):
    module, attribute, value, problem = BREAKS[name]
    monkeypatch.setattr(module, attribute, value)
    with pytest.raises(RuntimeError, match=rf"does not know this jax version {jax.__version__}: .*({problem})"):
        support.check_jax()


@pytest.mark.parametrize(
    "use",
    [
        lambda fn: tap(fn)(jnp.eye(3), jnp.ones((2, 3))),
        lambda fn: value_and_grad(fn)(jnp.eye(3), jnp.ones((2, 3))),
        lambda fn: model_graph(fn, jnp.eye(3), jnp.ones((2, 3))),
        lambda fn: keep_gradients(fn)(jnp.eye(3), jnp.ones((2, 3))),
    ],
)
def test_tracing_refuses_and_probes_go_on(monkeypatch, use):
    monkeypatch.setattr(compat, "REMAT", frozenset())
    with pytest.raises(RuntimeError, match="probes of parameters and gradients still work"):
        use(lambda w, x: jnp.sum(x @ w))
    assert gradient_stats(jnp.ones(4)).norm == 2


def test_asked_once():
    support.check_jax()
    support.check_jax()
    assert support._problem.cache_info().misses == 1


def test_nothing_is_left_in_the_program_of_the_caller():
    jaxpr = jax.make_jaxpr(lambda x: (support.check_jax(), 2 * x)[1])(1.0)
    assert len(jaxpr.eqns) == 1
