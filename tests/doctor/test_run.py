import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def averaging(momentum):
    """A model whose state is a running mean of its images, a count of its passes, and a kernel that is held."""

    def apply(params, state, images, *, key, train):
        mean = momentum * state["mean"] + (1 - momentum) * jnp.mean(images)
        moved = {"mean": mean, "passes": state["passes"] + 1, "held": state["held"]}
        return jnp.zeros((len(images), 10)), moved if train else state

    return Model(lambda key, images: ({}, {}), apply)


@pytest.mark.parametrize("momentum", [0.9, 0.999])
def test_settled_statistics_are_those_of_the_batches_however_slow_they_are(momentum, tiny_bench):
    problem = tiny_bench.problem._replace(model=averaging(momentum), batch_size=4)
    state = {"mean": jnp.float32(7.0), "passes": jnp.int32(5), "held": jax.random.normal(jax.random.key(0), (3, 4))}
    _, settled = settle(problem, ({}, state), 6)
    means = [np.mean(np.asarray(batch.images, np.float64)) for batch in prepared_stream(problem, 6)]
    assert float(settled["mean"]) == pytest.approx(np.mean(means), abs=1e-3)  # of 7, a thousandth is rounding's part
    assert int(settled["passes"]) == 6
    np.testing.assert_array_equal(settled["held"], state["held"])


def test_without_batches_statistics_stay(tiny_bench):
    state = {"mean": jnp.float32(7.0), "passes": jnp.int32(5), "held": jnp.ones((2, 2))}
    problem = tiny_bench.problem._replace(model=averaging(0.9))
    assert settle(problem, ({}, state), 0)[1] is state
