import numpy as np
import pytest

from cnnprobe.probes.baselines import score_baselines


def stripes(num, seed):
    """Class 0 has horizontal stripes, class 1 vertical ones, at a random phase."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 2, num)
    waves = np.sin(np.arange(12)[None] + rng.uniform(0, 6, num)[:, None])
    maps = np.where(ids[:, None, None] == 0, waves[:, :, None], waves[:, None, :]) + 0.1 * rng.normal(
        size=(num, 12, 12)
    )
    return maps[..., None].astype(np.float32), ids


def test_random_convolutions_see_what_linear_pixels_do_not():
    scores = score_baselines(*stripes(200, 0), *stripes(200, 1), num_classes=2)
    assert scores["random convolutions"].accuracy > 0.95 > 0.75 > scores["linear on pixels"].accuracy


def test_blind_rules_match_their_definition():
    images, ids = stripes(100, 0)
    scores = score_baselines(images, np.zeros(100, int), images, ids, num_classes=2)
    assert scores["majority class"] == (np.mean(ids == 0), 0.5)
    assert scores["uniform guess"] == (0.5, 0.5)


def test_neighbours_find_the_same_images():
    images, ids = stripes(50, 0)
    five = np.repeat(images, 5, axis=0), np.repeat(ids, 5)
    assert score_baselines(*five, images, ids, num_classes=2)["nearest neighbours"].accuracy == 1


def test_labels_unrelated_to_images_give_no_rule_a_lead():
    images, _ = stripes(300, 0)
    drawn = np.random.default_rng(2).integers(0, 2, 300)
    scores = score_baselines(images, drawn, *stripes(300, 1), num_classes=2)
    assert all(0.4 < score.balanced_accuracy < 0.6 for score in scores.values())


def test_ids_must_belong_to_the_images():
    with pytest.raises(ValueError, match="train_images and train_ids must have as many rows"):
        score_baselines(*stripes(10, 0)[:1], np.zeros(9, int), *stripes(10, 1), num_classes=2)


def test_classes_weigh_alike_however_many_images_they_have():
    images, _ = stripes(100, 0)
    ids = np.repeat([0, 1, 2], [70, 20, 10])
    scores = score_baselines(images, np.ones(100, int), images, ids, num_classes=3)
    assert scores["majority class"] == (0.2, pytest.approx(1 / 3))
