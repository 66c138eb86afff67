"""Reproduces all five reference cases, fault by fault, and writes the gallery: a page for each run, one text for all.

python -m experiments.gallery --pages_dir=report/cases --docs=docs

Goes on where it was stopped: a run whose page is in the directory is not run again.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli, reproduce_case

Choices = Mapping[str, Any]

RUNS: Mapping[str, Sequence[Choices]] = {  # the first of each case is the one whose story is told
    "blood_cells": [
        {"fault": "sorted_batches"},
        {"fault": "linear_dense"},
        {"fault": "dropped_for_kept"},
        {"fault": "softmax_twice"},
        {"fault": "no_softmax"},
        {"fault": "metric_of_scores"},
        {"fault": "raw_pixels"},
        {"fault": "mispaired"},
        {},
    ],
    "stuck_at_a_third": [{}, {"summary": "B"}],
    "checklist": [{"fault": "softmax_twice"}, {}],
    "resnet_digits": [
        {"fault": "late_statistics"},
        {"fault": "unscaled"},
        {"fault": "impatient"},
        {"fault": "long_steps"},
        {},
    ],
    "sixteen_classes": [{}, {"flat": False}],
}
INTRODUCTION = """# Five cases

Five questions that people asked about CNNs that would not learn, each reproduced, diagnosed, mended and run again.
Every sentence with a figure, every table and every picture on this page was written by `make cases`; the commands below
make one page each, with the diagnosis in full beside it. The sizes are those of the default preset, for two processor
cores; `--preset=full` takes the sizes of the reports. Images are those that come with the package: clothes of
Fashion-MNIST, three textures, and rendered blood cells. `--images=ROOT` takes a folder of your own in their place, and
`--dataset=NAME` a data set that tensorflow-datasets has prepared.
"""
HEADER = ("run", "named", "warnings", "collapse index", "mechanism", "validation accuracy", "mended", "seconds")

_DIRECTORY = flags.DEFINE_string("pages_dir", "report/cases", "Where the pages go, a folder for each run.")
_DOCS = flags.DEFINE_string("docs", None, "Where cases.md and the folder cases/ of its pictures go; unset: nowhere.")
_CASES = flags.DEFINE_multi_enum("case_id", sorted(RUNS), sorted(RUNS), "Which cases; may be given several times.")


def slug(choices: Choices) -> str:
    """The name of a run's folder.

    >>> slug({}), slug({"fault": "raw_pixels"}), slug({"flat": False})
    ('as_reported', 'raw_pixels', 'flat-False')
    """
    words = [str(value) if name == "fault" else f"{name}-{value}" for name, value in choices.items()]
    return "-".join(words) or "as_reported"


def run(*, directory: str, docs: str | None = None, case_ids: Sequence[str] = tuple(RUNS)) -> Path:
    """Reproduces what is missing and writes `cases.md`; gives its path.

    Raises:
      cli.BadInputError: a folder cannot be written.
    """
    for case in case_ids:
        for choices in RUNS[case]:
            folder = Path(directory) / case / slug(choices)
            if not _is_made(folder):
                print(f"\n=== {case}: {slug(choices)}", flush=True)
                reproduce_case.run(case=case, report_dir=str(folder), **choices)
    with cli.bad_input():
        return write_gallery(Path(directory), Path(docs or directory))


def write_gallery(directory: Path, target: Path) -> Path:
    """Puts the stories of all cases that were reproduced together, with their pictures in `target/cases`.

    Raises:
      OSError: a folder cannot be written.
    """
    from cnnprobe.reporting.jsonfile import write_atomically

    found = [case for case in RUNS if (directory / case / slug(RUNS[case][0]) / "case.md").exists()]
    pictures = target / "cases"
    pictures.mkdir(parents=True, exist_ok=True)
    for case in found:
        for picture in (directory / case / slug(RUNS[case][0])).glob("*.png"):
            shutil.copy(picture, pictures / picture.name)
    blocks = [INTRODUCTION, *(block for case in found for block in _chapter(directory, case))]
    return write_atomically(target / "cases.md", "\n".join(blocks))


def _chapter(directory: Path, case: str) -> Iterator[str]:
    """One case: its story, then all its runs."""
    from cnnprobe.reporting.page import Grid, grid_markdown

    folders = {slug(choices): directory / case / slug(choices) for choices in RUNS[case]}
    made = {
        name: json.loads((folder / "case.json").read_text()) for name, folder in folders.items() if _is_made(folder)
    }
    yield (next(iter(folders.values())) / "case.md").read_text()
    yield f"### All runs of this case\n\n{grid_markdown(Grid(HEADER, tuple(_row(*each) for each in made.items())))}\n"


def _is_made(folder: Path) -> bool:
    """Whether a run was told to its end."""
    return (folder / "case.json").exists()


def _row(name: str, content: Mapping[str, Any]) -> tuple[str, ...]:
    """One run in a line."""
    numbers = content["numbers"]
    index, after = numbers.get("collapse index"), numbers["validation accuracy after"]
    return (
        name,
        ", ".join(numbers["causes"]) or numbers["verdict"],
        ", ".join(numbers["warnings"]) or "-",
        "-" if index is None else f"{index:.2f}",
        numbers.get("collapse mechanism", "-"),
        f"{numbers['validation accuracy before']:.0%}",
        "-" if after is None else f"{after:.0%}",
        f"{content['seconds']:.0f}",
    )


def main(argv: Sequence[str]) -> None:
    """Runs with the parsed flags and says where the gallery is."""
    del argv
    cli.announce(_DIRECTORY.value)
    print(f"Gallery: {run(directory=_DIRECTORY.value, docs=_DOCS.value, case_ids=_CASES.value)}")


if __name__ == "__main__":
    cli.launch(main)
