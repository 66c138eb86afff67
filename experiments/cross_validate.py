"""Trains on all folds of the training images but one, in turn: accuracy on what was held out, its mean and spread.

python -m experiments.cross_validate --dataset=fashion_mnist --num_images=1000 --num_folds=5 --num_epochs=3
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import cli, output_flags, problem_flags

if TYPE_CHECKING:
    from cnnprobe.training.folds import Scores

_NUM_FOLDS = flags.DEFINE_integer("num_folds", 5, "Parts of the training images, each held out once.", lower_bound=2)


def run(*, num_folds: int = 5, **choices: Any) -> dict[str, Any]:
    """Builds the chosen problem and trains it once for each fold.

    Args:
      num_folds: parts of the training images.
      **choices: what `problems.build_problem` takes.

    Returns:
      `scores`: accuracy of each run, and `num_steps`: updates that each made.

    Raises:
      cli.BadInputError: a choice is malformed.
    """
    from cnnprobe.data.sampling import num_examples
    from cnnprobe.training.folds import fold_splits, train_folds
    from experiments.problems import build_problem

    with cli.bad_input():
        problem, _ = build_problem(**choices)
        splits = fold_splits(num_examples(problem.train), num_folds=num_folds, seed=problem.seed)
        num_steps = problem.num_epochs * max(splits.train.shape[1] // problem.batch_size, 1)
        return {"scores": train_folds(problem, splits, num_steps=num_steps), "num_steps": num_steps}


def _print(result: dict[str, Any]) -> None:
    """A line for each fold and one for all of them, that one alone, or JSON."""
    scores: Scores = result["scores"]
    mean, spread = float(scores.valid.mean()), float(scores.valid.std(ddof=1))
    if output_flags.JSON.value:
        print(json.dumps({"accuracies": scores.valid.tolist(), "mean": mean, "spread": spread}))
        return
    if not output_flags.QUIET.value:
        for fold, (train, valid) in enumerate(zip(*scores, strict=True)):
            print(f"fold {fold + 1}: {100 * valid:.1f} % of the held-out images, {100 * train:.1f} % of its own")
    print(f"{100 * mean:.1f} ± {100 * spread:.1f} % (mean and standard deviation over {len(scores.valid)} folds)")


def main(argv: Sequence[str]) -> None:
    """Runs with the parsed flags and prints the accuracies."""
    del argv
    cli.announce(None)
    with cli.waiting(f"training {_NUM_FOLDS.value} runs", shown=not output_flags.is_silent()):
        result = run(num_folds=_NUM_FOLDS.value, **problem_flags.chosen())
    _print(result)


if __name__ == "__main__":
    flags.adopt_module_key_flags(problem_flags)
    flags.adopt_module_key_flags(output_flags)
    cli.launch(main)
