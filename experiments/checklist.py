"""Goes through an engineer's checklist on your training problem: what each usual change would do, measured.

python -m experiments.checklist --dataset=fashion_mnist --num_images=1000 --report_dir=checklist
python -m experiments.checklist --problem=my_module:my_problem
"""

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import cli, output_flags, problem_flags, report_flags

if TYPE_CHECKING:
    from cnnprobe.doctor.checklist import Line


def run(*, budget_seconds: float = 180.0, report_dir: str | None = None, **choices: Any) -> dict[str, Any]:
    """Builds the chosen problem and tests every line on it.

    Returns:
      `lines`, and `picture`: the path of the bar chart or None.

    Raises:
      cli.BadInputError: a choice is malformed, or the folder cannot be written.
    """
    from cnnprobe.doctor.checklist import checklist
    from cnnprobe.training.validate import check_problem
    from experiments.problems import build_problem

    with cli.bad_input():
        problem, _ = build_problem(**choices)
        check_problem(problem)
    lines: tuple[Line, ...] = checklist(problem, budget_seconds=budget_seconds)
    picture = None
    if report_dir is not None:
        from cnnprobe.reporting.effects import write_checklist

        with cli.bad_input():
            picture = write_checklist(lines, report_dir)
    return {"lines": lines, "picture": picture}


def _print(result: dict[str, Any]) -> None:
    """The table: in full, its largest effect in one line, or as JSON."""
    lines: tuple[Line, ...] = result["lines"]
    if output_flags.JSON.value:
        from cnnprobe.reporting.jsonfile import to_json

        rows = [{**line._asdict(), "effect": line.effect} for line in lines]
        print(json.dumps(to_json(rows), allow_nan=False))
    elif output_flags.QUIET.value:
        best = max(lines, key=lambda line: -math.inf if math.isnan(line.effect) else line.effect)
        print(f"{best.question} {best.answer}")
    else:
        from cnnprobe.reporting.effects import print_checklist

        print_checklist(lines)
        if result["picture"] is not None:
            print(f"Picture: {result['picture']}")


def main(argv: Sequence[str]) -> None:
    """Runs with the parsed flags and prints the table."""
    del argv
    budget_seconds = report_flags.BUDGET_SECONDS.value
    cli.announce(report_flags.REPORT_DIR.value)
    waiting = cli.waiting(f"testing every line, at most {budget_seconds:.0f} s", shown=not output_flags.is_silent())
    with waiting, output_flags.result_only():
        result = run(budget_seconds=budget_seconds, report_dir=report_flags.REPORT_DIR.value, **problem_flags.chosen())
    _print(result)


if __name__ == "__main__":
    flags.adopt_module_key_flags(problem_flags)
    flags.adopt_module_key_flags(report_flags)
    flags.adopt_module_key_flags(output_flags)
    flags.set_default(report_flags.BUDGET_SECONDS, 180.0)
    cli.launch(main)
