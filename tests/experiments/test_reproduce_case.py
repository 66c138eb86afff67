import importlib
import json

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from cnnprobe.types import Diagnosis, Evidence, Finding
from experiments import cli, reproduce_case

TINY = {"image_size": 24, "width": 4, "num_images": 32}


def finding(remedy):
    return Finding("a-cause", "it", "cause", 1.0, Evidence("", (), 1.0), remedy, "", "", None, "", ())


@pytest.fixture
def doctor(monkeypatch):
    """`doctor(finding, ...)` makes those the answer to every problem."""
    module = importlib.import_module("cnnprobe.doctor.diagnose")

    def answer(*findings):
        verdict = "faulty" if findings else "healthy"
        names = tuple("0123")
        diagnosis = Diagnosis(verdict, "", findings, None, (), names, {}, (), 1.0)
        monkeypatch.setattr(module, "diagnose", lambda problem, **options: diagnosis)

    return answer


def test_the_remedied_case_is_trained_again_and_its_story_is_written(doctor, tmp_path):
    doctor(finding(lambda problem: problem._replace(num_epochs=2)))
    result = reproduce_case.run(case="blood_cells", report_dir=str(tmp_path), **TINY)
    runs = (result["made"].before, result["made"].after)
    assert len(runs[1].history.train["loss"]) == 2 < len(runs[0].history.train["loss"])
    assert {"case.html", "case.json", "case.md", "report.html"} <= {path.name for path in tmp_path.iterdir()}
    assert json.loads((tmp_path / "case.json").read_text())["verdict"] == result["story"].verdict


def test_a_healthy_case_is_trained_once(doctor):
    doctor()
    result = reproduce_case.run(case="blood_cells", **TINY)
    assert (result["made"].after, result["page"]) == (None, None)


def test_a_fault_that_no_program_can_mend_is_mended_by_hand(doctor):
    doctor(finding(None))
    made = reproduce_case.run(case="blood_cells", fault="metric_of_scores", **TINY)["made"]
    assert (made.how, made.mended.predict) == (reproduce_case.BY_HAND, None)


@pytest.mark.parametrize("case", reproduce_case.FULL)
def test_presets_are_choices_of_their_case(case):
    problem = reproduce_case.build_case(case)
    assert len(problem.train.images) < reproduce_case.FULL[case]["num_images"]


def test_images_of_a_folder_take_the_place_of_the_cases_own(doctor, tmp_path):
    image = pytest.importorskip("PIL.Image")
    for index in range(40):
        folder = tmp_path / "abcde"[index % 5]
        folder.mkdir(exist_ok=True)
        image.fromarray(np.full((30, 30, 3), index, np.uint8)).save(folder / f"{index}.png")
    doctor()
    made = reproduce_case.run(case="blood_cells", images=str(tmp_path), **TINY)["made"]
    assert (made.problem.num_classes, made.problem.train.images.shape) == (5, (32, 24, 24, 1))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"case": "checklist", "image_size": 8}, "choices of checklist must be among fault, .*, got image_size"),
        ({"case": "blood_cells", "fault": "typo"}, "fault must be one of dropped_for_kept, .*, got 'typo'"),
        ({"case": "blood_cells", "dataset": "typo"}, "dataset must be one of blood_cells, .*, got 'typo', .*prepare"),
        ({"case": "blood_cells", "images": "absent"}, "root must be a folder, got 'absent', which is missing"),
    ],
)
def test_choices_that_a_case_lacks_are_bad_input(choices, message):
    with pytest.raises(cli.BadInputError, match=message):
        reproduce_case.run(**choices)


def test_flags_that_are_not_given_are_left_to_the_case(doctor, monkeypatch, capsys):
    doctor()
    seen = {}
    monkeypatch.setattr(reproduce_case, "run", lambda **choices: seen.update(choices) or {"page": None})
    with flagsaver.flagsaver():
        flags.FLAGS(["test", "--case=checklist", "--num_images=40"])
        reproduce_case.main(["test"])
    assert ("image_size" in seen, seen["num_images"], seen["case"]) == (False, 40, "checklist")
