"""Plants every fault in several networks on several data sets, and asks the doctor; healthy twins beside them.

python -m experiments.benchmark_diagnosis --output_dir=runs/benchmark --split=held_out

Each case is one line of `cases.jsonl`, written when it is done, so an interrupted benchmark goes on where it stopped.
Problems whose network and seed served the calibration are the split `calibration`; `held_out` never did.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags

from experiments import cli, config_flags, problem_flags, report_flags

if TYPE_CHECKING:
    import numpy as np

    from cnnprobe.types import Images, Problem

_OUTPUT = flags.DEFINE_string("output_dir", "runs/benchmark", "Folder of the cases, the table and the picture.")
_SPLIT = flags.DEFINE_enum("split", "held_out", ("held_out", "calibration", "all"), "Which problems to run.")
_SUBSET = flags.DEFINE_integer("subset", None, "Run this many cases, drawn at random.", lower_bound=1)
_ONLY = flags.DEFINE_string("only", None, "Run the cases whose name holds this text.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Processes that run cases side by side.", lower_bound=1)

CHOICES: dict[str, dict[str, Any]] = {
    "fashion_mnist": {"num_images": 1000, "num_epochs": 10},
    "textures": {"num_images": 600, "num_epochs": 20},
    "blood_cells": {"num_images": 900, "num_epochs": 28},
}
CELLS = {"num_train": 900, "num_valid": 300, "size": 32}  # pixels: larger cells are not learnt in a benchmark's time
FRESH_SEEDS = (11, 12)  # added to the problem's own: no trial of a diagnosis goes as far
CALIBRATED = ("plain", "residual")  # networks of the calibration runs


class Case(NamedTuple):
    """One problem to diagnose."""

    dataset: str
    network: str
    kind: str  # "fault" or "healthy"
    variant: str

    @property
    def name(self) -> str:
        """The key of its line in the file."""
        return ", ".join(self)


def cases(split: str) -> list[Case]:
    """Every fault and every healthy variant on every data set, in each network that the split has."""
    from experiments.faults import FAULTS
    from experiments.healthy import HEALTHY
    from experiments.networks import NETWORKS

    kept = [name for name in NETWORKS if split == "all" or (name in CALIBRATED) == (split == "calibration")]
    variants = [("healthy", name, networks_for(name, kept)) for name in HEALTHY]
    variants += [("fault", name, networks_for(name, kept)) for name in FAULTS]
    return [
        Case(dataset, network, kind, name)
        for kind, name, networks in variants
        for dataset in CHOICES
        for network in networks
    ]


def networks_for(variant: str, kept: Sequence[str]) -> list[str]:
    """Those of a split that a variant fits; a fault that brings a network of its own stands under the plain one.

    Such a fault is in either split, and its healthy twin is the plain network.
    """
    from experiments import faults, healthy

    left_out = {**healthy.NOT_IN, **faults.NOT_IN}.get(variant, ())
    return ["plain"] if variant in faults.OWN_NETWORK else [name for name in kept if name not in left_out]


def chosen(split: str, *, only: str | None, subset: int | None, seed: int) -> list[Case]:
    """Some of the cases, and the healthy twin of each that holds a fault."""
    import random

    from experiments.scoreboard import twin_of

    found = [case for case in cases(split) if only is None or only in case.name]
    if subset is not None and subset < len(found):
        found = random.Random(seed).sample(found, subset)
    twins = [Case(*twin_of(case.name).split(", ", 3)) for case in found if case.kind == "fault"]
    return list(dict.fromkeys([*twins, *found]))


def stretch(images: "Images") -> "np.ndarray":
    """Bytes of low contrast over the whole range: as they are, networks would take far longer to learn them."""
    import numpy as np

    low, high = np.percentile(np.asarray(images), [1, 99])
    return (np.clip((np.asarray(images) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def healthy_problem(case: Case, *, seed: int) -> "Problem":
    """The problem of a case before anything is changed."""
    from cnnprobe.data.named import load
    from cnnprobe.types import Dataset
    from experiments.networks import NETWORKS
    from experiments.problems import build_problem

    problem, class_names = build_problem(dataset=case.dataset, seed=seed, **CHOICES[case.dataset])
    if case.dataset == "blood_cells":
        small = load(case.dataset, seed=seed, raw=True, **CELLS)
        train, valid = (Dataset(stretch(part.images), part.labels) for part in (small.train, small.valid))
        problem = problem._replace(train=train, valid=valid)
    return problem._replace(model=NETWORKS[case.network](len(class_names)))


def trained(problem: "Problem") -> list[float] | None:
    """Balanced accuracy on held-out images after the whole training from each fresh seed; None without such images.

    It is the user's own number, by the problem's own `predict`; 0 where it is NaN.
    """
    import numpy as np

    from cnnprobe import fit

    if problem.valid is None:
        return None
    again = [problem._replace(seed=problem.seed + seed) for seed in FRESH_SEEDS]
    reached = [fit(each, progress=False, probes={}, tap_every=None).valid["balanced_accuracy"][-1] for each in again]
    return np.nan_to_num(reached).tolist()


def trained_if_it_runs(problem: "Problem") -> list[float] | None:
    """The same, and 0 for a program that stops, as one with a planted fault may."""
    try:
        return trained(problem)
    except Exception:  # whatever the fault raises
        return [0.0] * len(FRESH_SEEDS)


def run_case(case: Case, *, budget_seconds: float, seed: int) -> dict[str, Any]:
    """Diagnoses one problem and keeps what the score needs; what the first remedy restores is trained to the end."""
    from cnnprobe import diagnose
    from experiments.faults import FAULTS
    from experiments.healthy import HEALTHY
    from experiments.scoreboard import is_held_against

    change = (FAULTS if case.kind == "fault" else HEALTHY)[case.variant]
    problem = change(healthy_problem(case, seed=seed))
    diagnosis = diagnose(problem, budget_seconds=budget_seconds)
    remedy = diagnosis.findings[0].remedy if diagnosis.findings else None
    reach = trained_if_it_runs if case.kind == "fault" else trained  # a healthy problem that stops is an error
    return {
        "case": case.name,
        "verdict": diagnosis.verdict,
        "causes": [f.cause for f in diagnosis.findings if f.severity == "cause"],
        "warnings": [f.cause for f in diagnosis.findings if f.severity == "warning"],
        "accuracy": reach(problem) if remedy or is_held_against(case.kind, case.variant) else None,
        "remedied": reach(remedy(problem)) if remedy else None,
        "seconds": round(diagnosis.seconds, 2),
        "untried": list(diagnosis.untried),
    }


def _results(todo: Sequence[Case], *, jobs: int, budget_seconds: float, seed: int) -> Iterator[dict[str, Any]]:
    """The rows of the cases as they are done; a process for each job, and none where there is one."""
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    if jobs == 1:
        yield from (run_case(case, budget_seconds=budget_seconds, seed=seed) for case in todo)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(run_case, case, budget_seconds=budget_seconds, seed=seed) for case in todo]
        yield from (task.result() for task in as_completed(tasks))


def run(
    *,
    output_dir: str,
    split: str = "held_out",
    only: str | None = None,
    subset: int | None = None,
    jobs: int = 1,
    budget_seconds: float = 60.0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Runs all chosen cases that the folder lacks; returns the rows of every one.

    Raises:
      cli.BadInputError: no case is chosen, or the folder cannot be written.
    """
    from pathlib import Path

    from experiments.rows import append_row, read_rows

    todo = chosen(split, only=only, subset=subset, seed=seed)
    with cli.bad_input():
        if not todo:
            raise ValueError(f"only must be part of the name of a case, got {only!r}.")
        path = Path(output_dir) / "cases.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = {row["case"]: row for row in read_rows(path)}
    left = [case for case in todo if case.name not in rows]
    for row in _results(left, jobs=jobs, budget_seconds=budget_seconds, seed=seed):
        rows[row["case"]] = row
        append_row(path, row)
        print(f"{row['seconds']:6.1f} s  {row['case']}: {row['verdict']} {row['causes']}", flush=True)
    return [rows[case.name] for case in todo]


def main(argv: Sequence[str]) -> None:
    """Runs, scores, prints the table and stores it with the picture."""
    from experiments.scoreboard import print_scores, score_rows, write_scores

    del argv
    cli.announce(None)
    choices: dict[str, Any] = {"split": _SPLIT.value, "only": _ONLY.value, "subset": _SUBSET.value, "jobs": _JOBS.value}
    choices |= {"budget_seconds": report_flags.BUDGET_SECONDS.value, "seed": problem_flags.SEED.value}
    rows = run(output_dir=_OUTPUT.value, **choices)
    scores = score_rows(rows)
    print_scores(scores)
    with cli.bad_input():
        config_flags.write_config(_OUTPUT.value)  # not before: the jobs are to have the device to themselves
        print(f"Written: {write_scores(scores, rows, _OUTPUT.value)}")


if __name__ == "__main__":
    flags.declare_key_flag("budget_seconds")
    flags.declare_key_flag("seed")
    cli.launch(main)
