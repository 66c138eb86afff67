import jax
import numpy as np
import pytest

from cnnprobe.doctor.bench import Sample
from cnnprobe.doctor.run import score
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
