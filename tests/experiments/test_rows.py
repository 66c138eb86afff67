import json

import pytest

from experiments.rows import append_row, read_rows


def test_rows_come_back_in_order(tmp_path):
    for number in range(3):
        append_row(tmp_path / "a.jsonl", {"number": number})
    assert [row["number"] for row in read_rows(tmp_path / "a.jsonl")] == [0, 1, 2]
    assert read_rows(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("half", ['{"number": 1', '{"number": 1, "text": "\xff', "12", '{"number": 1}'])
def test_what_a_killed_process_left_spoils_no_other_row(tmp_path, half):
    path = tmp_path / "a.jsonl"
    append_row(path, {"number": 0})
    path.write_bytes(path.read_bytes() + half.encode("latin1"))
    append_row(path, {"number": 2})
    assert [row["number"] for row in read_rows(path) if row["number"] != 1] == [0, 2]
    assert all(line.endswith("\n") for line in path.read_text(encoding="latin1").splitlines(keepends=True))


def test_a_row_is_one_line(tmp_path):
    append_row(tmp_path / "a.jsonl", {"text": "two\nlines"})
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {"text": "two\nlines"}
