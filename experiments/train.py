"""Trains a CNN with probes on: readings of every step, checkpoints, and exact resume after an interruption.

python -m experiments.train --dataset=textures --directory=runs/textures --num_epochs=10
"""

from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments import cli, problem_flags

_DIRECTORY = flags.DEFINE_string("directory", None, "Where readings and checkpoints go; nothing is kept if unset.")
_RESUME = flags.DEFINE_bool("resume", True, "Go on from the newest checkpoint in --directory.")


def run(*, directory: str | None = None, resume: bool = True, progress: bool = False, **choices: Any) -> dict[str, Any]:
    """Trains the chosen problem.

    Args:
      directory: where readings and checkpoints go; None: nowhere.
      resume: whether to go on from the newest checkpoint in `directory`.
      progress: whether to show a progress bar.
      **choices: what `problems.build_problem` takes.

    Returns:
      `history`: the parameters and the losses and accuracies of every epoch.
    """
    from cnnprobe.training.fit import fit
    from experiments.problems import build_problem

    with cli.bad_input():
        problem, _ = build_problem(**choices)
        return {"history": fit(problem, directory=directory, resume=resume, progress=progress)}


def main(argv: Sequence[str]) -> None:
    """Runs with the parsed flags and prints the last epoch."""
    del argv
    choices = problem_flags.chosen()
    history = run(directory=_DIRECTORY.value, resume=_RESUME.value, progress=True, **choices)["history"]
    for split, values in (("training", history.train), ("validation", history.valid)):
        last = ", ".join(f"{name} {series[-1]:.3f}" for name, series in values.items() if len(series))
        print(f"{split}: {last or 'not measured'}")
    print(f"steps: {history.num_steps}")


if __name__ == "__main__":
    flags.adopt_module_key_flags(problem_flags)
    cli.launch(main)
