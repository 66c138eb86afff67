"""What a training keeps does not grow with its steps."""

import weakref

import numpy as np

import cnnprobe as cp
from cnnprobe.training.fit import fit


def test_batches_are_let_go(problem):
    alive, most = [], []

    def preprocess(images):
        images = images * 1.0
        alive.append(weakref.ref(images))
        most.append(sum(each() is not None for each in alive))
        return images

    fit(problem._replace(preprocess=preprocess, valid=None), progress=False, num_epochs=5)
    assert len(most) > 30
    assert max(most) <= 8


def test_readings_of_many_layers_have_the_size_that_is_stated():
    weights = {f"layer{i:02d}": np.eye(8, dtype=np.float32) for i in range(20)}

    def loss(params, x):
        for weight in params.values():
            x = abs(x @ weight)
        return x.mean()

    _, _, readings = cp.value_and_grad(loss)(weights, np.ones((4, 8), np.float32))
    assert readings.packed.nbytes == 20 * 4 * (1 + 5 * 8)
