"""Networks that cannot tell places apart, beside those that can."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.doctor.causes import CAUSES
from cnnprobe.doctor.looks.places import _dealt, _widths, look_at_places
from cnnprobe.doctor.remedies_network import mark_places
from cnnprobe.types import Model

KEY = jax.random.key(0)
CAUSE = {cause.id: cause for cause in CAUSES}["spatial-collapse"]


def bag_of_patches(width, *, is_marked=False):
    """The mean over patches of what two layers make of each; one that marks its patches first knows their places."""

    def init(key, images):
        _, height, _, channels = images.shape
        first, second, third = jax.random.split(key, 3)
        params = {
            "first": jax.random.normal(first, (width * width * channels, 8)),
            "second": jax.random.normal(second, (8, 4)),
        }
        return params | {"places": jax.random.normal(third, ((height // width) ** 2, 8))}, {}

    def apply(params, state, images, *, key, train):
        num, height, _, channels = images.shape
        cut = jnp.asarray(images).reshape(num, height // width, width, height // width, width, channels)
        tokens = cut.swapaxes(2, 3).reshape(num, (height // width) ** 2, -1) @ params["first"]
        tokens = jax.nn.relu(tokens + is_marked * params["places"]).mean(axis=1)
        return tokens @ params["second"], state

    return Model(init, apply)


def constant(problem):
    model = problem.model
    return Model(model.init, lambda *args, **rest: (0 * model.apply(*args, **rest)[0], args[1]))


@pytest.fixture
def look(tiny_bench):
    """Reads a model that has not been trained."""

    def read(model):
        problem = tiny_bench.problem._replace(model=model)
        return look_at_places(tiny_bench._replace(problem=problem), model.init(KEY, tiny_bench.train.images[:2]))

    return read


@pytest.mark.parametrize("width", [1, 2, 4])
def test_blocks_of_a_bag_of_patches_may_trade_places(width, look, tiny_bench):
    size = tiny_bench.train.images.shape[1]
    assert size % width == 0
    assert look(bag_of_patches(width)) == {"blocks that may trade places": float(width)}


def test_marked_places_and_convolutions_tell_them_apart(look, tiny_bench):
    nothing = {"blocks that may trade places": 0.0}
    assert look(bag_of_patches(2, is_marked=True)) == nothing
    assert look(tiny_bench.problem.model) == nothing
    assert look(mark_places(tiny_bench.problem._replace(model=bag_of_patches(2))).model) == nothing


def test_nothing_is_said_of_scores_that_never_differ(look, tiny_bench):
    assert look(constant(tiny_bench.problem)) == {}


@pytest.mark.parametrize(
    ("shape", "widths"), [((8, 8), [1, 2, 4]), ((6, 9), [1, 3]), ((7, 7), [1]), ((4, 16), [1, 2, 4])]
)
def test_widths_divide_both_sides_into_several(shape, widths):
    assert _widths(np.zeros((2, *shape, 3))) == widths


def blocks(image, width):
    starts = [range(0, side, width) for side in image.shape[:2]]
    return sorted(
        image[row : row + width, column : column + width].tobytes() for row in starts[0] for column in starts[1]
    )


def test_dealt_blocks_are_those_of_the_image():
    images = np.random.default_rng(0).random((3, 4, 6, 2))
    dealt = _dealt(images, 2, np.random.default_rng(1))
    assert dealt.shape == images.shape
    assert not np.array_equal(dealt, images)
    assert [blocks(image, 2) for image in dealt] == [blocks(image, 2) for image in images]


def test_the_cause_speaks_and_marks_places(healthy):
    seen = healthy._replace(facts={**healthy.facts, "blocks that may trade places": 4.0})
    assert "blocks of 4x4 pixels" in CAUSE.evidence(seen).sentence
    assert CAUSE.remedies(seen) == (mark_places,)
    assert "places" in CAUSE.advice(seen).snippet
    still = healthy._replace(facts={**healthy.facts, "blocks that may trade places": 0.0})
    assert CAUSE.evidence(still) is None
