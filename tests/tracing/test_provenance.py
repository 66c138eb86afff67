"""Names come from parameters, and axes survive what only rearranges."""

import numpy as np
import pytest

from cnnprobe.tracing.axes import reshaped_axes
from cnnprobe.tracing.provenance import layer_name, owner_name, shared_name


@pytest.mark.parametrize(
    ("path", "layer", "owner"),
    [
        ("Conv_0/kernel", "Conv_0", "Conv_0"),
        ("block/conv/kernel/value", "block/conv", "block/conv"),
        ("layers/2/weight", "layers/2", "layers/2"),
        ("conv1/w", "conv1", "conv1"),
        ("w1", "w1", "w1"),
        ("attention/value/kernel", "attention/value", "attention/value"),
        ("attention/value/kernel/value", "attention/value", "attention/value"),
        ("kernel", "kernel", "kernel"),
    ],
)
def test_names(path, layer, owner):
    assert (layer_name(path), owner_name(path)) == (layer, owner)


@pytest.mark.parametrize(
    ("paths", "name"),
    [
        ({"conv/kernel"}, "conv"),
        ({"conv/kernel", "conv/gain"}, "conv"),
        ({"lora/a", "lora/b", "lora/w"}, "lora"),
        ({"block/conv/kernel/value", "weight_norm/scale/value"}, "block/conv"),
        ({"noisy/out/mean", "noisy/out/std"}, "noisy/out"),
        ({"a", "b"}, "a+b"),
    ],
)
def test_kernels_made_of_several_parameters(paths, name):
    assert shared_name(frozenset(paths)) == name


@pytest.mark.parametrize(
    ("before", "after", "axes"),
    [
        ((2, 3, 5), (6, 5), (2,)),
        ((2, 3, 5), (2, 3, 1, 5), (2,)),
        ((6, 10), (2, 3, 2, 5), (1,)),
        ((2, 1, 5), (2, 5), (2,)),
        ((4, 4), (4, 2, 2), (1,)),
    ],
)
def test_feature_axes_through_a_reshape(before, after, axes):
    moved = reshaped_axes(before, after, axes)
    labels = np.broadcast_to(np.arange(before[axes[0]]), before).reshape(after)
    others = tuple(axis for axis in range(len(after)) if axis not in moved)
    assert np.all(np.ptp(labels, axis=others) == 0)


def test_merged_feature_axes_are_given_up():
    assert reshaped_axes((2, 3, 5), (2, 15), (2,)) is None
