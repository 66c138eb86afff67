import importlib
import json

import pytest
from absl import flags
from absl.testing import flagsaver

from cnnprobe.types import Diagnosis
from experiments import cli, demo, diagnose, output_flags

BUILT = {"num_images": 30}


def answer(verdict):
    """A doctor that always gives the same verdict, on ten classes."""
    names = tuple(map(str, range(10)))
    diagnosis = Diagnosis(verdict, f"It is {verdict}.", (), None, (), names, {}, (), 1.0)
    return lambda problem, **options: diagnosis._replace(facts={"batch size": problem.batch_size, **options})


@pytest.fixture
def doctor(monkeypatch):
    """`doctor("healthy")` makes that the answer to every problem."""
    module = importlib.import_module("cnnprobe.doctor.diagnose")
    return lambda verdict: monkeypatch.setattr(module, "diagnose", answer(verdict))


@pytest.fixture
def parsed():
    """`parsed("--json")` parses flags for one test."""
    with flagsaver.flagsaver():
        yield lambda *arguments: flags.FLAGS(["test", "--num_images=30", *arguments])


def test_choices_and_budget_reach_the_doctor(doctor):
    doctor("healthy")
    facts = diagnose.run(budget_seconds=7.0, batch_size=5, tell=print, **BUILT)["diagnosis"].facts
    assert facts == {"batch size": 5, "budget_seconds": 7.0, "devices": None, "tell": print}


def test_the_classes_have_their_names(doctor):
    doctor("healthy")
    assert diagnose.run(**BUILT)["diagnosis"].class_names[-1] == "ankle boot"


def test_the_report_is_written_where_asked(doctor, tmp_path):
    doctor("faulty")
    page = diagnose.run(report_dir=str(tmp_path), **BUILT)["report"]
    assert page == tmp_path / "report.html"
    assert page.exists()


def test_a_report_that_cannot_be_written_is_bad_input(doctor, tmp_path):
    doctor("faulty")
    (tmp_path / "file").write_text("")
    with pytest.raises(cli.BadInputError, match="file must be a folder that can be written"):
        diagnose.run(report_dir=str(tmp_path / "file"), **BUILT)


@pytest.mark.parametrize(
    ("verdict", "code"), [("healthy", cli.HEALTHY), ("faulty", cli.FAULTY), ("cannot-tell", cli.HEALTHY)]
)
def test_the_exit_code_tells_the_verdict(verdict, code, doctor, parsed, capsys):
    doctor(verdict)
    parsed()
    assert diagnose.main(["diagnose"]) == code
    assert verdict.upper() in capsys.readouterr().out


def test_json_is_all_that_is_printed(doctor, parsed, capsys):
    doctor("healthy")
    parsed("--json")
    diagnose.main(["diagnose"])
    assert json.loads(capsys.readouterr().out)["verdict"] == "healthy"


def test_what_the_users_own_code_prints_is_no_result(parsed, capsys, monkeypatch):
    module = importlib.import_module("cnnprobe.doctor.diagnose")
    monkeypatch.setattr(
        module, "diagnose", lambda *args, **options: print("noise") or answer("healthy")(*args, **options)
    )
    parsed("--json")
    diagnose.main(["diagnose"])
    shown = capsys.readouterr()
    assert (json.loads(shown.out)["verdict"], shown.err.splitlines()[-1]) == ("healthy", "noise")


def test_quiet_is_one_line_and_the_exit_code(doctor, parsed, capsys):
    doctor("faulty")
    parsed("--quiet")
    assert diagnose.main(["diagnose"]) == cli.FAULTY
    assert capsys.readouterr().out == "faulty: It is faulty.\n"


@pytest.mark.parametrize(("arguments", "silent"), [((), False), (("--quiet",), True), (("--json",), True)])
def test_nothing_but_the_result_is_shown_where_a_program_reads_it(arguments, silent, parsed):
    parsed(*arguments)
    assert output_flags.is_silent() is silent


def test_the_help_says_that_the_code_of_a_problem_is_run():
    assert "That code is run" in flags.FLAGS["problem"].help


def test_malformed_choices_are_bad_input():
    with pytest.raises(cli.BadInputError, match="num_train must be at most 3000, got 9999"):
        diagnose.run(num_images=9999)


def test_demo_diagnoses_every_case_and_says_where_the_pages_are(doctor, parsed, capsys, tmp_path):
    doctor("healthy")
    parsed(f"--report_dir={tmp_path}")
    demo.main(["demo"])
    last = capsys.readouterr().out.splitlines()[-len(demo.CASES) :]
    assert [line.split(":")[0] for line in last] == list(demo.CASES)
    assert len(list(tmp_path.glob("*/report.html"))) == len(demo.CASES)


@pytest.mark.parametrize("shown", [True, False])
def test_news_are_printed_with_the_seconds_so_far(shown, capsys):
    with cli.waiting("diagnosing", shown=shown) as tell:
        tell("found: [nothing]")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.split() == (["0.0", "s", "found:", "[nothing]"] if shown else [])
