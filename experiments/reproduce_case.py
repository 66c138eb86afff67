"""Reproduces one of the five reference cases: the symptom, the diagnosis, the remedy, and the repaired run.

python -m experiments.reproduce_case --case=blood_cells --fault=sorted_batches --report_dir=report
python -m experiments.reproduce_case --case=resnet_digits --fault=unscaled --preset=full
"""

from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments import cli, problem_flags, report_flags

FULL: dict[str, dict[str, int]] = {  # the sizes of the reports, as far as the images that come along reach
    "blood_cells": {"image_size": 80, "width": 64, "num_images": 9957},
    "checklist": {"width": 32, "num_images": 3000},
    "resnet_digits": {"image_size": 50, "width": 32, "num_images": 3000},
    "sixteen_classes": {"image_size": 224, "width": 16, "num_images": 563},
    "stuck_at_a_third": {"image_size": 256, "width": 32, "num_images": 13000},
}
SHARED = ("fault", "image_size", "num_images", "seed")  # flags that other scripts have too

_CASE = flags.DEFINE_enum("case", "blood_cells", sorted(FULL), "Which case.")
_PRESET = flags.DEFINE_enum("preset", "small", ("small", "full"), "For two processor cores, or as reported.")
_WIDTH = flags.DEFINE_integer("width", None, "Channels of the case's network.", lower_bound=1)
_SUMMARY = flags.DEFINE_enum("summary", None, ("A", "B"), "Which network of stuck_at_a_third.")
_FLAT = flags.DEFINE_bool("flat", None, "Whether sixteen_classes pools its last map.")


def build_case(case: str, *, preset: str = "small", **choices: Any) -> Any:
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


def _scores(history: Any) -> str:
    """What the last epoch reached."""
    train, valid = history.train["accuracy"][-1], history.valid["accuracy"][-1]
    return f"{train:.0%} of the training and {valid:.0%} of the validation images after {history.num_steps} steps"


def run(
    *, case: str, budget_seconds: float = 60.0, report_dir: str | None = None, progress: bool = False, **choices: Any
) -> dict[str, Any]:
    """Trains the case as it is, diagnoses it, and trains it again with the first remedy.

    Returns:
      `before` and `after`: the two histories (None where no remedy was found), `diagnosis`, and `report`.

    Raises:
      cli.BadInputError: a choice is malformed, or the report cannot be written.
    """
    from cnnprobe.doctor.diagnose import diagnose
    from cnnprobe.reporting.console import print_diagnosis
    from cnnprobe.reporting.report import write_report
    from cnnprobe.training.fit import fit

    with cli.bad_input():
        problem = build_case(case, **choices)
    before = fit(problem, progress=progress)
    print(f"as it is: {_scores(before)}", flush=True)
    diagnosis = diagnose(problem, budget_seconds=budget_seconds)
    print_diagnosis(diagnosis)
    remedies = [found.remedy for found in diagnosis.findings if found.severity == "cause" and found.remedy is not None]
    after = fit(remedies[0](problem), progress=progress) if remedies else None
    if after is not None:
        print(f"with the first remedy: {_scores(after)}")
    with cli.bad_input():
        report = None if report_dir is None else write_report(diagnosis, report_dir)
    return {"before": before, "after": after, "diagnosis": diagnosis, "report": report}


def main(argv: Sequence[str]) -> None:
    """Runs with the parsed flags and says where the page is."""
    del argv
    own = {"width": _WIDTH.value, "summary": _SUMMARY.value, "flat": _FLAT.value}
    result = run(
        case=_CASE.value,
        preset=_PRESET.value,
        budget_seconds=report_flags.BUDGET_SECONDS.value,
        report_dir=report_flags.REPORT_DIR.value,
        progress=True,
        **problem_flags.given(SHARED),
        **own,
    )
    if result["report"] is not None:
        print(f"Report: {result['report']}")


if __name__ == "__main__":
    for shared_flag in SHARED:
        flags.declare_key_flag(shared_flag)
    flags.adopt_module_key_flags(report_flags)
    cli.launch(main)
