"""Images whose numbers lie elsewhere than their axes say, beside sound ones."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from cnnprobe.doctor.causes import CAUSES
from cnnprobe.doctor.looks.layout import CHANNELS_IN_FRONT, LAYOUTS, ROUGHER, look_at_layout
from cnnprobe.doctor.looks.maps import look_at_maps
from cnnprobe.models.linen import from_linen

CAUSE = {cause.id: cause for cause in CAUSES}["inputs-blank-or-corrupt"]


def smooth(height, width, channels, num=30, seed=0):
    """Waves of a few periods, each channel with some of its own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width, :channels][:2] / max(height, width)
    lengths, phase = rng.uniform(0.5, 2, (2, num, 1, 1, channels)), rng.random((num, 1, 1, channels))
    return np.sin(2 * np.pi * (lengths[0] * y + lengths[1] * x + phase)).astype(np.float32)


MIXED = {  # what a reshape in the place of a transpose makes of sound images, and how those were stored
    "planes": (lambda x: np.moveaxis(x, -1, 1).reshape(x.shape), "channel by channel"),
    "pixels": (lambda x: np.moveaxis(x.reshape(len(x), -1, *x.shape[1:3]), 1, -1), "pixel by pixel"),
}


@pytest.mark.parametrize(("mix", "stored"), MIXED.values(), ids=MIXED)
@pytest.mark.parametrize("shape", [(16, 16, 3), (12, 20, 3), (24, 24, 5)], ids=str)
def test_mixed_pixels_are_found_and_put_back(mix, stored, shape, healthy):
    sound = smooth(*shape)
    facts, names = look_at_layout(mix(sound))
    assert names["other layout"] == stored
    np.testing.assert_array_equal(LAYOUTS[stored](mix(sound)), sound)
    seen = healthy._replace(facts={**healthy.facts, **facts}, names={**healthy.names, **names})
    assert f"stored {stored}" in CAUSE.evidence(seen).sentence
    assert CAUSE.evidence(seen).strength > 0.9
    (remedy,) = CAUSE.remedies(seen)
    problem = seen.bench.problem._replace(preprocess=mix, preprocess_valid=None, batches=None)
    np.testing.assert_array_equal(remedy(problem).preprocess(sound), sound)
    assert "transpose" in CAUSE.advice(seen).snippet


@pytest.mark.parametrize("shape", [(16, 16, 3), (12, 20, 2), (20, 12, 4), (64, 64, 3)], ids=str)
@pytest.mark.parametrize("noise", [0.0, 1.0, 100.0])
def test_sound_images_are_left_alone(shape, noise, healthy):
    images = smooth(*shape)
    images += noise * np.random.default_rng(1).normal(size=images.shape)
    facts, names = look_at_layout(images)
    seen = healthy._replace(facts={**healthy.facts, **facts}, names={**healthy.names, **names})
    assert facts[ROUGHER] < 1.02
    assert CAUSE.evidence(seen) is None


def test_nothing_is_said_of_grey_images_that_are_stored_in_colour():
    rows = np.random.default_rng(0).normal(size=(50, 24, 1, 1)).repeat(24, axis=2).repeat(3, axis=3)
    assert look_at_layout(rows) == ({}, {})


@pytest.mark.parametrize(
    "images", [smooth(16, 16, 1), smooth(16, 16, 3) * 0, smooth(8, 8, 3)[..., 0], smooth(3, 16, 16)], ids=str
)
def test_nothing_is_said_without_another_layout(images):
    assert look_at_layout(images) == ({}, {})


class Net(nn.Module):
    is_turned: bool

    @nn.compact
    def __call__(self, x):
        x = x.transpose(0, 2, 3, 1) if self.is_turned else x
        return nn.Dense(4)(nn.relu(nn.Conv(8, (3, 3))(x)).mean((1, 2)))


@pytest.mark.parametrize(("is_turned", "shape", "is_named"), [
    (False, (3, 16, 16), True),
    (False, (1, 16, 16), True),
    (True, (3, 16, 16), False),  # by the model
    (False, (16, 16, 3), False),
])  # fmt: skip
def test_a_side_that_is_read_as_channels_is_named(is_turned, shape, is_named, tiny_bench, healthy):
    images = np.random.default_rng(0).random((40, *shape)).astype(np.float32)
    model = from_linen(Net(is_turned))
    bench = tiny_bench._replace(
        problem=tiny_bench.problem._replace(model=model), train=tiny_bench.train._replace(images=images)
    )
    facts, names = look_at_maps(bench, model.init(jax.random.key(0), images[:2]))
    seen = healthy._replace(bench=bench, facts={**healthy.facts, **facts}, names={**healthy.names, **names})
    assert bool(facts["side read as channels"]) == is_named
    if is_named:
        assert "16 columns for channels" in CAUSE.evidence(seen).sentence
        (remedy,) = CAUSE.remedies(seen)
        problem = seen.bench.problem._replace(preprocess=None, preprocess_valid=None, batches=None)
        np.testing.assert_array_equal(remedy(problem).preprocess(images), LAYOUTS[CHANNELS_IN_FRONT](images))
    else:
        assert CAUSE.evidence(seen) is None
