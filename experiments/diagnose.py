"""Says why a CNN does not learn, and what will fix it.

A built-in case:      python -m experiments.diagnose --dataset=fashion_mnist --fault=softmax_twice
Your own images:      python -m experiments.diagnose --images=photos/
Your own training:    python -m experiments.diagnose --problem=my_module:my_problem

Exit code 0: no fault was found. 1: a fault was found. 2: bad input. 3: the program broke, yours or ours.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import cli, device_flags, devices, output_flags, problem_flags, report_flags

if TYPE_CHECKING:
    from pathlib import Path

    from cnnprobe.doctor.trial import Tell
    from cnnprobe.types import Diagnosis


def run(
    *,
    budget_seconds: float = 60.0,
    report_dir: str | None = None,
    num_devices: int | None = None,
    tell: "Tell | None" = None,
    **choices: Any,
) -> dict[str, Any]:
    """Builds the chosen problem and diagnoses it.

    Args:
      budget_seconds: wall time of the diagnosis.
      report_dir: where to write the report; None: nowhere.
      num_devices: that share the batches of each training run; None: the first one.
      tell: hears what is being done and found.
      **choices: what `problems.build_problem` takes.

    Returns:
      `diagnosis`, and `report`: the path of the page or None.

    Raises:
      cli.BadInputError: a choice is malformed, or the report cannot be written.
    """
    from cnnprobe.doctor.diagnose import diagnose
    from cnnprobe.doctor.trial import say_nothing
    from cnnprobe.training.validate import check_problem
    from experiments.problems import build_problem

    with cli.bad_input():
        problem, class_names = build_problem(**choices)
        check_problem(problem)
        shared = None if num_devices is None else devices.first_devices(num_devices)
    diagnosis = diagnose(problem, budget_seconds=budget_seconds, devices=shared, tell=tell or say_nothing)
    if len(class_names) == len(diagnosis.class_names):
        diagnosis = diagnosis._replace(class_names=class_names)
    return {"diagnosis": diagnosis, "report": _report(diagnosis, report_dir)}


def _report(diagnosis: "Diagnosis", directory: str | None) -> "Path | None":
    """Writes the report, if it is asked for, and gives the path of its page."""
    from cnnprobe.reporting.report import write_report

    with cli.bad_input():
        return None if directory is None else write_report(diagnosis, directory)


def _print(result: dict[str, Any]) -> None:
    """The diagnosis: in full, in one line, or as JSON."""
    diagnosis: Diagnosis = result["diagnosis"]
    if output_flags.JSON.value:
        from cnnprobe.reporting.jsonfile import diagnosis_to_dict

        print(json.dumps(diagnosis_to_dict(diagnosis), allow_nan=False))
        return
    if output_flags.QUIET.value:
        print(f"{diagnosis.verdict}: {diagnosis.summary}")
        return
    from cnnprobe.reporting.console import print_diagnosis

    print_diagnosis(diagnosis)
    if result["report"] is not None:
        print(f"Report: {result['report']}")


def main(argv: Sequence[str]) -> int:
    """Runs with the parsed flags, prints, and returns the exit code."""
    del argv
    budget_seconds = report_flags.BUDGET_SECONDS.value
    report_dir, num_devices = report_flags.REPORT_DIR.value, device_flags.NUM_DEVICES.value
    devices.choose_devices(None, num_devices or 1)
    cli.announce(report_dir)
    choices = problem_flags.chosen() | {"report_dir": report_dir, "num_devices": num_devices}
    waiting = cli.waiting(f"diagnosing, at most {budget_seconds:.0f} s", shown=not output_flags.is_silent())
    with waiting as tell, output_flags.result_only():
        result = run(budget_seconds=budget_seconds, tell=tell, **choices)
    _print(result)
    return cli.FAULTY if result["diagnosis"].verdict == "faulty" else cli.HEALTHY


if __name__ == "__main__":
    flags.adopt_module_key_flags(problem_flags)
    flags.adopt_module_key_flags(report_flags)
    flags.adopt_module_key_flags(device_flags)
    flags.adopt_module_key_flags(output_flags)
    cli.launch(main)
