"""One row a layer, with the norms that belong to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.reporting.table import table
from cnnprobe.tracing.taps import tap, value_and_grad

X = jnp.ones((4, 3))
PARAMS = {"first": {"kernel": 2 * jnp.eye(3), "bias": jnp.zeros(3)}, "last": {"kernel": jnp.ones((3, 2))}}


def loss(params, x):
    x = jax.nn.relu(x @ params["first"]["kernel"] + params["first"]["bias"])
    return jnp.sum(x @ params["last"]["kernel"])


def cells(text):
    header, *rows = (line.split("  ") for line in text.splitlines())
    titles = [cell.strip() for cell in header if cell.strip()]
    return {row[0].strip(): dict(zip(titles, [c.strip() for c in row if c.strip()], strict=True)) for row in rows}


def test_rows_join_readings_and_norms():
    _, grads, readings = value_and_grad(loss)(PARAMS, X)
    updates = jax.tree.map(lambda leaf: 0.1 * leaf, PARAMS)
    row = cells(table(readings, grads=grads, updates=updates, params=PARAMS))["first"]
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(grads["first"])))
    assert (row["grad norm"], row["param norm"], row["log10 update"]) == (f"{norm:.3g}", f"{12**0.5:.3g}", "-1.00")


def test_statistics_stand_in_the_row():
    row = cells(table(tap(loss)(PARAMS, X)[1]))["first"]
    assert (row["then"], row["mean"], row["std"], row["dead"], row["act grad rms"]) == ("relu", "2", "0", "0%", "-")


def test_a_layer_that_does_not_move():
    text = table(tap(loss)(PARAMS, X)[1], updates=jax.tree.map(jnp.zeros_like, PARAMS), params=PARAMS)
    assert cells(text)["last"]["log10 update"] == "-inf"


def test_turns_of_a_loop_take_their_own_slice():
    params = {"blocks": {"kernel": jnp.stack([jnp.eye(3), 2 * jnp.eye(3)])}}
    fn = tap(lambda p, x: jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, p["blocks"]["kernel"])[0])
    rows = cells(table(fn(params, X)[1], params=params))
    assert [rows[f"blocks[{index}]"]["param norm"] for index in range(2)] == [f"{3**0.5:.3g}", f"{12**0.5:.3g}"]


def test_second_use_has_no_parameters_of_its_own():
    rows = cells(table(tap(lambda w, x: x @ w @ w)(jnp.eye(3), X)[1], params=jnp.eye(3)))
    assert (rows["params"]["param norm"], rows["params#1"]["param norm"]) == ("1.73", "-")


def test_columns_are_aligned():
    lines = table(value_and_grad(loss)(PARAMS, X)[2], params=PARAMS).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_what_is_skipped_is_said():
    def fn(w, x):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 10, lambda x: jnp.abs(x @ w) + 1, x) @ w

    assert "not looked into: while" in table(tap(fn)(jnp.eye(3), X)[1])


def test_stacked_readings_are_refused():
    with pytest.raises(ValueError, match="readings must not be stacked"):
        table(jax.vmap(tap(loss), in_axes=(None, 0))(PARAMS, X[None])[1])
