import numpy as np
import pytest

import cnnprobe as cp
from experiments.problems import build_problem


@pytest.fixture(scope="module")
def clothes():
    return build_problem(dataset="fashion_mnist", num_images=600)[0]


def test_baselines_of_real_images_stand_in_their_known_order(clothes):
    scores = cp.baselines(clothes)
    assert scores["uniform guess"].accuracy == 0.1
    assert 0.7 < scores["nearest neighbours"].accuracy < scores["random convolutions"].accuracy + 0.05 < 0.95


def test_baselines_need_held_out_images(clothes):
    with pytest.raises(ValueError, match=r"problem\.valid must hold images to score on, got None"):
        cp.baselines(clothes._replace(valid=None))


def test_baselines_leave_the_arrays_alone(clothes):
    before = np.array(clothes.train.images)
    cp.baselines(clothes)
    np.testing.assert_array_equal(clothes.train.images, before)
