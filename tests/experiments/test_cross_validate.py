import json

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from cnnprobe.training import folds
from experiments import cli, cross_validate

SMALL = {"dataset": "textures", "num_images": 60, "batch_size": 20, "num_epochs": 1}


@pytest.fixture
def printed(monkeypatch, capsys):
    """`printed("--json")` is what the script prints with these flags for three runs that reached .5, .7 and .9."""
    scores = folds.Scores(np.ones(3), np.array([0.5, 0.7, 0.9]))
    monkeypatch.setattr(folds, "train_folds", lambda *_, **__: scores)

    def run(*arguments):
        with flagsaver.flagsaver():
            flags.FLAGS(["test", "--num_images=30", "--num_folds=3", *arguments])
            cross_validate.main(["cross_validate"])
        return capsys.readouterr().out

    return run


def test_every_fold_is_held_out_once():
    result = cross_validate.run(num_folds=3, **SMALL)
    assert result["scores"].valid.shape == (3,)
    assert result["num_steps"] == 2


def test_mean_and_spread_are_printed(printed):
    lines = printed().splitlines()
    assert lines[0] == "fold 1: 50.0 % of the held-out images, 100.0 % of its own"
    assert lines[-1] == "70.0 ± 20.0 % (mean and standard deviation over 3 folds)"


def test_json_holds_every_fold(printed):
    shown = json.loads(printed("--json"))
    assert shown == {"accuracies": [0.5, 0.7, 0.9], "mean": pytest.approx(0.7), "spread": pytest.approx(0.2)}


def test_more_folds_than_images_are_bad_input():
    with pytest.raises(cli.BadInputError, match="num must be a whole number of at least 61, got 60"):
        cross_validate.run(num_folds=61, **SMALL)
