"""Trains a CNN with probes on: readings of every step, checkpoints, and exact resume after an interruption.

python -m experiments.train --dataset=textures --directory=runs/textures --num_epochs=10

`--num_devices` spreads every batch over devices, and `--num_processes` over processes of this machine; what is learnt
and read is the same. On several machines, start one process on each with `--coordinator` and `--process_id`.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments import cli, devices, problem_flags

_DIRECTORY = flags.DEFINE_string("directory", None, "Where readings and checkpoints go; nothing is kept if unset.")
_RESUME = flags.DEFINE_bool("resume", True, "Go on from the newest checkpoint in --directory.")
_PATIENCE = flags.DEFINE_integer(
    "patience", None, "Epochs without a lower validation loss after which training ends.", lower_bound=1
)
_NUM_DEVICES = flags.DEFINE_integer("num_devices", None, "Devices of each process that share a batch.", lower_bound=1)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 1, "Processes that share a batch.", lower_bound=1)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of the first process; this machine's if unset.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which process this is; unset: start all here.", lower_bound=0)


def run(
    *,
    directory: str | None = None,
    resume: bool = True,
    progress: bool = False,
    patience: int | None = None,
    num_devices: int | None = None,
    **choices: Any,
) -> dict[str, Any]:
    """Trains the chosen problem.

    Args:
      directory: where readings and checkpoints go; None: nowhere.
      resume: whether to go on from the newest checkpoint in `directory`.
      progress: whether to show a progress bar.
      patience: epochs without a lower validation loss after which training ends; None: it goes to the end.
      num_devices: of each process; None: the first one where there is one process, else one of each.
      **choices: what `problems.build_problem` takes.

    Returns:
      `history`: the parameters and the losses and accuracies of every epoch.
    """
    import jax

    from cnnprobe.training.fit import fit
    from experiments.problems import build_problem

    is_alone = num_devices is None and jax.process_count() == 1
    with cli.bad_input():
        problem, _ = build_problem(**choices)
        shared = None if is_alone else devices.first_devices(num_devices or 1)
        history = fit(problem, directory=directory, resume=resume, progress=progress, patience=patience, devices=shared)
        return {"history": history}


def main(argv: Sequence[str]) -> int | None:
    """Runs with the parsed flags and prints the last epoch."""
    del argv
    if _NUM_PROCESSES.value > 1 and _PROCESS_ID.value is None:
        return devices.start_processes("experiments.train", _NUM_PROCESSES.value)
    devices.choose_devices(None, _NUM_DEVICES.value or 1)
    if _NUM_PROCESSES.value > 1:
        with cli.bad_input():
            devices.join_processes(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    choices = problem_flags.chosen() | {"num_devices": _NUM_DEVICES.value, "patience": _PATIENCE.value}
    result = run(directory=_DIRECTORY.value, resume=_RESUME.value, progress=not _PROCESS_ID.value, **choices)
    history = result["history"]
    for split, values in (("training", history.train), ("validation", history.valid)):
        last = ", ".join(f"{name} {series[-1]:.3f}" for name, series in values.items() if len(series))
        print(f"{split}: {last or 'not measured'}")
    print(f"steps: {history.num_steps}")
    return None


if __name__ == "__main__":
    flags.adopt_module_key_flags(problem_flags)
    cli.launch(main)
