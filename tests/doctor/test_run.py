import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.doctor import statistics
from cnnprobe.doctor.bench import Sample
from cnnprobe.doctor.run import prepared_stream, score, settle
from cnnprobe.types import Model


@pytest.mark.parametrize(("num_labels", "reached"), [(10, 1.0), (11, 10 / 11), (20, 0.5)])
def test_labels_that_no_output_stands_for_are_never_hit(tiny_bench, num_labels, reached):
    def apply(params, state, images, *, key, train):
        return jax.nn.one_hot(images[:, 0, 0, 0].astype(int), 10), state  # each image holds its class

    ids = np.arange(20) % num_labels
    images = np.broadcast_to(ids.reshape(20, 1, 1, 1), (20, 4, 4, 1)).astype(np.float32)
    problem = tiny_bench.problem._replace(model=Model(tiny_bench.problem.model.init, apply))
    bench = tiny_bench._replace(problem=problem, valid=Sample(images, ids, ids))
    assert score(problem, bench, ({}, {})) == pytest.approx(reached)


def averaging(momentum, *, counts=False):
    """A model whose state is a running mean of its images and a kernel that is held; and a count of its passes."""

    def apply(params, state, images, *, key, train):
        mean = momentum * state["mean"] + (1 - momentum) * jnp.mean(jnp.square(images), axis=0)
        moved = {
            **state,
            "mean": mean.astype(state["mean"].dtype),
            **({"passes": state["passes"] + 1} if counts else {}),
        }
        return jnp.zeros((len(images), 10)), moved if train else state

    return Model(lambda key, images: ({}, {}), apply)


STATE = {"mean": jnp.linspace(0.0, 7e3, 64).reshape(8, 8, 1), "held": jax.random.normal(jax.random.key(0), (3, 4))}


def squares(problem, num):
    return [np.mean(np.square(np.asarray(batch.images, np.float64)), axis=0) for batch in prepared_stream(problem, num)]


@pytest.mark.parametrize("momentum", [0.9, 0.99, 0.999])
def test_settled_statistics_are_those_of_the_batches_however_slow_and_far_off_they_are(momentum, tiny_bench):
    problem = tiny_bench.problem._replace(model=averaging(momentum), batch_size=4)
    _, settled = settle(problem, ({}, STATE), 6)
    np.testing.assert_allclose(settled["mean"], np.mean(squares(problem, 6), axis=0), rtol=2e-3)
    np.testing.assert_array_equal(settled["held"], STATE["held"])


def test_statistics_beside_a_counter_settle_pass_by_pass(tiny_bench):
    problem = tiny_bench.problem._replace(model=averaging(0.5, counts=True), batch_size=4)
    _, settled = settle(problem, ({}, {**STATE, "passes": jnp.int32(5)}), 6)
    expected = np.asarray(STATE["mean"], np.float64)
    for batch in squares(problem, 6):
        expected = 0.5 * expected + 0.5 * batch
    np.testing.assert_allclose(settled["mean"], expected, rtol=1e-5)
    assert int(settled["passes"]) == 11


def test_statistics_of_half_precision_settle_pass_by_pass(tiny_bench):
    problem = tiny_bench.problem._replace(model=averaging(0.99), batch_size=4)
    state = {**STATE, "mean": jnp.full((8, 8, 1), 8.0, jnp.bfloat16)}
    _, settled = settle(problem, ({}, state), 6)
    assert np.all(np.asarray(settled["mean"], np.float32) >= 6.0)


def test_without_passes_statistics_stay(tiny_bench):
    problem = tiny_bench.problem._replace(model=averaging(0.9))
    assert settle(problem, ({}, STATE), 0)[1] is STATE


def test_settling_ends_with_the_clock(tiny_bench):
    problem = tiny_bench.problem._replace(model=averaging(0.9))
    with pytest.raises(TimeoutError):
        settle(problem, ({}, STATE), 6, deadline=-math.inf)


@pytest.mark.parametrize("momentum", [0.5, 0.99])
def test_the_momentum_is_that_of_vectors(momentum, tiny_bench):
    def step(state, index, batch):
        return {"mean": momentum * state["mean"] + 1, "held": state["held"], "count": state["count"] + 1}

    state = {"mean": jnp.arange(5.0), "held": jnp.ones((4, 4)), "count": jnp.int32(0)}
    assert statistics.momentum(step, state, None) == pytest.approx(momentum, rel=1e-5)
    assert math.isnan(statistics.momentum(lambda state, *_: state, {"held": jnp.ones((4, 4))}, None))
