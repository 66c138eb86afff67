import numpy as np
import pytest

from cnnprobe.probes.noise import label_noise

RNG = np.random.default_rng(0)
IDS = np.arange(1000) % 5
SCORES = np.eye(5)[IDS] * (1 + RNG.random((1000, 1)))


def test_clean_labels_have_no_noise():
    assert label_noise(SCORES, IDS).share == 0


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_share_of_wrong_labels_is_found(share):
    wrong = RNG.random(1000) < share
    found = label_noise(SCORES, np.where(wrong, (IDS + 1) % 5, IDS))
    assert found.share == pytest.approx(share, abs=0.12)


def test_only_the_surest_tenth_counts():
    lead = np.argsort(-SCORES.max(axis=1))
    labels = IDS.copy()
    labels[lead[100:]] = (labels[lead[100:]] + 1) % 5
    assert label_noise(SCORES, labels) == (0.0, 100)


def test_labels_may_be_any_numbers():
    assert label_noise(SCORES, 10 * IDS - 7).share == 0


def test_too_few_images_tell_nothing():
    assert np.isnan(label_noise(SCORES[:10], IDS[:10]).share)


def test_refuses_what_does_not_match():
    with pytest.raises(ValueError, match="scores"):
        label_noise(SCORES, IDS[:5])


def test_a_tenth_of_many_images_is_more_than_enough():
    assert label_noise(np.tile(SCORES, (3, 1)), np.tile(IDS, 3)).num_sure == 300
