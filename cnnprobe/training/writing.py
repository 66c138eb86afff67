"""What a run tells its writers: the numbers of each step, and after each epoch scores, parameters and wrong answers."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import jax
import numpy as np

from cnnprobe.data.sampling import take
from cnnprobe.training.evaluate import Evaluation
from cnnprobe.training.journal import Record, to_number
from cnnprobe.training.predict import label_classes
from cnnprobe.training.probes import LAYER_READINGS, layer_names
from cnnprobe.types import AnyArray, Params, Problem, Writer

MOST_CONFUSIONS = 16  # pairs of classes that an image is shown of
PLAIN_NAMES = {  # of `LayerStats`, where a name alone would not say of what it is
    "mean": "activation_mean",
    "std": "activation_std",
    "max": "activation_max",
    "gradient_rms": "activation_gradient_rms",
}
SIZES = ("num_features", "num_activations")  # which are the same in every step


def to_all(*writers: Writer) -> Writer:
    """Joins writers into one.

    A writer that fails on the way is left out until the next `begin`, with a warning that names it and says why: the
    run that it tells of is worth more. The others go on, and what it wrote before stays. One that cannot even begin
    raises, before anything is trained.
    """
    alive: list[Writer] = []

    def begin(step: int) -> None:
        """All or none."""
        alive[:] = writers
        with ExitStack() as opened:
            for writer in writers:
                writer.begin(step)
                opened.callback(writer.close)
            opened.pop_all()

    def close() -> None:
        """Each, whatever becomes of the others."""
        for writer in list(alive):
            _try(alive, writer, "when it was closed", writer.close)

    def told(kind: str) -> Callable[[int, Mapping[str, Any]], None]:
        """The function that hands one kind of values to all that take it."""

        def write(step: int, values: Mapping[str, Any]) -> None:
            """Each that is alive."""
            for writer in list(alive):
                if function := getattr(writer, kind):
                    _try(alive, writer, f"from step {step} on", function, step, values)

        return write

    def taken(kind: str) -> Callable[[int, Mapping[str, Any]], None] | None:
        """The same; None where nobody takes it, so that nobody computes it."""
        return told(kind) if any(getattr(writer, kind) for writer in writers) else None

    name = ", ".join(writer.name for writer in writers)
    return Writer(name, begin, told("write_scalars"), close, taken("write_histograms"), taken("write_images"))


def _try(alive: list[Writer], writer: Writer, when: str, function: Callable[..., None], *arguments: Any) -> None:
    """Calls a function of a writer; one that fails is alive no more."""
    try:
        function(*arguments)
    except Exception as error:
        alive.remove(writer)
        warnings.warn(f"{writer.name} is left out {when}: {error}", stacklevel=4)


@contextmanager
def begun(writers: Writer | Sequence[Writer], step: int) -> Iterator[Writer | None]:
    """The writers as one, begun at `step`, and closed in the end; None where there are none.

    Of several processes the first one writes.

    Raises:
      ValueError: something else stands among them.
    """
    given = (writers,) if isinstance(writers, Writer) else tuple(writers)
    if wrong := [each for each in given if not isinstance(each, Writer)]:
        raise ValueError(f"writers must be such as cp.csv_writer makes, got {wrong[0]!r}.")
    if not given or jax.process_index() != 0:
        yield None
        return
    writer = to_all(*given)
    writer.begin(step)
    try:
        yield writer
    finally:
        writer.close()


def tell_step(writer: Writer | None, record: Record, params: Params) -> None:
    """Hands on the numbers of one step."""
    if writer is not None:
        writer.write_scalars(record["step"], step_scalars(record, layer_names(params)))


def tell_epoch(
    writer: Writer | None, problem: Problem, params: Params, record: Record, seen: Evaluation | None
) -> None:
    """Hands on the scores of one epoch, the parameters after it, and validation images that were taken for others.

    They count for the last step of the epoch.
    """
    if writer is None:
        return
    step = record["num_steps"] - 1
    writer.write_scalars(step, epoch_scalars(record))
    if writer.write_histograms:
        leaves = map(np.asarray, jax.tree.leaves(params))
        names = (f"parameters/{name}" for name in layer_names(params))
        writer.write_histograms(step, dict(zip(names, leaves, strict=True)))
    if writer.write_images and seen is not None:
        writer.write_images(step, confused_images(problem, seen))


def step_scalars(record: Record, parameters: Sequence[str]) -> dict[str, float]:
    """The numbers in a line of the log, by name; that of a layer after a slash: `log10_update_ratio/conv1/kernel`.

    Readings that do not apply to a layer, and probes that return neither numbers nor dicts of them, have no name.
    """
    counts = np.asarray(record["prediction_counts"])
    scalars = {name: to_number(record[name]) for name in ("loss", "accuracy")}
    scalars["top_prediction_share"] = float(counts.max() / max(counts.sum(), 1))
    for name, value in record["probes"].items():
        scalars |= _probe_scalars(name, value, parameters)
    for layer, stats in record["taps"].items():
        for name, value in stats.items():
            if name not in SIZES and isinstance(value, float | int) and not math.isnan(value):
                scalars[f"{PLAIN_NAMES.get(name, name)}/{layer}"] = value
    return scalars


def _probe_scalars(name: str, value: Any, parameters: Sequence[str]) -> dict[str, float]:
    """What one probe returned, as far as it is numbers."""
    if isinstance(value, dict):
        parts = (_probe_scalars(f"{name}/{key}", item, parameters) for key, item in value.items())
        return {key: number for part in parts for key, number in part.items()}
    if name == "layers" and _is_table(value, len(LAYER_READINGS), len(parameters)):
        rows = zip(LAYER_READINGS, value, strict=True)
        return {
            f"{reading}/{layer}": to_number(number)
            for reading, row in rows
            for layer, number in zip(parameters, row, strict=True)
        }
    is_number = value is None or isinstance(value, float | int) or value in ("inf", "-inf")
    return {name: to_number(value)} if is_number else {}


def _is_table(value: Any, num_rows: int, num_columns: int) -> bool:
    """Whether a value is a list of so many lists of so many entries."""
    rows = value if isinstance(value, list) else ()
    return len(rows) == num_rows and all(isinstance(row, list) and len(row) == num_columns for row in rows)


def epoch_scalars(record: Record) -> dict[str, float]:
    """The scores of an epoch by name: `train/loss`, `valid/accuracy`."""
    return {
        f"{part}/{name}": to_number(value)
        for part in ("train", "valid")
        for name, value in record.get(part, {}).items()
    }


def confused_images(problem: Problem, seen: Evaluation) -> dict[str, AnyArray]:
    """A stored validation image of each of the most frequent confusions: `misclassified/3_as_5`."""
    classes = label_classes(seen.labels)
    if classes is None or problem.valid is None:
        return {}
    pairs = list(zip(np.asarray(classes).tolist(), seen.predictions.tolist(), strict=True))
    wrong = Counter(pair for pair in pairs if pair[0] != pair[1])
    chosen = [pair for pair, _ in wrong.most_common(MOST_CONFUSIONS)]
    if not chosen:
        return {}
    images = take(problem.valid, [pairs.index(pair) for pair in chosen]).images
    return {f"misclassified/{true}_as_{named}": image for (true, named), image in zip(chosen, images, strict=True)}
