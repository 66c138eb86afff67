import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import cli, train

SMALL = {"dataset": "textures", "num_images": 60, "batch_size": 20}


def test_history_has_one_entry_an_epoch(tmp_path):
    history = train.run(directory=str(tmp_path), num_epochs=2, **SMALL)["history"]
    assert len(history.train["loss"]) == len(history.valid["accuracy"]) == 2
    assert history.num_steps == 6


def test_a_second_run_goes_on_from_the_first(tmp_path):
    train.run(directory=str(tmp_path), num_epochs=1, **SMALL)
    resumed = train.run(directory=str(tmp_path), num_epochs=2, **SMALL)["history"]
    assert resumed.num_steps == 6


def test_a_folder_with_another_run_is_bad_input(tmp_path):
    train.run(directory=str(tmp_path), num_epochs=1, **SMALL)
    with pytest.raises(cli.BadInputError, match="directory"):
        train.run(directory=str(tmp_path), num_epochs=1, resume=False, **SMALL)


def test_main_prints_the_last_accuracies(capsys):
    with flagsaver.flagsaver():
        flags.FLAGS(["train", "--dataset=textures", "--num_images=60", "--num_epochs=1"])
        train.main(["train"])
    lines = capsys.readouterr().out.splitlines()[-3:]  # a progress bar stands before
    assert [line.split()[0] for line in lines] == ["training:", "validation:", "steps:"]
    assert "accuracy" in lines[1]
