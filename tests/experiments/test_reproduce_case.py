import importlib

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


def test_the_remedied_case_is_trained_again(doctor, tmp_path):
    doctor(finding(lambda problem: problem._replace(num_epochs=2)))
    result = reproduce_case.run(case="blood_cells", report_dir=str(tmp_path), **TINY)
    assert [len(result[which].train["loss"]) for which in ("before", "after")] == [15, 2]
    assert result["report"].exists()


def test_a_healthy_case_is_trained_once(doctor):
    doctor()
    assert reproduce_case.run(case="blood_cells", **TINY)["after"] is None


@pytest.mark.parametrize("case", reproduce_case.FULL)
def test_presets_are_choices_of_their_case(case):
    problem = reproduce_case.build_case(case)
    assert len(problem.train.images) < reproduce_case.FULL[case]["num_images"]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"case": "checklist", "image_size": 8}, "choices of checklist must be among fault, .*, got image_size"),
        ({"case": "blood_cells", "fault": "typo"}, "fault must be one of dropped_for_kept, .*, got 'typo'"),
    ],
)
def test_choices_that_a_case_lacks_are_bad_input(choices, message):
    with pytest.raises(cli.BadInputError, match=message):
        reproduce_case.run(**choices)


def test_flags_that_are_not_given_are_left_to_the_case(doctor, monkeypatch, capsys):
    doctor()
    seen = {}
    monkeypatch.setattr(reproduce_case, "run", lambda **choices: seen.update(choices) or {"report": None})
    with flagsaver.flagsaver():
        flags.FLAGS(["test", "--case=checklist", "--num_images=40"])
        reproduce_case.main(["test"])
    assert ("image_size" in seen, seen["num_images"], seen["case"]) == (False, 40, "checklist")
