"""Finds a learning rate: trains with a step that grows from batch to batch, and shows where the loss falls fastest.

python -m experiments.learning_rate_range --dataset=fashion_mnist --optimizer=adam --report_dir=rates
python -m experiments.learning_rate_range --problem=my_module:my_problem
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import cli, output_flags, problem_flags, report_flags

if TYPE_CHECKING:
    from cnnprobe.training.rates import LearningRateRange

_LOWEST_RATE = flags.DEFINE_float("lowest_rate", 1e-4, "First multiple of the optimizer's own step.", lower_bound=0.0)
_HIGHEST_RATE = flags.DEFINE_float("highest_rate", 1e4, "Last multiple of the optimizer's own step.", lower_bound=0.0)
_SWEEP_STEPS = flags.DEFINE_integer("sweep_steps", 200, "Batches of the whole sweep.", lower_bound=1)


def run(
    *,
    lowest_rate: float = 1e-4,
    highest_rate: float = 1e4,
    sweep_steps: int = 200,
    report_dir: str | None = None,
    progress: bool = False,
    **choices: Any,
) -> dict[str, Any]:
    """Builds the chosen problem and sweeps its step size.

    Args:
      lowest_rate: first multiple of the optimizer's own step.
      highest_rate: last one.
      sweep_steps: batches.
      report_dir: where to write the picture and the numbers; None: nowhere.
      progress: whether to show a progress bar.
      **choices: what `problems.build_problem` takes.

    Returns:
      `found`, and `picture`: the path of the picture or None.

    Raises:
      cli.BadInputError: a choice is malformed, or the folder cannot be written.
    """
    from cnnprobe.training.rates import learning_rate_range
    from experiments.problems import build_problem

    with cli.bad_input():
        problem, _ = build_problem(**choices)
        found: LearningRateRange = learning_rate_range(
            problem, lowest=lowest_rate, highest=highest_rate, num_steps=sweep_steps, progress=progress
        )
        if report_dir is None:
            return {"found": found, "picture": None}
        from cnnprobe.reporting.rate_plots import write_learning_rate_range

        return {"found": found, "picture": write_learning_rate_range(found, report_dir)}


def _print(result: dict[str, Any], learning_rate: float | None) -> None:
    """The conclusion, with the learning rate itself where it is known; or all of it as JSON."""
    found: LearningRateRange = result["found"]
    if output_flags.JSON.value:
        from cnnprobe.reporting.jsonfile import to_json

        print(json.dumps(to_json(found), allow_nan=False))
        return
    print(found.conclusion)
    if learning_rate is not None and found.suggestion == found.suggestion:  # which NaN is not
        print(f"learning rate: {learning_rate * found.suggestion:.2g} to {learning_rate * found.upper:.2g}")
    if result["picture"] is not None and not output_flags.QUIET.value:
        print(f"Picture: {result['picture']}")


def main(argv: Sequence[str]) -> None:
    """Runs with the parsed flags and prints the conclusion."""
    del argv
    cli.announce(report_flags.REPORT_DIR.value)
    choices = problem_flags.chosen()
    result = run(
        lowest_rate=_LOWEST_RATE.value,
        highest_rate=_HIGHEST_RATE.value,
        sweep_steps=_SWEEP_STEPS.value,
        report_dir=report_flags.REPORT_DIR.value,
        progress=not output_flags.is_silent(),
        **choices,
    )
    _print(result, choices["learning_rate"] if choices["problem"] is None else None)


if __name__ == "__main__":
    flags.adopt_module_key_flags(problem_flags)
    flags.adopt_module_key_flags(output_flags)
    flags.declare_key_flag("report_dir")
    cli.launch(main)
