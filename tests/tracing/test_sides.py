"""Windows along one side of the plane, beside those that see both, and the same layers with square windows."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.signal import correlate2d

from cnnprobe.tracing.calls import trace_call
from cnnprobe.tracing.layers import find_structure
from cnnprobe.tracing.sides import one_sided, see_other_side, square_kernels

from .matrix.cases import Case
from .matrix.table import LIBRARIES
from .networks import IMAGES

BLIND = {  # and the side that windows run along
    "one number": (lambda x: nn.Conv(4, 3)(nn.relu(nn.Conv(5, 3)(x))), 1),
    "a tuple of one": (lambda x: nn.Conv(5, (3,), strides=2, padding="VALID")(x), 1),
    "rows alone": (lambda x: nn.Conv(4, (1, 1))(nn.Conv(5, (5, 1), kernel_dilation=2)(x)), 0),
    "in groups, with pools": (
        lambda x: nn.Conv(6, (1, 3), feature_group_count=3, strides=(2, 1))(nn.max_pool(x, (2, 2))),
        1,
    ),
}
SEEING = {
    "square": lambda x: nn.Conv(5, (3, 3))(x),
    "each side in its turn": lambda x: nn.Conv(5, (1, 3))(nn.Conv(5, (3, 1))(x)),
    "one of two": lambda x: nn.Conv(5, (3, 3))(nn.Conv(5, 3)(x)),
    "turned round between": lambda x: nn.Conv(5, 3)(nn.Conv(5, 3)(x).swapaxes(1, 2)),
    "single places": lambda x: nn.Conv(5, (1, 1))(x),
    "a sequence of places": lambda x: nn.Conv(5, 3)(x.reshape(len(x), -1, 3)),
    "a line": lambda x: nn.Conv(5, (1, 3))(x[:, :1]),
}


class Body(nn.Module):
    build: object

    @nn.compact
    def __call__(self, x):
        return self.build(x)


def found_in(fn, params):
    call = trace_call(fn, (params,), {}, [0])
    return one_sided(find_structure(call.program, call.origins))


def body_of(build):
    params = Body(build).init(jax.random.key(0), IMAGES)
    return (lambda params: Body(build).apply(params, IMAGES)), params


@pytest.mark.parametrize(("build", "side"), BLIND.values(), ids=BLIND)
def test_windows_along_one_side(build, side):
    found = found_in(*body_of(build))
    assert found
    assert all(each.side == side for each in found)


@pytest.mark.parametrize("build", SEEING.values(), ids=SEEING)
def test_windows_that_see_both_sides_or_cannot_be_judged(build):
    assert found_in(*body_of(build)) == ()


@pytest.mark.parametrize("build", [build for build, _ in BLIND.values()], ids=BLIND)
def test_kernels_of_zeros_change_nothing_and_others_do(build):
    fn, params = body_of(build)
    shapes = square_kernels(fn, params)
    for value in (0.0, 0.1):
        kernels = {name: jnp.full(shape, value) for name, shape in shapes.items()}
        other = jax.jit(see_other_side(fn, kernels, len(IMAGES)))(params)
        assert np.allclose(fn(params), other, atol=1e-5) == (value == 0)


@pytest.mark.parametrize("size", [3, (3,), (1, 3), (3, 1)], ids=str)
def test_a_square_kernel_is_added(size):
    fn, params = body_of(lambda x: nn.Conv(2, size, use_bias=False)(x))
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 2))
    (name,) = square_kernels(fn, params)
    added = see_other_side(fn, {name: jnp.asarray(kernel, jnp.float32)}, len(IMAGES))(params) - fn(params)
    images = np.asarray(IMAGES, np.float64)
    expected = [
        [sum(correlate2d(image[..., c], kernel[..., c, f], "same") for c in range(3)) for f in range(2)]
        for image in images
    ]
    np.testing.assert_allclose(added, np.moveaxis(expected, 1, -1), atol=1e-4)


def test_in_nnx():
    class Own(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 4, kernel_size=3, rngs=rngs)

        def __call__(self, x):
            return self.conv(x).mean((1, 2))

    graph, params = nnx.split(Own(nnx.Rngs(0)))
    (found,) = found_in(lambda params: nnx.merge(graph, params)(IMAGES), params)
    assert (found.side, found.square) == (1, (3, 3, 3, 4))


@pytest.mark.parametrize("library", LIBRARIES)
def test_networks_as_people_write_them_see_both_sides(library):
    cases = [build() for build in LIBRARIES[library].values()]
    called = [case for case in cases if case.run is Case._field_defaults["run"]]  # not batched or accumulated
    for case in called:
        assert found_in(case.loss, case.params) == ()
