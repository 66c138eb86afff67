"""Activations are recognised however they are spelled."""

import jax
import jax.numpy as jnp
import pytest

from cnnprobe.tracing import compat
from cnnprobe.tracing.activations import POINTS, activation_name, find_activation
from cnnprobe.tracing.program import View

SPELLINGS = {
    "relu": [
        jax.nn.relu,
        lambda x: jnp.maximum(x, 0),
        lambda x: jnp.where(x > 0, x, 0),
        lambda x: jnp.where(x <= 0, 0, x),
        lambda x: x * (x > 0),
        lambda x: x.clip(0),
        lambda x: (x + jnp.abs(x)) / 2,
        lambda x: jnp.maximum(jnp.zeros_like(x), x),
        jax.jit(lambda x: jax.lax.max(x, 0.0)),
    ],
    "relu6": [jax.nn.relu6, lambda x: jnp.minimum(jax.nn.relu(x), 6), lambda x: jnp.clip(x, 0, 6)],
    "leaky_relu": [jax.nn.leaky_relu, lambda x: jnp.maximum(x, 0.1 * x), lambda x: jnp.where(x > 0, x, 0.3 * x)],
    "elu": [jax.nn.elu, jax.nn.celu, lambda x: jnp.where(x > 0, x, 0.5 * (jnp.exp(x) - 1))],
    "selu": [jax.nn.selu],
    "gelu": [
        jax.nn.gelu,
        lambda x: jax.nn.gelu(x, approximate=False),
        lambda x: 0.5 * x * (1 + jnp.tanh(0.7978845608 * (x + 0.044715 * x**3))),
    ],
    "silu": [jax.nn.silu, lambda x: x * jax.nn.sigmoid(x), lambda x: x / (1 + jnp.exp(-x))],
    "mish": [jax.nn.mish],
    "softplus": [jax.nn.softplus, lambda x: jnp.log1p(jnp.exp(x))],
    "sigmoid": [jax.nn.sigmoid, lambda x: 1 / (1 + jnp.exp(-x)), lambda x: 0.5 * (1 + jnp.tanh(x / 2))],
    "log_sigmoid": [jax.nn.log_sigmoid],
    "tanh": [jnp.tanh],
    "hard_tanh": [jax.nn.hard_tanh],
    "hard_sigmoid": [jax.nn.hard_sigmoid],
    "hard_silu": [jax.nn.hard_silu],
    "soft_sign": [jax.nn.soft_sign],
    "squareplus": [jax.nn.squareplus],
    "softmax": [jax.nn.softmax, lambda x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True)],
    "log_softmax": [jax.nn.log_softmax, lambda x: x - jnp.log(jnp.sum(jnp.exp(x), -1, keepdims=True))],
    "softmax[axes=(0,)]": [lambda x: jax.nn.softmax(x, 0)],
    "": [lambda x: x, lambda x: 2 * x + 1, jnp.square, jnp.sin, lambda x: x - x.mean(-1, keepdims=True), jnp.cumsum],
}
CASES = [(name, spelling) for name, spellings in SPELLINGS.items() for spelling in spellings]


@pytest.mark.parametrize(("name", "spelling"), CASES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(CASES)])
def test_every_spelling(name, spelling):
    program = compat.linearise(jax.make_jaxpr(spelling)(jnp.ones((3, 4))))
    found = find_activation(View(program), program.inputs[0])
    assert (found.name if found else "") == name


def test_result_is_what_the_function_returns():
    program = compat.linearise(jax.make_jaxpr(jax.nn.gelu)(jnp.ones((3, 4))))
    found = find_activation(View(program), program.inputs[0])
    assert (found.source, found.result) == (program.inputs[0], program.outputs[0])


def test_bfloat16_constants():
    program = compat.linearise(jax.make_jaxpr(jax.nn.leaky_relu)(jnp.ones((3, 4), jnp.bfloat16)))
    assert find_activation(View(program), program.inputs[0]).name == "leaky_relu"


def test_identity_has_no_name():
    assert activation_name(POINTS) == ""
