"""Reproduces one of the five reference cases: the symptom, the diagnosis, the remedy, and the repaired run.

python -m experiments.reproduce_case --case=blood_cells --fault=sorted_batches --report_dir=report
python -m experiments.reproduce_case --case=resnet_digits --fault=unscaled --preset=full
python -m experiments.reproduce_case --case=stuck_at_a_third --images=photos/ --image_size=128
python -m experiments.reproduce_case --case=resnet_digits --dataset=mnist

With --report_dir the case's page, its pictures and the diagnosis are written there.
"""

import importlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import cli, problem_flags, report_flags

if TYPE_CHECKING:
    from cnnprobe.data.bundled import ImageSet
    from cnnprobe.types import Diagnosis, History, Problem
    from experiments.stories.record import Reproduction, Story

FULL: dict[str, dict[str, int]] = {  # the sizes of the reports, as far as the images that come along reach
    "blood_cells": {"image_size": 80, "width": 64, "num_images": 9957},
    "checklist": {"width": 32, "num_images": 3000},
    "resnet_digits": {"image_size": 50, "width": 32, "num_images": 3000},
    "sixteen_classes": {"image_size": 224, "width": 16, "num_images": 563},
    "stuck_at_a_third": {"image_size": 256, "width": 32, "num_images": 13000},
}
SHARED = ("fault", "image_size", "num_images", "seed", "dataset", "images")  # flags that other scripts have too
BUDGET_SECONDS = {"resnet_digits": 150.0}  # of a diagnosis: deep networks take longest to compile
OTHERS_SECONDS = 80.0
LARGEST_READ = 256  # pixels of a side that images of a folder or a data set are read with
BY_HAND = "where the advice is followed by hand"

_CASE = flags.DEFINE_enum("case", "blood_cells", sorted(FULL), "Which case.")
_PRESET = flags.DEFINE_enum("preset", "small", ("small", "full"), "For two processor cores, or as reported.")
_WIDTH = flags.DEFINE_integer("width", None, "Channels of the case's network.", lower_bound=1)
_SUMMARY = flags.DEFINE_enum("summary", None, ("A", "B"), "Which network of stuck_at_a_third.")
_FLAT = flags.DEFINE_bool("flat", None, "Whether sixteen_classes flattens its last map.")


def chosen_images(
    dataset: str | None, images: str | None, *, num_images: int | None, seed: int, image_size: int | None
) -> "ImageSet | None":
    """The images that are to take the place of the case's own; None: those stay.

    Raises:
      ValueError: there is no such data set or folder; the message says what there is, or how to prepare it.
    """
    from cnnprobe.data.bundled import ImageSet
    from experiments.images import folder_images, named_images

    size = image_size or LARGEST_READ
    if images is not None:
        train, valid, class_names = folder_images(images, size=size, seed=seed)
    elif dataset is not None:
        train, valid, class_names = named_images(dataset, num_images=num_images, size=size, seed=seed)
    else:
        return None
    assert valid is not None  # both split some off where there is none
    return ImageSet(train, valid, class_names)


def build_case(case: str, *, preset: str = "small", **choices: Any) -> "Problem":
    """The case's problem; choices of None are left to the preset.

    Raises:
      ValueError: the case takes no such choice, or its value is out of range; the message names it.
    """
    import inspect

    from cnnprobe import cases

    build = getattr(cases, case)
    given = {name: value for name, value in choices.items() if value is not None}
    known = inspect.signature(build).parameters
    if unknown := sorted(given.keys() - known.keys()):
        raise ValueError(f"choices of {case} must be among {', '.join(known)}, got {', '.join(unknown)}.")
    return build(**((FULL[case] if preset == "full" else {}) | given))


def mend(
    case: str, problem: "Problem", diagnosis: "Diagnosis", choices: Mapping[str, Any]
) -> "tuple[Problem | None, str]":
    """The case with the first remedy, else without its planted fault; and how it was mended, in words."""
    causes = [finding for finding in diagnosis.findings if finding.severity == "cause"]
    for finding in causes:
        if finding.remedy is not None:
            return finding.remedy(problem), f"with the remedy of {finding.cause}"
    if choices.get("fault") is None:
        return None, ""
    return build_case(case, **{**choices, "fault": None}), BY_HAND


def reproduce(case: str, *, budget_seconds: float, progress: bool, **choices: Any) -> "Reproduction":
    """Trains the case as it is, diagnoses it, and trains it again, mended.

    Raises:
      cli.BadInputError: a choice is malformed.
    """
    from cnnprobe.doctor.diagnose import diagnose
    from cnnprobe.reporting.console import print_diagnosis
    from experiments.stories.record import Reproduction, record

    with cli.bad_input():
        problem = build_case(case, **choices)
    before = record(problem, progress=progress)
    print(f"as it is: {_scores(before.history)}", flush=True)
    diagnosis = diagnose(problem, budget_seconds=budget_seconds)
    print_diagnosis(diagnosis)
    mended, how = mend(case, problem, diagnosis, choices)
    after = None if mended is None else record(mended, progress=progress)
    if after is not None:
        print(f"{how}: {_scores(after.history)}", flush=True)
    built_with = {name: value for name, value in choices.items() if value is not None and name != "preset"}
    sizes = FULL[case] if choices.get("preset") == "full" else {}
    return Reproduction(case, sizes | built_with, problem, before, diagnosis, mended, how, after)


def _scores(history: "History") -> str:
    """What the last epoch reached."""
    train, valid = history.train["accuracy"][-1], history.valid["accuracy"][-1]
    return f"{train:.0%} of the training and {valid:.0%} of the validation images after {history.num_steps} steps"


def command(case: str, choices: Mapping[str, Any]) -> str:
    """What to type for the same run.

    >>> command("sixteen_classes", {"flat": False, "seed": 1, "width": None})
    'python -m experiments.reproduce_case --case=sixteen_classes --noflat --seed=1 --report_dir=report'
    """
    words = [f"--case={case}"]
    for name, value in choices.items():
        if (name, value) == ("preset", "small"):
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no{name}")
        elif value is not None:
            words.append(f"--{name}={value}")
    return " ".join(["python -m experiments.reproduce_case", *words, "--report_dir=report"])


def write_story(story: "Story", made: "Reproduction", directory: str, typed: str, started: float) -> Path:
    """Writes `case.html`, its pictures, the text of the gallery and the figures as `case.json`; gives the page's path.

    Raises:
      OSError: the folder cannot be written.
      ImportError: a page needs the extra `report`.
    """
    from cnnprobe.reporting.jsonfile import to_json, write_atomically
    from cnnprobe.reporting.page import Page, render_markdown, write_page
    from cnnprobe.reporting.report import write_report

    write_report(made.diagnosis, directory)
    page = Page(story.title, story.question, story.verdict, made.diagnosis.verdict, story.sections, typed)
    path = write_page(page, directory)
    write_atomically(Path(directory) / "case.md", render_markdown(page, folder="cases"))
    content = {"case": made.case, "verdict": story.verdict, "command": typed, "seconds": time.monotonic() - started}
    text = json.dumps(to_json(content | {"numbers": story.numbers}), indent=1, allow_nan=False)
    write_atomically(Path(directory) / "case.json", text + "\n")
    return path


def run(
    *,
    case: str,
    budget_seconds: float | None = None,
    report_dir: str | None = None,
    progress: bool = False,
    dataset: str | None = None,
    images: str | None = None,
    **choices: Any,
) -> dict[str, Any]:
    """Reproduces a case and, where there is a folder for it, tells its story.

    Returns:
      `made`: what was reproduced; `story` and `page`: None without `report_dir`.

    Raises:
      cli.BadInputError: a choice is malformed, or the report cannot be written.
    """
    started = time.monotonic()
    typed = command(case, {**choices, "dataset": dataset, "images": images})
    sizes = {name: choices.get(name) for name in ("num_images", "image_size")}
    with cli.bad_input():
        data = chosen_images(dataset, images, seed=choices.get("seed") or 0, **sizes)
    budget = budget_seconds or BUDGET_SECONDS.get(case, OTHERS_SECONDS)
    made = reproduce(case, budget_seconds=budget, progress=progress, data=data, **choices)
    if report_dir is None:
        return {"made": made, "story": None, "page": None}
    story = importlib.import_module(f"experiments.stories.{case}").tell(made)
    print(f"\n{story.verdict}")
    with cli.bad_input():
        page = write_story(story, made, report_dir, typed, started)
    return {"made": made, "story": story, "page": page}


def main(argv: Sequence[str]) -> None:
    """Runs with the parsed flags and says where the page is."""
    del argv
    cli.announce(report_flags.REPORT_DIR.value)
    own: dict[str, Any] = {
        "preset": _PRESET.value,
        "width": _WIDTH.value,
        "summary": _SUMMARY.value,
        "flat": _FLAT.value,
    }
    result = run(
        case=_CASE.value,
        budget_seconds=problem_flags.given(["budget_seconds"]).get("budget_seconds"),
        report_dir=report_flags.REPORT_DIR.value,
        progress=True,
        **problem_flags.given(SHARED),
        **own,
    )
    if result["page"] is not None:
        print(f"Page: {result['page']}")


if __name__ == "__main__":
    for shared_flag in SHARED:
        flags.declare_key_flag(shared_flag)
    flags.adopt_module_key_flags(report_flags)
    cli.launch(main)
