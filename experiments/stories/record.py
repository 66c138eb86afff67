"""What all stories share: a case as it was reproduced, and the sections that every page has."""

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cnnprobe.doctor.looks.collapse import SETTLED
from cnnprobe.probes.collapse import BatchCollapse, batch_collapse
from cnnprobe.reporting.formats import capitalised, gain_text, percent_text
from cnnprobe.reporting.page import Grid, Picture, Section
from cnnprobe.reporting.story_plots import Answers, histories_figure
from cnnprobe.training.fit import fit
from cnnprobe.training.journal import READINGS_FILE, read_log
from cnnprobe.training.predict import label_classes, predict_classes
from cnnprobe.training.step import Observation, Probe
from cnnprobe.types import Diagnosis, Finding, History, Problem

AS_IT_IS, MENDED = "as it is", "mended"


class Recording(NamedTuple):
    """One training run with the answer to every image."""

    history: History
    answers: Answers


class Reproduction(NamedTuple):
    """A case as it was reproduced."""

    case: str
    choices: Mapping[str, Any]  # that the case was built with
    problem: Problem
    before: Recording
    diagnosis: Diagnosis
    mended: Problem | None  # None: nothing was to be mended
    how: str  # it was mended, in words
    after: Recording | None


class Story(NamedTuple):
    """What a case's page says."""

    title: str
    question: str
    verdict: str
    sections: tuple[Section, ...]
    numbers: Mapping[str, Any]  # that the verdict rests on, by name


def record(problem: Problem, *, progress: bool = False) -> Recording:
    """Trains a problem as its owner runs it, and keeps what every image of every batch was taken for."""
    with tempfile.TemporaryDirectory() as folder:
        history = fit(problem, directory=folder, progress=progress, probes={"answers": _answers_probe(problem)})
        steps = [line for line in read_log(Path(folder) / READINGS_FILE) if line["kind"] == "step"]
    rows = [step["probes"]["answers"] for step in steps]
    smallest = min(len(row["labels"]) for row in rows)
    return Recording(
        history, Answers(*(np.array([row[name][:smallest] for row in rows]) for name in ("predicted", "labels")))
    )


def _answers_probe(problem: Problem) -> Probe:
    """The predicted class and the label of every image of a batch, by the user's own metric."""

    def probe(seen: Observation) -> dict[str, jax.Array | None]:
        """Both of one step."""
        predicted = predict_classes(seen.outputs, len(seen.labels), predict=problem.predict)
        return {"predicted": predicted, "labels": label_classes(seen.labels)}

    return probe


def collapse_of(answers: Answers, num_classes: int) -> BatchCollapse:
    """How far the predictions of a run follow the batch, once they are the run's own."""
    start = int(SETTLED * len(answers.predicted))
    counts = (
        np.stack([np.bincount(row[(row >= 0) & (row < num_classes)], minlength=num_classes) for row in rows[start:]])
        for rows in answers
    )
    return batch_collapse(*counts)


def reached(history: History, part: str = "valid") -> float:
    """Accuracy after the last epoch, in [0, 1]."""
    return float(getattr(history, part)["accuracy"][-1])


def causes_of(diagnosis: Diagnosis, severity: str = "cause") -> list[Finding]:
    """The findings of one severity."""
    return [finding for finding in diagnosis.findings if finding.severity == severity]


def chance_of(problem: Problem) -> float:
    """Accuracy of a blind guess among classes that are alike in number."""
    assert problem.num_classes is not None
    return 1 / problem.num_classes


def outcome(made: Reproduction) -> str:
    """Validation accuracy before and after, in words."""
    before = f"{percent_text(reached(made.before.history))} of the validation images as it is"
    if made.after is None:
        return before
    return f"{before}, {percent_text(reached(made.after.history))} {made.how}"


def answer(made: Reproduction) -> str:
    """What the diagnosis names, and what mending it brings: the verdict of a case with an injected fault."""
    first = causes_of(made.diagnosis)
    warned = causes_of(made.diagnosis, "warning")
    if first:
        named = capitalised(first[0].title)
    elif warned:
        trial = warned[0].trial
        gained = "was not run" if trial is None else f"gained {gain_text(trial)}"
        named = f"{capitalised(warned[0].title)}, as a warning alone: the trial of its remedy {gained}"
    elif fault := made.choices.get("fault"):
        named = f"{capitalised(made.diagnosis.verdict)}, with the fault that was planted ({fault.replace('_', ' ')})"
    else:
        named = capitalised(made.diagnosis.verdict)
    return f"{named}: {outcome(made)}."


def run_section(made: Reproduction, *, marks: Mapping[str, int] | None = None) -> Section:
    """The curves, before and after."""
    histories = {AS_IT_IS: made.before.history}
    if made.after is not None:
        histories[MENDED] = made.after.history
    figure = histories_figure(histories, chance=chance_of(made.problem), marks=marks)
    caption = f"Accuracy by epoch. After the last one: {outcome(made)}."
    return Section("Before and after", pictures=(Picture(f"{made.case}-curves", figure, caption),))


def diagnosis_section(made: Reproduction) -> Section:
    """What the doctor says, finding by finding."""
    rows = tuple(
        (
            finding.title,
            finding.severity,
            percent_text(finding.confidence),
            finding.evidence.sentence,
            "not run" if finding.trial is None else gain_text(finding.trial),
        )
        for finding in made.diagnosis.findings
    )
    header = ("finding", "severity", "confidence", "measured", "gain of the remedy")
    advice = [f"To do: {finding.advice}" for finding in causes_of(made.diagnosis)[:1]]
    grid = Grid(header, rows) if rows else None
    return Section("Diagnosis", (f"{capitalised(made.diagnosis.verdict)}. {made.diagnosis.summary}", *advice), grid)


def fact_text(made: Reproduction, name: str, form: str = "{:.2f}") -> str:
    """A reading of the diagnosis as text; a dash where it was not taken."""
    value = made.diagnosis.facts.get(name, math.nan)
    if isinstance(value, str):
        return value
    return "-" if math.isnan(value) else form.format(value)


def shared_numbers(made: Reproduction) -> dict[str, Any]:
    """What every case reports in figures."""
    return {
        "verdict": made.diagnosis.verdict,
        "causes": [finding.cause for finding in causes_of(made.diagnosis)],
        "warnings": [finding.cause for finding in causes_of(made.diagnosis, "warning")],
        "training accuracy before": reached(made.before.history, "train"),
        "validation accuracy before": reached(made.before.history),
        "validation accuracy after": None if made.after is None else reached(made.after.history),
        "mended": made.how,
    }
