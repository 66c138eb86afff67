import csv
import json

import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.reporting import writers

MAKERS = {"jsonl": writers.jsonl_writer, "csv": writers.csv_writer}


@pytest.fixture(params=sorted(MAKERS))
def kind(request):
    return request.param


def rows(path):
    """What a reader of the file finds, as dicts of text."""
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [{name: cell for name, cell in row.items() if cell} for row in csv.DictReader(file)]
    return [json.loads(line) for line in path.read_text().splitlines()]


def steps(path):
    return [int(row["step"]) for row in rows(path)]


@pytest.fixture
def path(tmp_path, kind):
    return tmp_path / "run" / f"scalars.{kind}"


@pytest.fixture
def writer(path, kind):
    writer = MAKERS[kind](path)
    yield writer
    writer.close()


def test_a_line_is_on_the_disk_when_its_step_is_written(writer, path):
    writer.begin(0)
    for step in range(3):
        writer.write_scalars(step, {"loss": 1.5 - step, "accuracy": np.float32(0.25)})
        assert steps(path) == list(range(step + 1))
    assert float(rows(path)[2]["loss"]) == -0.5


def test_numbers_of_jax_are_numbers(writer, path):
    writer.write_scalars(7, {"loss": jnp.float32(0.5)})
    assert float(rows(path)[0]["loss"]) == 0.5


@pytest.mark.parametrize(("begin", "kept"), [(0, []), (2, [0, 1]), (9, [0, 1, 2, 3])])
def test_a_run_that_goes_on_cuts_off_what_comes_after_its_beginning(writer, path, begin, kept):
    for step in range(4):
        writer.write_scalars(step, {"loss": step})
    writer.begin(begin)
    assert steps(path) == kept


def test_a_last_line_cut_short_is_mended(writer, path):
    for step in range(3):
        writer.write_scalars(step, {"loss": 1.25})
    writer.close()
    path.write_bytes(path.read_bytes()[:-2])
    writer.begin(10)
    writer.write_scalars(10, {"loss": 1.0})
    assert steps(path) == [0, 1, 10]


def test_lines_that_are_damaged_are_not_kept(writer, path):
    writer.write_scalars(0, {"loss": 1.0})
    path.write_text(path.read_text() + "\x00\x00\n[1]\n")
    writer.begin(5)
    assert steps(path) == [0]


@pytest.mark.parametrize("text", ['{"kind": "run"}\n{"step": 0}\n', "name,step\na,1\n"])
def test_another_file_is_left_alone(writer, path, text):
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ValueError, match="path must name no file yet or one of this writer's own, got"):
        writer.begin(0)
    assert path.read_text() == text


def test_the_step_is_the_one_that_was_given(writer, path):
    writer.write_scalars(3, {"loss": 1.0, "step": 99.0})
    assert steps(path) == [3]


def test_a_name_of_two_lines_is_the_same_column_after_a_new_beginning(writer, path):
    for step in range(2):
        writer.begin(step)
        writer.write_scalars(step, {"a\nb": 1.0})
    assert [set(row) for row in rows(path)] == [{"step", "a b"}] * 2


def test_names_that_come_later_are_told_from_the_others(writer, path):
    writer.write_scalars(0, {"loss": 1.0})
    writer.write_scalars(0, {"valid/loss": 2.0})
    writer.write_scalars(1, {"loss": 3.0, "a, b": 4.0})
    found = [{name: float(value) for name, value in row.items()} for row in rows(path)]
    assert found == [{"step": 0, "loss": 1}, {"step": 0, "valid/loss": 2}, {"step": 1, "loss": 3, "a, b": 4}]


def test_columns_that_come_later_leave_what_was_there(tmp_path):
    writer = writers.csv_writer(tmp_path / "scalars.csv")
    writer.write_scalars(0, {"loss": 0.1, "x": float("nan")})
    writer.write_scalars(1, {"loss": 0.2, "new\nname": 3.0})
    writer.close()
    assert (tmp_path / "scalars.csv").read_text() == "step,loss,x,new name\n0,0.1,nan,\n1,0.2,,3.0\n"


def test_json_is_strict(tmp_path):
    writer = writers.jsonl_writer(tmp_path / "scalars.jsonl")
    writer.write_scalars(0, {"a": float("nan"), "b": float("inf")})
    text = (tmp_path / "scalars.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"step": 0, "a": None, "b": "inf"}


def test_a_place_that_cannot_be_written_is_named(tmp_path, kind):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file must be a folder that can be written"):
        MAKERS[kind](tmp_path / "file" / "scalars").begin(0)


def test_a_full_disk_is_named_and_what_was_written_stays(writer, path, monkeypatch, kind):
    writer.write_scalars(0, {"loss": 1.0})
    full = MAKERS[kind](path)
    monkeypatch.setattr(writers, "_open_end", lambda _: open("/dev/full", "ab", buffering=0))  # noqa: SIM115, PTH123
    full.begin(1)
    with pytest.raises(OSError, match="/dev/full cannot be written: No space left on device"):
        full.write_scalars(1, {"loss": 2.0})
    full.close()
    assert steps(path) == [0]
