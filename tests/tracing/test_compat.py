"""What is assumed of jax holds, and its absence is told plainly."""

import jax
import jax.numpy as jnp
import pytest

from cnnprobe.tracing import compat
from cnnprobe.tracing.interpret import evaluate
from cnnprobe.tracing.program import all_ops


def test_nested_jit_is_inlined():
    fn = jax.jit(lambda x: jax.jit(jnp.sin)(x) + jax.jit(jnp.sin)(2 * x))
    program = compat.linearise(jax.make_jaxpr(fn)(1.0))
    assert [op.name for op in all_ops(program)] == ["sin", "mul", "sin", "add"]


@pytest.mark.parametrize("fn", [jnp.sort, lambda x: jnp.linalg.svd(x)[1], jax.nn.logsumexp, lambda x: x[::2, 1:]])
def test_a_program_runs_like_its_function(fn):
    x = jax.random.normal(jax.random.key(0), (4, 5))
    program = compat.linearise(jax.make_jaxpr(fn)(x))
    assert jnp.array_equal(evaluate(program, [x], {}, {}).outputs[0], fn(x))


def names_of(fn, x):
    return [op.name for op in all_ops(compat.linearise(jax.make_jaxpr(fn)(x)))]


def test_what_nobody_uses_is_left_out():
    def turn(carry, row):
        jnp.exp(row)
        return carry + row, None

    def fn(x):
        jnp.tanh(jnp.sin(x))
        return jax.lax.scan(turn, x[0], x)[0] + 1

    assert {"tanh", "sin", "exp"}.isdisjoint(names_of(fn, jnp.ones((3, 2))))


def test_what_has_an_effect_stays():
    def fn(x):
        jax.debug.print("{}", jnp.sin(x))
        return x + 1

    names = names_of(fn, 1.0)
    assert "sin" in names
    assert any("debug" in name for name in names)


def test_constants_are_kept():
    table = jnp.arange(6.0)
    program = compat.linearise(jax.make_jaxpr(lambda x: x + table)(jnp.ones(6)))
    assert jnp.array_equal(evaluate(program, [jnp.ones(6)], {}, {}).outputs[0], table + 1)


def test_a_scan_that_is_described_otherwise_stays_closed():
    program = compat.linearise(jax.make_jaxpr(lambda x: jax.lax.scan(lambda c, _: (c, c), x, None, 3))(1.0))
    (scan,) = program.ops
    params = {name: value for name, value in scan.params.items() if name != "length"}
    assert compat.scan_parts(scan) is not None
    assert compat.scan_parts(scan._replace(params=params)) is None
