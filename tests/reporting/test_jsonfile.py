import functools
import json
import math
import os

import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.reporting import jsonfile


def strict(text):
    """Parses JSON and refuses the constants that are not in it."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_every_diagnosis_is_strict_json(any_diagnosis, tmp_path):
    path = jsonfile.write_json(any_diagnosis, tmp_path / "diagnosis.json")
    assert strict(path.read_text())["verdict"] == any_diagnosis.verdict


def test_a_finding_keeps_its_numbers_and_names_its_remedy(faulty):
    finding = jsonfile.diagnosis_to_dict(faulty)["findings"][0]
    assert finding["trial"]["gain"] == pytest.approx(faulty.findings[0].trial.gain)
    assert "lambda" in finding["remedy"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (np.float32("nan"), None),
        (np.bool_(True), True),
        (jnp.array([1.0, jnp.nan]), [1.0, None]),
        ({1: np.arange(2)}, {"1": [0, 1]}),
        (functools.partial(os.getenv, "HOME"), "getenv"),
        (b"raw", "b'raw'"),
    ],
)
def test_to_json(value, expected):
    assert jsonfile.to_json(value) == expected


def test_one_line_a_step(faulty, tmp_path):
    lines = jsonfile.write_readings(faulty.curve, tmp_path / "readings.jsonl").read_text().splitlines()
    rows = [strict(line) for line in lines]
    assert [row["step"] for row in rows] == list(range(150))
    np.testing.assert_allclose([row["loss"] for row in rows], faulty.curve.loss, rtol=1e-6)


def test_a_run_that_never_started_gives_no_lines(tmp_path):
    assert jsonfile.write_readings(None, tmp_path / "readings.jsonl").read_text() == ""


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = jsonfile.write_atomically(tmp_path / "a.txt", "old")
    with pytest.raises(TypeError):
        jsonfile.write_atomically(path, 7)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_half_a_character_is_written_as_an_escape(tmp_path):
    assert jsonfile.write_atomically(tmp_path / "a.txt", "caf\ud800").read_text() == "caf\\ud800"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/sub must be a folder that can be written: Not a directory"):
        jsonfile.write_atomically(tmp_path / "file" / "sub" / "a.txt", "text")
