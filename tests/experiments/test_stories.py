"""Each story, told of a run that is tiny or made up, with a diagnosis that was not measured."""

import importlib

import numpy as np
import pytest

from cnnprobe.reporting.page import Page, render_page
from cnnprobe.reporting.story_plots import Answers
from cnnprobe.training.folds import Scores
from cnnprobe.types import Diagnosis, Evidence, Finding, History
from experiments import gallery, reproduce_case
from experiments.stories import record, resnet_digits, sixteen_classes, stuck_at_a_third

FACTS = {
    "collapse mechanism": "none",
    "training accuracy": 0.2,
    "validation accuracy": 0.19,
    "input standard deviation": 90.0,
}
FINDING = Finding("a-cause", "it", "cause", 1.0, Evidence("so", (), 1.0), None, "mend it", "", None, "", ())
DIAGNOSIS = Diagnosis("faulty", "It is it.", (FINDING,), None, (), tuple("0123"), FACTS, (), 1.0)
SCORES = {"accuracy": np.array([0.2, 0.25]), "loss": np.array([2.0, 1.9])}
MADE_UP = record.Recording(History({}, {}, SCORES, SCORES, 8), Answers(*np.zeros((2, 8, 4), int)))
TINY = {
    "blood_cells": {"fault": "sorted_batches", "image_size": 24, "width": 4, "num_images": 64},
    "checklist": {"fault": "softmax_twice", "width": 2, "num_images": 64},
    "stuck_at_a_third": {"width": 2, "num_images": 32, "image_size": 52},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Runs of two epochs, a diagnosis at once."""
    fit, diagnose = (importlib.import_module(f"cnnprobe.{name}") for name in ("training.fit", "doctor.diagnose"))
    monkeypatch.setattr(record, "fit", lambda problem, **options: fit.fit(problem, num_epochs=2, **options))
    monkeypatch.setattr(diagnose, "diagnose", lambda problem, **options: DIAGNOSIS)


def trained(case, **choices):
    return reproduce_case.reproduce(case, budget_seconds=1.0, progress=False, **{**TINY[case], **choices})


def made_up(case, **choices):
    problem = reproduce_case.build_case(case, **choices)
    return record.Reproduction(case, choices, problem, MADE_UP, DIAGNOSIS, None, "", None)


def tell(made, **options):
    return importlib.import_module(f"experiments.stories.{made.case}").tell(made, **options)


def text_of(story):
    return render_page(Page(story.title, story.question, story.verdict, "faulty", story.sections, "typed"))


def test_cells_show_every_answer_before_and_after():
    made = trained("blood_cells")
    story = tell(made)
    assert made.before.answers.predicted.shape == (4, 32)
    assert set(made.before.answers.labels[0].tolist()) == {0, 1}
    assert "Hypothesis 5" in text_of(story)
    assert story.numbers["collapse index after"] is not None


def test_every_hypothesis_has_its_words_and_its_cause():
    module = importlib.import_module("experiments.stories.blood_cells")
    faults = importlib.import_module("cnnprobe.cases.blood_cells").FAULTS
    assert set(module.CAUSES) == set(faults) == set(module.HYPOTHESES) - {None}


def test_checklist_shows_what_was_measured():
    assert "Would early stopping keep more?" in text_of(tell(trained("checklist"), budget_seconds=1.0))


def test_digits_answer_the_question_that_was_asked():
    story = tell(made_up("resnet_digits", fault="unscaled"))
    words = "It does not overfit: in evaluation it names 20 % of its own training images and 19 %"
    assert story.verdict.startswith(words)
    assert "outside" in text_of(story)


@pytest.mark.parametrize(
    ("losses", "epoch"),
    [([3, 2, 1], None), ([1, 2, 3], 3), ([3, 2, 2.5, 2.1, 1], 4), ([np.nan, np.nan], 2), ([2, np.nan, 1, 3, 3], 5)],
)
def test_patience_ends_a_run(losses, epoch):
    assert resnet_digits.stopping_epoch(np.array(losses, float)) == epoch


def test_both_summaries_have_the_reported_totals(monkeypatch):
    monkeypatch.setattr(stuck_at_a_third, "_num_stuck", lambda made, name: 1)
    story = tell(trained("stuck_at_a_third"))
    assert (story.numbers["parameters of A"], story.numbers["parameters of B"]) == (1_382_819, 6_582_755)
    text = text_of(story)
    assert "the same bytes as before" in text
    assert "only in the first: conv 32 3x3 valid, relu" in text


def test_two_spellings_of_the_activation_are_one_network():
    comparison, gap = stuck_at_a_third.compare_spellings()
    assert (str(comparison), gap) == ("no difference", 0.0)


def test_sixteen_classes_have_baselines_and_error_bars(monkeypatch):
    def train_folds(problem, splits, *, num_steps):
        share = 0.001 * splits.train.shape[1] + np.linspace(0.2, 0.3, len(splits.train))
        return Scores(share + 0.4, share)

    monkeypatch.setattr(sixteen_classes, "train_folds", train_folds)
    story = tell(made_up("sixteen_classes", width=1, num_images=48, image_size=24))
    assert "106x106x16 for each image of 224x224x3" in text_of(story)
    assert story.verdict.startswith("Too little data for this network")
    assert len(story.numbers["baselines"]) == 5
    assert set(story.numbers["accuracy"]) >= {sixteen_classes.OWN, "with augmentation", "with half the channels"}


def test_network_as_printed_has_the_shape_finding_first():
    story = tell(made_up("sixteen_classes", width=1, num_images=48, image_size=24, flat=False))
    assert story.verdict.startswith("As printed the network returns 106x106x16")
    assert story.sections[0].title == "The shape, before any training"


def test_gallery_tells_what_was_reproduced_and_goes_on(tmp_path, monkeypatch):
    asked = []

    def run(*, case, report_dir, **choices):
        asked.append(choices)
        made = made_up(case, **choices)
        reproduce_case.write_story(tell(made), made, report_dir, "typed", 0.0)

    monkeypatch.setattr(reproduce_case, "run", run)
    monkeypatch.setattr(gallery, "RUNS", {"resnet_digits": [{"fault": "unscaled"}, {}]})
    for _ in range(2):
        path = gallery.run(directory=str(tmp_path / "runs"), docs=str(tmp_path / "docs"), case_ids=["resnet_digits"])
    assert asked == [{"fault": "unscaled"}, {}]
    assert "| unscaled | a-cause |" in path.read_text()
    assert (tmp_path / "docs" / "cases" / "resnet_digits-curves.png").exists()
