import json

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from cnnprobe.training.rates import LearningRateRange
from experiments import cli, learning_rate_range

SMALL = {"dataset": "textures", "num_images": 60, "batch_size": 20}
FLAGS = ("--dataset=textures", "--num_images=60", "--batch_size=20", "--sweep_steps=100", "--quiet")


@pytest.fixture
def printed(capsys):
    """`printed("--json")` is what the script prints with these flags."""

    def run(*arguments):
        with flagsaver.flagsaver():
            flags.FLAGS(["test", *FLAGS, *arguments])
            learning_rate_range.main(["learning_rate_range"])
        return capsys.readouterr().out

    return run


def test_json_holds_the_sweep(printed):
    content = json.loads(printed("--json"))
    assert len(content["rates"]) == len(content["losses"]) > 5


def test_the_conclusion_is_printed_and_the_picture_written(printed, tmp_path):
    said = printed(f"--report_dir={tmp_path}")
    assert said.startswith(("The loss falls fastest", "Cannot tell"))
    assert (tmp_path / "learning_rate_range.png").exists()


def test_the_learning_rate_range_is_a_multiple_of_the_users_own(capsys):
    found = LearningRateRange(np.ones(1), np.ones(1), np.ones(1), 3.0, 5.0, "It falls.")
    learning_rate_range._print({"found": found, "picture": None}, 0.01)
    assert capsys.readouterr().out == "It falls.\nlearning rate: 0.03 to 0.05\n"


def test_a_bad_range_is_bad_input():
    with pytest.raises(cli.BadInputError, match="lowest must be above 0"):
        learning_rate_range.run(lowest_rate=0.0, **SMALL)
