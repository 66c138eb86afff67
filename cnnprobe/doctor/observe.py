"""All that is measured of a problem, each measurement on its own: one that fails is noted, the others go on."""

import math
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from cnnprobe.checks import NO_TIME, check_time
from cnnprobe.doctor.bench import Bench, main_output
from cnnprobe.doctor.looks.augmentation import look_at_augmentation, look_inside
from cnnprobe.doctor.looks.balance import look_at_balance
from cnnprobe.doctor.looks.collapse import look_at_collapse
from cnnprobe.doctor.looks.data import look_at_images, look_at_labels, look_at_order, look_at_pairing
from cnnprobe.doctor.looks.forward import (
    Probed,
    first_loss,
    look_across_examples,
    look_at_first_layer,
    look_at_outputs,
    look_at_symmetry,
    run_forward,
    sensitivity,
)
from cnnprobe.doctor.looks.layers import look_at_layers
from cnnprobe.doctor.looks.layout import look_at_layout
from cnnprobe.doctor.looks.loss import BOUNDED, LossLook, label_reach, look_at_loss
from cnnprobe.doctor.looks.maps import look_at_maps
from cnnprobe.doctor.looks.metric import look_at_metric
from cnnprobe.doctor.looks.modes import look_at_modes, statistics_momentum
from cnnprobe.doctor.looks.numbering import look_at_numbering
from cnnprobe.doctor.looks.optimizer import look_at_optimizer
from cnnprobe.doctor.looks.passes import look_at_passes
from cnnprobe.doctor.looks.penalty import look_at_penalty
from cnnprobe.doctor.looks.places import look_at_places
from cnnprobe.doctor.looks.run import (
    frozen_leaves,
    look_at_held,
    look_at_loss_curve,
    look_at_updates,
    name_leaves,
    uphill_leaves,
)
from cnnprobe.doctor.looks.splits import look_at_leak, look_at_splits
from cnnprobe.doctor.looks.structure import look_at_structure
from cnnprobe.doctor.looks.transfer import look_across_splits
from cnnprobe.doctor.observation import Observation, error_text
from cnnprobe.doctor.progress import solved_from
from cnnprobe.doctor.run import (
    Run,
    planned_steps,
    score,
    score_of,
    settle,
    start,
    steps_of_training,
    train_run,
    valid_outputs,
)
from cnnprobe.training.step import check_loss
from cnnprobe.types import GraphRow, LayerRow, Outputs

ARRIVED = 0.05  # share of the first statistics that is left when they are held to have arrived
MOST_PASSES = 400
LONG = ("the training step", "the look at the layers", "the look at the two modes")

T = TypeVar("T")
Attempt = Callable[[str, Callable[[], T], T], T]


def _attempter(failures: dict[str, str], deadline: float) -> Attempt:
    """`attempt(what, measure, otherwise)`: what `measure` returns; `otherwise`, noted, if it raises or time is over.

    What compiles a whole step is not begun where less time is left than the longest measurement before it took: a
    compilation cannot be broken off.
    """
    took = [0.0]

    def attempt(what: str, measure: Callable[[], T], otherwise: T) -> T:
        """Runs one measurement of code that may raise anything."""
        started = time.monotonic()
        try:
            check_time(deadline - max(took) if what in LONG else deadline)
            return measure()
        except Exception as error:  # the user's model, loss and loader are what is being examined
            failures[what] = NO_TIME if str(error) == NO_TIME else error_text(error)
            return otherwise
        finally:
            took.append(0.0 if what in LONG else time.monotonic() - started)

    return attempt


def observe(bench: Bench, *, seconds: float, deadline: float) -> Observation:
    """Measures a problem: data, loss, network at its start, a short run, network at the end.

    Args:
      bench: the problem, as the user runs it, with samples of its data.
      seconds: that the probed run may train.
      deadline: `time.monotonic()` at which the run must stop.

    Raises:
      ValueError: the loss returns no real scalar.
    """
    bench = bench._replace(deadline=deadline)
    problem = bench.problem
    failures: dict[str, str] = {}
    attempt = _attempter(failures, deadline)
    facts, names = _static(bench, attempt)
    outputs, blind, loss, graph = _before(bench, attempt, facts, names)
    run = None
    if outputs is not None:
        steps = planned_steps(bench)
        run = attempt(
            "the training step",
            lambda: train_run(problem, bench, num_steps=steps, seconds=seconds, deadline=deadline),
            None,
        )
    layers: tuple[LayerRow, ...] = ()
    if run is not None:
        run, layers = _after(bench, run, blind, attempt, facts, names)
    return Observation(bench, facts, names, loss, run, layers, failures, graph, int(facts.get("settling passes", 0)))


def _static(bench: Bench, attempt: Attempt) -> tuple[dict[str, float], dict[str, str]]:
    """What the data alone tell."""
    laid, layout = attempt("the look at the layout", lambda: look_at_layout(bench.train.images), ({}, {}))
    divided, names = attempt("the look at the splits", lambda: look_at_splits(bench), ({}, {}))
    paired = attempt("the look at the pairing of images and labels", lambda: look_at_pairing(bench), {})
    facts = {
        **attempt("the look at the images", lambda: look_at_images(bench), {}),
        **attempt("the look at the labels", lambda: look_at_labels(bench), {}),
        **attempt("the look at the order of the batches", lambda: look_at_order(bench), {}),
        **paired,
        **attempt("the second pass over the data", lambda: look_at_passes(bench), {}),
        **attempt("the look at the augmentation", lambda: look_at_augmentation(bench, paired), {}),
        **laid,
        **divided,
    }
    whole = steps_of_training(bench)
    facts["steps of the whole training"] = float("inf") if whole is None else float(whole)
    return facts, {**names, **layout}


def _before(
    bench: Bench, attempt: Attempt, facts: dict[str, float], names: dict[str, str]
) -> tuple[Probed | None, float, LossLook | None, tuple[GraphRow, ...]]:
    """The network and the loss before any update; adds to `facts` and `names`."""
    weights = attempt("the model's init", lambda: start(bench.problem, bench.train.images)[:2], None)
    mapped, first = attempt("the look at the maps", lambda: look_at_maps(bench, weights), ({}, {}))
    facts |= mapped
    names |= first
    outputs = weights and attempt("the model's forward pass", lambda: run_forward(bench, weights), None)
    units = units_of(bench, outputs) if outputs else bench.num_classes
    loss = attempt("the reading of the loss", lambda: look_at_loss(bench, units), None)
    if loss is not None:
        names |= {
            "loss of logits": loss.name_of_logits,
            "loss of probabilities": loss.name_of_probabilities,
            "loss wants": loss.wants,
        }
    if outputs is None:
        return None, float("nan"), loss, ()
    seen, called = look_at_outputs(bench, outputs)
    built, found, graph = attempt("the look at the structure", lambda: look_at_structure(bench, weights), ({}, {}, ()))
    facts |= seen | built
    names |= called | found
    names["outputs"] = traced_name(names["outputs"], found.get("output activation"))
    blind = float("nan")
    if loss is not None:
        fed = loss.fed_with(names["outputs"])
        facts |= {f"loss {name.replace('_', ' ')}": value for name, value in numbers_of(fed).items()}
        blind = float(fed.uniform)
    facts["initial input sensitivity"] = sensitivity(outputs.scores, bench.num_classes)
    facts |= attempt("the look at the penalty", lambda: look_at_penalty(bench, weights, outputs), {})
    is_penalised = "penalty share of a gradient" in facts
    value = attempt("the user's loss", lambda: first_loss(bench, outputs, is_penalised=is_penalised), None)
    if value is not None:
        facts["initial loss"] = float(check_loss(value, bench.problem.loss))
        facts["initial loss ratio"] = facts["initial loss"] / blind if blind > 0 else float("nan")
    if facts["output places"] == 1:  # a loss of maps takes no rows of scores
        reach = attempt("the reach of a label", lambda: label_reach(bench, units, names["outputs"]), math.nan)
        facts["label reach"] = reach
    facts |= attempt("the look at the first layer", lambda: look_at_first_layer(bench, weights), {})
    facts |= attempt("the look at the augmentation inside", lambda: look_inside(bench, weights, facts), {})
    facts |= attempt("the look across examples", lambda: look_across_examples(bench, weights), {})
    return outputs, blind, loss, graph


def units_of(bench: Bench, outputs: Probed) -> int:
    """Scores of each image; 0 for outputs without an axis for them."""
    raw = main_output(outputs.raw, bench.num_classes)
    return 0 if raw.ndim == 1 else raw.shape[-1]


def traced_name(by_range: str, ending: str | None) -> str:
    """What outputs look like, where the trace says how the model ends; numbers between 0 and 1 may be anything."""
    if ending in BOUNDED:
        return ending
    if ending == "softmax":
        return "probabilities"
    is_guess = by_range in ("sigmoid", "relu")
    return "logits" if ending is not None and is_guess else by_range


def settling_passes(bench: Bench, run: Run, momentum: float) -> int:
    """Training-mode passes in which running statistics arrive, if the run is but a part of the user's own training.

    0 where they are those of the last quarter of the run anyway, and where the whole training is too short for them:
    it ends with statistics that are behind.
    """
    whole, made = steps_of_training(bench), len(run.curve.loss)
    if not 0 < momentum < 1 or momentum ** (made / 4) < ARRIVED:
        return 0
    needed = math.ceil(math.log(ARRIVED) / math.log(momentum))
    return 0 if whole is not None and whole <= max(made, needed) else min(needed, MOST_PASSES)


def numbers_of(record: object) -> dict[str, float]:
    """The numeric fields of a NamedTuple."""
    fields = record._asdict()  # type: ignore[attr-defined]
    return {
        name: float(value)
        for name, value in fields.items()
        if np.ndim(value) == 0 and not isinstance(value, str | None)
    }


def _after(
    bench: Bench, run: Run, blind: float, attempt: Attempt, facts: dict[str, float], names: dict[str, str]
) -> tuple[Run, tuple[LayerRow, ...]]:
    """The run and the network after it; adds to `facts` and `names`.

    Returns the run, its running statistics settled, and the rows of the layers.
    """
    facts |= look_at_loss_curve(run.curve, blind)
    facts |= look_at_updates(run)
    held, kernels = attempt("the look at held weights", lambda: look_at_held(run), ({}, {}))
    facts |= held
    names |= kernels
    asked, rule = attempt("the look at the optimizer", lambda: look_at_optimizer(bench, run), ({}, {}))
    facts |= asked
    names |= rule
    collapse, mechanism = attempt("the look at the predictions", lambda: look_at_collapse(bench, run), ({}, {}))
    facts |= collapse
    names |= mechanism
    names["frozen"] = name_leaves(run, frozen_leaves(run))
    names["uphill"] = name_leaves(run, uphill_leaves(run))
    symmetry, names["symmetric layer"] = attempt(
        "the look at the units", lambda: look_at_symmetry(run.first[0], run.last[0]), ({}, "")
    )
    facts |= symmetry
    facts["statistics momentum"] = attempt(
        "the look at the statistics", lambda: statistics_momentum(bench, run), math.nan
    )
    facts["settling passes"] = float(settling_passes(bench, run, facts["statistics momentum"]))
    settling = time.monotonic()
    settled = attempt(
        "the settling of statistics",
        lambda: settle(bench.problem, run.last, int(facts["settling passes"]), deadline=bench.deadline),
        run.last,
    )
    run = run._replace(last=settled, seconds=run.seconds + time.monotonic() - settling)  # so long will each trial take
    rows, seen = attempt("the look at the layers", lambda: look_at_layers(bench, run), ((), {}))
    facts |= seen
    outputs = attempt("the trained model's forward pass", lambda: run_forward(bench, run.last), None)
    if outputs is not None:
        facts["end input sensitivity"] = sensitivity(outputs.scores, bench.num_classes)
    dropped = {
        "has_dropout": facts.get("strongest dropout rate", 0.0) > 0,
        "augments": facts.get("augments inside", 0.0) > 0,
        "drops_in_evaluation": facts.get("dropout rate in evaluation", 0.0) > 0,
    }
    facts |= attempt("the look at the two modes", lambda: look_at_modes(bench, run, **dropped), {})
    answered, called = look_at_answers(bench, run, attempt)
    gap = answered.get("generalisation gap", math.nan)
    crossed, way = attempt("the look across the splits", lambda: look_across_splits(bench, gap), ({}, {}))
    facts |= answered | crossed
    names |= called | way
    if not answered.get("validation accuracy", 0.0) >= solved_from(facts):
        facts |= attempt("the look at the places", lambda: look_at_places(bench, run.last, run.first), {})
    return run, rows


def look_at_answers(bench: Bench, run: Run, attempt: Attempt) -> tuple[dict[str, float], dict[str, str]]:
    """What the trained network says of the validation images, held against their labels."""
    if bench.valid.ids is None:
        return attempt("the scores", lambda: look_at_scores(bench, run, None), {}), {}
    outputs = attempt("the answers for validation images", lambda: valid_outputs(bench, run), None)
    if outputs is None:
        return {}, {}
    numbered, names = attempt("the look at the class numbers", lambda: look_at_numbering(bench, outputs), ({}, {}))
    facts = {
        **attempt("the scores", lambda: look_at_scores(bench, run, outputs), {}),
        **attempt("the look at the metric", lambda: look_at_metric(bench, outputs), {}),
        **attempt("the look at the leak", lambda: look_at_leak(bench, outputs), {}),
        **attempt("the look at the balance", lambda: look_at_balance(bench, outputs), {}),
        **numbered,
    }
    return facts, names


def look_at_scores(bench: Bench, run: Run, outputs: Outputs) -> dict[str, float]:
    """Balanced accuracy in evaluation mode on the samples of both splits; `outputs` are for validation images."""
    valid = score_of(bench.problem, bench, outputs)
    if not bench.has_valid:
        return {"training accuracy": valid, "validation accuracy": valid}
    train = score(bench.problem, bench._replace(valid=bench.train), run.last)
    return {"training accuracy": train, "validation accuracy": valid, "generalisation gap": train - valid}
