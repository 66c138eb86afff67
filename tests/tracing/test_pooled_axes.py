"""Pools over the wrong axes of a map, beside those over the right ones and what only looks like one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from cnnprobe.tracing.calls import trace_call
from cnnprobe.tracing.pooled_axes import Pooled, misplaced_pools

from .matrix.cases import Case
from .matrix.table import LIBRARIES
from .networks import IMAGES


def conv(x, width=5):
    return nn.Conv(width, (3, 3))(x)


def dense(x):
    return nn.Dense(4)(x)


WRONG = {
    "mean": lambda x: dense(conv(x).mean((2, 3))),
    "max": lambda x: dense(conv(x).max((2, 3))),
    "over height": lambda x: dense(conv(x).mean((1, 3))),
    "past activation, norm and pool": lambda x: dense(
        nn.avg_pool(nn.relu(nn.GroupNorm(5)(conv(x))), (2, 2), (2, 2)).mean((2, 3))
    ),
    "past a residual sum and remat": lambda x: dense((conv(x, 3) + jax.checkpoint(jnp.sin)(x)).mean((-1, -2))),
    "channels in front": lambda x: dense(jnp.moveaxis(conv(x), -1, 1).mean((1, 2))),
}
RIGHT = {
    "global mean": lambda x: dense(conv(x).mean((1, 2))),
    "global mean of channels in front": lambda x: dense(jnp.moveaxis(conv(x), -1, 1).mean((2, 3))),
    "flattened": lambda x: dense(conv(x).reshape(len(x), -1)),
    "all but the examples": lambda x: dense(conv(x).mean((1, 2, 3))[:, None]),
    "features alone": lambda x: dense(conv(x).mean(3).reshape(len(x), -1)),
    "one side alone": lambda x: dense(conv(x).mean(1).reshape(len(x), -1)),
    "layer norm": lambda x: dense(nn.LayerNorm(reduction_axes=(2, 3))(conv(x)).mean((1, 2))),
    "gate": lambda x: dense((lambda y: y * nn.sigmoid(nn.Conv(1, (1, 1))(y)))(conv(x)).mean((1, 2))),
}


def found_in(build):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return build(x)

    params = Net().init(jax.random.key(0), IMAGES)
    return misplaced_pools(trace_call(Net().apply, (params, IMAGES), {}, [0]).program)


@pytest.mark.parametrize("build", WRONG.values(), ids=WRONG)
def test_pool_over_features_and_one_side(build):
    assert len(found_in(build)) == 1


@pytest.mark.parametrize("build", RIGHT.values(), ids=RIGHT)
def test_other_reductions_are_none(build):
    assert found_in(build) == ()


@pytest.mark.parametrize("library", LIBRARIES)
def test_networks_as_people_write_them_have_none(library):
    cases = [build() for build in LIBRARIES[library].values()]
    called = [case for case in cases if case.run is Case._field_defaults["run"]]  # not batched or accumulated
    assert len(called) > 5
    for case in called:
        assert misplaced_pools(trace_call(case.loss, (case.params,), {}, [0]).program) == ()


def test_the_map_and_its_axes_are_told():
    assert found_in(WRONG["mean"]) == (Pooled((6, 8, 8, 5), (2, 3)),)
