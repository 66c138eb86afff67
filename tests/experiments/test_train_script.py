import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import cli, train

SMALL = {"dataset": "textures", "num_images": 60, "batch_size": 20}
ROOT = Path(__file__).parents[2]


def in_a_process_of_its_own(*arguments):
    """The script as a user calls it."""
    command = [sys.executable, "-m", "experiments.train", "--dataset=textures", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def steps(directory):
    """The lines of the log that tell of steps."""
    records = map(json.loads, (directory / "readings.jsonl").read_text().splitlines())
    return [record for record in records if record["kind"] == "step"]


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


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"log": ["csv"]}, "directory must be given where log is, got log=csv alone"),
        (
            {"log": ["tensorbord"], "directory": "x"},
            "log must be one of csv, jsonl, tensorboard, wandb, got 'tensorbord'",
        ),
    ],
)
def test_a_log_that_cannot_be_written_is_bad_input_before_anything_is_trained(choices, message):
    with pytest.raises(cli.BadInputError, match=message):
        train.run(**choices)


def test_each_log_has_its_place(tmp_path):
    names = {Path(writer.name).name for writer in train.make_writers(["jsonl", "csv", "tensorboard"], str(tmp_path))}
    assert names == {"scalars.jsonl", "scalars.csv", "tensorboard"}


def test_a_folder_of_another_problem_keeps_its_config(tmp_path):
    train.run(directory=str(tmp_path), num_epochs=1, **SMALL)
    other = train.config_writer(str(tmp_path))
    with pytest.raises(cli.BadInputError, match="must hold a run of the same problem"):
        train.run(directory=str(tmp_path), num_epochs=1, writers=[other], **SMALL | {"model": "baseline_cnn"})
    assert not (tmp_path / "config.json").exists()


def test_main_prints_the_last_accuracies(capsys):
    with flagsaver.flagsaver():
        flags.FLAGS(["train", "--dataset=textures", "--num_images=60", "--num_epochs=1"])
        train.main(["train"])
    lines = capsys.readouterr().out.splitlines()[-3:]  # a progress bar stands before
    assert [line.split()[0] for line in lines] == ["training:", "validation:", "steps:"]
    assert "accuracy" in lines[1]


def test_two_processes_of_two_devices_train_and_read_like_one(tmp_path):
    choices = ["--num_images=60", "--batch_size=20", "--num_epochs=1", f"--directory={tmp_path / 'two'}"]
    ended = in_a_process_of_its_own(*choices, "--num_processes=2", "--num_devices=2")
    assert ended.returncode == 0, ended.stderr
    train.run(directory=str(tmp_path / "one"), num_epochs=1, **SMALL)
    one, two = steps(tmp_path / "one"), steps(tmp_path / "two")
    np.testing.assert_allclose([step["loss"] for step in two], [step["loss"] for step in one], rtol=1e-4)
    layers = [[list(stats.values())[3:6] for stats in log[0]["taps"].values()] for log in (one, two)]
    np.testing.assert_allclose(layers[0], layers[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_processes=2", "--process_id=0"], "coordinator must be the HOST:PORT of the first process"),
        (["--num_devices=2", "--batch_size=15", "--num_images=60"], "batches must have a multiple of 2 images"),
    ],
)
def test_devices_that_cannot_be_had_are_bad_input(arguments, message):
    ended = in_a_process_of_its_own(*arguments)
    assert (ended.returncode, ended.stderr.count("error:")) == (2, 1)
    assert message in ended.stderr


def test_patience_ends_a_training_that_does_not_get_better(capsys):
    with flagsaver.flagsaver():
        flags.FLAGS(
            ["train", "--dataset=textures", "--num_images=60", "--num_epochs=4", "--patience=1", "--learning_rate=0"]
        )
        train.main(["train"])
    assert capsys.readouterr().out.splitlines()[-1] == "steps: 2"
