import json

import pytest

from cnnprobe.reporting.follow import follow


@pytest.fixture
def path(tmp_path):
    return tmp_path / "readings.jsonl"


def add(path, text):
    with path.open("a") as file:
        file.write(text)


def lines(*numbers):
    return "".join(json.dumps({"step": number}) + "\n" for number in numbers)


def steps(growth):
    return [record["step"] for record in growth.records]


def test_a_file_that_is_not_there_yet_is_none(path):
    look = follow(path)
    assert look() is None
    add(path, lines(0))
    assert steps(look()) == [0]


def test_each_look_finds_what_was_added(path):
    look = follow(path)
    add(path, lines(0, 1))
    assert (steps(look()), steps(look())) == ([0, 1], [])
    add(path, lines(2))
    growth = look()
    assert (steps(growth), growth.is_anew) == ([2], False)


def test_only_what_was_added_is_read(path, monkeypatch):
    look = follow(path)
    add(path, lines(*range(100)))
    look()
    path.write_bytes(b"#" * (path.stat().st_size - 1) + b"\n" + lines(100).encode())  # what was read is not read again
    growth = look()
    assert (steps(growth), growth.is_anew) == ([100], False)


def test_a_line_cut_in_its_middle_waits_for_its_end(path):
    look = follow(path)
    add(path, lines(0) + '{"st')
    assert steps(look()) == [0]
    add(path, 'ep": 1}\n')
    assert steps(look()) == [1]


def test_a_line_cut_within_a_letter_waits_too(path):
    look = follow(path)
    text = '{"step": 0, "name": "ü"}\n'.encode()
    path.write_bytes(text[:-4])
    assert steps(look()) == []
    path.write_bytes(text)
    assert steps(look()) == [0]


@pytest.mark.parametrize("replace", [True, False])
def test_a_log_that_was_replaced_or_cut_is_read_anew(path, tmp_path, replace):
    look = follow(path)
    add(path, lines(0, 1, 2))
    look()
    if replace:
        (tmp_path / "new").write_text(lines(0, 1, 5, 6, 7))
        (tmp_path / "new").replace(path)
    else:
        path.write_text(lines(0))
    growth = look()
    assert growth.is_anew
    assert steps(growth) == ([0, 1, 5, 6, 7] if replace else [0])


def test_what_is_no_object_is_left_out(path):
    path.write_text("[1]\nnonsense\n\x00\n" + lines(3))
    assert steps(follow(path)()) == [3]
