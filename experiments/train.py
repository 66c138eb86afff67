"""Trains a CNN with probes on: readings of every step, checkpoints, and exact resume after an interruption.

python -m experiments.train --dataset=textures --directory=runs/textures --num_epochs=10

`--num_devices` spreads every batch over devices, and `--num_processes` over processes of this machine; what is learnt
and read is the same. On several machines, start one process on each with `--coordinator` and `--process_id`.

`--log=csv,tensorboard` writes curves beside the readings, and `--config=FILE.py` gives values for flags.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import cli, config_flags, device_flags, devices, problem_flags

if TYPE_CHECKING:
    from cnnprobe.types import Writer

_DIRECTORY = flags.DEFINE_string("directory", None, "Where readings and checkpoints go; nothing is kept if unset.")
_RESUME = flags.DEFINE_bool("resume", True, "Go on from the newest checkpoint in --directory.")
_LOG = flags.DEFINE_list("log", [], "What else to write there: jsonl, csv, tensorboard, wandb, or several of them.")
_PATIENCE = flags.DEFINE_integer(
    "patience", None, "Epochs without a lower validation loss after which training ends.", lower_bound=1
)
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
    log: Sequence[str] = (),
    writers: "Sequence[Writer]" = (),
    **choices: Any,
) -> dict[str, Any]:
    """Trains the chosen problem.

    Args:
      directory: where readings and checkpoints go; None: nowhere.
      resume: whether to go on from the newest checkpoint in `directory`.
      progress: whether to show a progress bar.
      patience: epochs without a lower validation loss after which training ends; None: it goes to the end.
      num_devices: of each process; None: the first one where there is one process, else one of each.
      log: what else to write below `directory`: jsonl, csv, tensorboard, wandb.
      writers: of the caller's own.
      **choices: what `problems.build_problem` takes.

    Returns:
      `history`: the parameters and the losses and accuracies of every epoch.
    """
    import jax

    from cnnprobe.training.fit import fit
    from experiments.problems import build_problem

    is_alone = num_devices is None and jax.process_count() == 1
    with cli.bad_input():
        chosen = [*writers, *make_writers(log, directory)]
        problem, _ = build_problem(**choices)
        shared = None if is_alone else devices.first_devices(num_devices or 1)
        options: dict[str, Any] = {"patience": patience, "devices": shared, "writers": chosen}
        history = fit(problem, directory=directory, resume=resume, progress=progress, **options)
        return {"history": history}


def make_writers(log: Sequence[str], directory: str | None) -> "list[Writer]":
    """The chosen writers, each with its place below `directory`.

    Raises:
      ValueError: one is not known, or there is no directory to write to.
      ImportError: what one needs is not installed; the message says how to install it.
    """
    import cnnprobe as cp
    from cnnprobe.checks import check_one_of

    makers: dict[str, tuple[Callable[[Path], Writer], str]] = {
        "jsonl": (cp.jsonl_writer, "scalars.jsonl"),
        "csv": (cp.csv_writer, "scalars.csv"),
        "tensorboard": (cp.tensorboard_writer, "tensorboard"),
        "wandb": (cp.wandb_writer, ""),
    }
    for name in log:
        check_one_of("log", name, makers)
    if directory is None:
        if log:
            raise ValueError(f"directory must be given where log is, got log={','.join(log)} alone.")
        return []
    return [make(Path(directory) / place) for make, place in (makers[name] for name in log)]


def config_writer(directory: str) -> "Writer":
    """Stores what the script runs with when the training begins: by then the folder is known to be of this problem."""
    from cnnprobe.types import Writer

    def begin(_: int) -> None:
        """Writes `config.json`."""
        config_flags.write_config(directory)

    return Writer("config.json", begin, lambda *_: None, lambda: None)


def main(argv: Sequence[str]) -> int | None:
    """Runs with the parsed flags and prints the last epoch."""
    del argv
    if _PROCESS_ID.value is None:
        cli.announce(None)
    if _NUM_PROCESSES.value > 1 and _PROCESS_ID.value is None:
        return devices.start_processes("experiments.train", _NUM_PROCESSES.value)
    num_devices = device_flags.NUM_DEVICES.value
    devices.choose_devices(None, num_devices or 1)
    if _NUM_PROCESSES.value > 1:
        with cli.bad_input():
            devices.join_processes(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    directory = _DIRECTORY.value
    choices = problem_flags.chosen() | {"num_devices": num_devices, "patience": _PATIENCE.value}
    own = [] if directory is None else [config_writer(directory)]
    options: dict[str, Any] = {"resume": _RESUME.value, "log": _LOG.value, "writers": own}
    result = run(directory=directory, progress=not _PROCESS_ID.value, **options, **choices)
    history = result["history"]
    for split, values in (("training", history.train), ("validation", history.valid)):
        last = ", ".join(f"{name} {series[-1]:.3f}" for name, series in values.items() if len(series))
        print(f"{split}: {last or 'not measured'}")
    print(f"steps: {history.num_steps}")
    return None


if __name__ == "__main__":
    flags.adopt_module_key_flags(problem_flags)
    flags.adopt_module_key_flags(device_flags)
    cli.launch(main)
