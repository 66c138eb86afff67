"""Training a problem from beginning to end, with readings, checkpoints and exact resumption."""

import os
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from cnnprobe.checks import check_integer, check_optional
from cnnprobe.data.batching import epoch_batches, num_batches
from cnnprobe.data.sampling import num_examples, take
from cnnprobe.tracing.readings import layer_stats
from cnnprobe.training.cadence import TAP_EVERY, Steps, make_steps
from cnnprobe.training.checkpoints import Position
from cnnprobe.training.evaluate import Evaluation, evaluate
from cnnprobe.training.journal import Journal, Record, open_journal, to_json, to_number
from cnnprobe.training.parallel import data_mesh, local_copy, spread_batch, spread_state
from cnnprobe.training.pipeline import prepare
from cnnprobe.training.predict import count_classes
from cnnprobe.training.probes import DEFAULT_PROBES, LAYER_READINGS, layer_names
from cnnprobe.training.progress import Tick, progress_bar
from cnnprobe.training.step import Probe, Report, TrainState, init_state
from cnnprobe.training.stopping import best_epoch, is_over
from cnnprobe.training.validate import check_problem
from cnnprobe.training.writing import begun, tell_epoch, tell_step
from cnnprobe.types import History, Images, Key, Problem, Writer

AUGMENT_STREAM = 0xA06  # keeps the draws of `augment` apart from those of the model
NO_BATCH = "batches must yield at least one batch an epoch, got none in epoch {epoch}."
SCORES = ("loss", "accuracy")  # of each epoch in a `History`


class _Run(NamedTuple):
    """What stays the same from step to step."""

    problem: Problem
    steps: Steps
    mesh: jax.sharding.Mesh | None
    journal: Journal
    writer: Writer | None
    tick: Tick
    num_epochs: int
    patience: int | None
    probe_every: int
    tap_every: int | None
    checkpoint_every: int


def fit(
    problem: Problem,
    *,
    directory: str | os.PathLike | None = None,
    resume: bool = True,
    progress: bool = True,
    num_epochs: int | None = None,
    patience: int | None = None,
    probes: Mapping[str, Probe] = DEFAULT_PROBES,
    probe_every: int = 1,
    tap_every: int | None = TAP_EVERY,
    devices: Sequence[jax.Device] | None = None,
    checkpoint_every: int = 500,
    writers: Writer | Sequence[Writer] = (),
) -> History:
    """Trains a problem exactly as its owner configured it.

    A run that was stopped at any step and is called again with the same problem and directory ends with the same
    parameters, bit for bit, as one that was not, if the user's own functions give the same for the same arguments.

    Args:
      problem: what to train.
      directory: gets `readings.jsonl`, a line for each step and each epoch, and `checkpoints/`; None: nothing is
        written.
      resume: goes on from the newest checkpoint in `directory`, if there is one.
      progress: shows a bar with the time left.
      num_epochs: in all, earlier ones included; None: the problem's.
      patience: ends the training after so many epochs in a row without a lower validation loss, and gives back the
        parameters of the best epoch; the curves hold all epochs. None: trains to the end and gives back the last ones.
      probes: what to read besides loss, accuracy and counts: functions of an `Observation`, by name.
      probe_every: steps between two lines that hold the readings of the probes.
      tap_every: steps between two whose line holds the `LayerStats` of every layer, forward and backward; None: never.
        A model without layers that can be read has none.
      devices: share each batch and give what one would; None: the first one. In several processes each calls `fit` with
        the same arguments and `jax.devices()`, and the first one writes the log.
      checkpoint_every: batches between two checkpoints within an epoch; there is one at the end of each anyway.
      writers: made by `cp.csv_writer` and the like. They get the numbers of each step and epoch and, where they take
        them, histograms of the parameters and mistaken validation images after each epoch. One that fails on the way is
        left out with a warning; the training goes on.

    Raises:
      ValueError: an argument or the problem is malformed, the loader yields no batch, or the directory holds a run of
        another problem, or any run where `resume` is False.
      OSError: `directory` or the place of a writer cannot be written, or is full.
    """
    check_problem(problem)
    check_optional(check_integer, "num_epochs", num_epochs, 1)
    check_optional(check_integer, "patience", patience, 1)
    if patience is not None and problem.valid is None:
        raise ValueError(f"patience must be None where problem.valid is None, got {patience!r}.")
    check_integer("probe_every", probe_every, 1)
    check_optional(check_integer, "tap_every", tap_every, 1)
    check_integer("checkpoint_every", checkpoint_every, 1)
    mesh = data_mesh(devices)
    state = spread_state(init_state(problem, jax.random.key(problem.seed), _first_images(problem)), mesh)
    num_classes, num_epochs = count_classes(problem), num_epochs or problem.num_epochs
    steps = make_steps(problem, num_classes=num_classes, probes=probes, tap_every=tap_every, mesh=mesh)
    header: Record = {"parameters": layer_names(state.params), "layers": LAYER_READINGS, "num_classes": num_classes}
    leaves = jax.tree.leaves(state.params)
    header |= {"sizes": [leaf.size for leaf in leaves], "axes": [leaf.ndim for leaf in leaves]}
    with (
        open_journal(directory, state, resume=resume, header=header) as journal,
        begun(writers, int(journal.state.step)) as writer,
        progress_bar(shown=progress) as tick,
    ):
        run = _Run(
            problem, steps, mesh, journal, writer, tick, num_epochs, patience, probe_every, tap_every, checkpoint_every
        )
        return _trained(run, journal.state)


def _trained(run: _Run, state: TrainState) -> History:
    """Trains the epochs that are left."""
    epochs = [record for record in run.journal.records if record["kind"] == "epoch"]
    best: TrainState | None = None
    for epoch in range(run.journal.position.epoch, run.num_epochs):
        if is_over(_valid_losses(epochs), run.patience):
            break
        state, taken = _train_epoch(run, state, epoch)
        epochs.append(_finish_epoch(run, state, epoch, taken))
        if run.patience is not None and best_epoch(_valid_losses(epochs)) == len(epochs) - 1:
            best = jax.tree.map(jnp.copy, local_copy(state, run.mesh))  # the next step takes over what it is given
            run.journal.save_best(state, Position(epoch + 1, 0))
        run.journal.save(state, Position(epoch + 1, 0))
    if run.patience is not None:
        best = best or _stored_best(run.journal, epochs, state, run.mesh)
    return _history(local_copy(state, run.mesh), epochs, best)


def _finish_epoch(run: _Run, state: TrainState, epoch: int, taken: list[Record]) -> Record:
    """Scores an epoch on the validation set, and logs it."""
    here, valid = local_copy(state, run.mesh), run.problem.valid
    seen = None if valid is None else evaluate(run.problem, here.params, here.model_state, valid)
    record = _epoch_record(seen, epoch, taken)
    run.journal.append(record)
    tell_epoch(run.writer, run.problem, here.params, record, seen)
    return record


def _first_images(problem: Problem) -> Images:
    """Images of one batch as the model sees them, for their shape."""
    if problem.batches is None:
        first = take(problem.train, np.arange(min(problem.batch_size, num_examples(problem.train))))
        return prepare(problem, first, jax.random.key(0), train=True).images
    for batch in epoch_batches(problem, 0):
        return batch.images
    raise ValueError(NO_BATCH.format(epoch=0))


def _train_epoch(run: _Run, state: TrainState, epoch: int) -> tuple[TrainState, list[Record]]:
    """Trains the rest of one epoch; returns the scores of all its steps, those of an earlier process too.

    A reading is fetched when the step after it is under way, so that the device never waits for the log.
    """
    start = run.journal.position.batch if epoch == run.journal.position.epoch else 0
    records = [each for each in run.journal.records if each["kind"] == "step" and each["epoch"] == epoch]
    offset = int(state.step) - start
    pending: list[tuple[int, Report]] = []

    def write() -> None:
        """Fetches and logs the reading that is under way, if there is one."""
        while pending:
            record = _step_record(run, epoch, *pending.pop())
            records.append({name: record[name] for name in ("step", *SCORES)})
            run.journal.append(record)
            tell_step(run.writer, record, state.params)
            run.tick(record["step"] + 1, _total_steps(run), _words(record))

    for index, batch in islice(enumerate(epoch_batches(run.problem, epoch)), start, None):
        if index > start and index % run.checkpoint_every == 0:
            write()
            run.journal.save(state, Position(epoch, index))
        ready = prepare(run.problem, batch, _augment_key(run.problem, offset + index), train=True)
        step = run.steps.tapped if _is_tapped(run, offset + index) else run.steps.between
        state, report = step(state, *spread_batch(ready, run.mesh))
        write()
        pending.append((offset + index, report))
    write()
    if not records:
        raise ValueError(NO_BATCH.format(epoch=epoch))
    return state, records


def _augment_key(problem: Problem, number: int) -> Key:
    """The key of the augmentation of one step."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(problem.seed), AUGMENT_STREAM), number)


def _total_steps(run: _Run) -> int | None:
    """Steps of the whole run; None where the user's own loader decides."""
    num = num_batches(run.problem)
    return None if num is None else num * run.num_epochs


def _words(record: Record) -> str:
    """What the progress bar says."""
    return f"epoch {record['epoch'] + 1}  loss {to_number(record['loss']):.3g}"


def _step_record(run: _Run, epoch: int, number: int, report: Report) -> Record:
    """One line of the log; its readings are taken before the update."""
    seen = report if number % run.probe_every == 0 else report._replace(probes={})
    scores = to_json(jax.device_get(seen._replace(taps=None))._asdict())
    taps = report.taps if _is_tapped(run, number) else None
    layers = {} if taps is None else {name: row._asdict() for name, row in layer_stats(taps).items()}
    return {"kind": "step", "step": number, "epoch": epoch, **scores, "taps": layers}


def _is_tapped(run: _Run, number: int) -> bool:
    """Whether a step reads the layers."""
    return run.tap_every is not None and number % run.tap_every == 0


def _epoch_record(seen: Evaluation | None, epoch: int, steps: list[Record]) -> Record:
    """Means over the steps of one epoch, and the scores on the validation set after it."""
    train = {name: float(np.mean([to_number(step[name]) for step in steps])) for name in SCORES}
    record = {"kind": "epoch", "epoch": epoch, "num_steps": steps[-1]["step"] + 1, "train": to_json(train)}
    if seen is None:
        return record
    return record | {"valid": to_json({name: getattr(seen, name) for name in (*SCORES, "balanced_accuracy")})}


def _valid_losses(epochs: list[Record]) -> list[float]:
    """The validation loss after each epoch; NaN without validation images."""
    return [to_number(record.get("valid", {}).get("loss")) for record in epochs]


def _stored_best(
    journal: Journal, epochs: list[Record], last: TrainState, mesh: jax.sharding.Mesh | None
) -> TrainState | None:
    """The state after the best epoch, where an earlier process trained that one."""
    best = best_epoch(_valid_losses(epochs))
    state = None if best is None else journal.load_best(epochs[best]["num_steps"], last)
    return None if state is None else local_copy(state, mesh)


def _history(state: TrainState, epochs: list[Record], best: TrainState | None) -> History:
    """The curves of all epochs, and the parameters of the best one if it is given, else of the last."""

    def curves(part: str) -> dict[str, Float[np.ndarray, " epochs"]]:
        """One array for each score; none without validation images."""
        rows = [record[part] for record in epochs if part in record]
        names = rows[0] if rows else ()
        return {name: np.array([to_number(row[name]) for row in rows]) for name in names}

    kept = best or state
    return History(kept.params, kept.model_state, curves("train"), curves("valid"), int(state.step))
