import json
import sys

import pytest

from cnnprobe.reporting.report import write_report


def test_a_folder_holds_page_data_and_readings(any_diagnosis, tmp_path):
    page = write_report(any_diagnosis, tmp_path / "new" / "folder")
    assert page == tmp_path / "new" / "folder" / "report.html"
    assert sorted(file.name for file in page.parent.iterdir()) == ["diagnosis.json", "readings.jsonl", "report.html"]


def test_writing_twice_replaces(faulty, healthy, tmp_path):
    write_report(faulty, tmp_path)
    page = write_report(healthy, tmp_path)
    assert "Nothing is wrong" in page.read_text(encoding="utf-8")


def test_the_data_are_kept_when_the_page_cannot_be_drawn(faulty, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"cnnprobe\[report\]"):
        write_report(faulty, tmp_path)
    assert json.loads((tmp_path / "diagnosis.json").read_text())["verdict"] == "faulty"


def test_a_folder_that_is_a_file_is_named(faulty, tmp_path):
    path = tmp_path / "taken"
    path.write_text("")
    with pytest.raises(OSError, match=r"taken must be a folder that can be written"):
        write_report(faulty, path)
