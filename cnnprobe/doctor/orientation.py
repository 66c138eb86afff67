"""Outputs of which the smallest wins, or whose units stand in another order than the classes, read as they are meant.

All that looks at outputs takes the largest, and its place for the class. So such a problem is diagnosed with its
outputs turned round or in the order of the classes; it trains and predicts as before.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int

from cnnprobe.doctor.bench import Bench
from cnnprobe.doctor.looks.loss import RECOVERED, label_encoder
from cnnprobe.probes.fingerprint import loss_fingerprint
from cnnprobe.training.predict import predict_classes
from cnnprobe.types import AnyArray, Diagnosis, Finding, Images, Key, Labels, Model, Outputs, Params, Problem, State

MOST_CLASSES = 1000  # whose order is asked for: two rows of made-up outputs each
FEWEST_ROWS = 64


class Reading(NamedTuple):
    """How `predict` reads outputs."""

    sign: int  # -1: the smallest wins
    units: tuple[int, ...]  # the unit of each class

    @property
    def classes(self) -> tuple[int, ...]:
        """The class of each unit."""
        return tuple(np.argsort(self.units).tolist())


def _arranged(outputs: Outputs, sign: int, order: tuple[int, ...]) -> Outputs:
    """Outputs of a sign, and their units in an order; what has no unit for each class keeps its own."""

    def leaf(x: Array) -> Array:
        """One array."""
        return sign * (x[..., np.asarray(order)] if np.shape(x)[-1:] == (len(order),) else x)

    return jax.tree.map(leaf, outputs)


def turned(problem: Problem, reading: Reading) -> Problem:
    """The same training and the same predictions from outputs of which the largest stands in the place of its class."""
    (init, apply), loss, predict = problem.model, problem.loss, problem.predict

    def in_order(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Outputs, State]:
        """The user's model with its outputs turned round."""
        outputs, state = apply(params, state, images, key=key, train=train)
        return _arranged(outputs, reading.sign, reading.units), state

    def loss_of_turned(outputs: Outputs, labels: Labels) -> jax.Array:
        """The user's loss of what the model said."""
        return loss(_arranged(outputs, reading.sign, reading.classes), labels)

    def predict_turned(outputs: Outputs) -> AnyArray:
        """The user's classes for what the model said."""
        assert predict is not None
        return predict(_arranged(outputs, reading.sign, reading.classes))

    return problem._replace(model=Model(init, in_order), loss=loss_of_turned, predict=predict_turned)


def largest_wins(bench: Bench, reading: Reading | None) -> Bench:
    """The bench of the problem as `turned`."""
    return bench if reading is None else bench._replace(problem=turned(bench.problem, reading))


def reading_of(bench: Bench) -> Reading | None:
    """How the user's `predict` reads outputs, where the loss is met by those only; None where the largest wins."""
    found = _asked(bench)
    if found is None:
        return None
    read = functools.partial(loss_fingerprint, bench.problem.loss, bench.num_classes, encode=label_encoder(bench))
    recovers = read(link=lambda scores: _arranged(scores, found.sign, found.classes)).recovers
    return found if recovers >= RECOVERED > read().recovers else None


def _asked(bench: Bench) -> Reading | None:
    """What `predict` says of made-up outputs, if it is about one unit for each class, in another way than usual."""
    predict, num_classes = bench.problem.predict, bench.num_classes
    if predict is None or num_classes > MOST_CLASSES:
        return None
    num_rows = max(FEWEST_ROWS, 2 * num_classes)
    winners = np.arange(num_rows) % num_classes
    rows = np.random.default_rng(0).normal(size=(num_rows, num_classes)).astype(np.float32)
    rows[np.arange(num_rows), winners] = rows.max(axis=1) + 1
    try:
        answers = {sign: np.asarray(predict_classes(sign * rows, num_rows, predict=predict)) for sign in (1, -1)}
        found = [Reading(sign, _units(winners, given, num_classes)) for sign, given in answers.items()]
    except Exception:  # a function of the user's may be made for outputs of another form, or give no whole numbers
        return None
    usual = Reading(1, tuple(range(num_classes)))
    return next((reading for reading in found if reading.units and reading != usual), None)


def _units(winners: Int[np.ndarray, " rows"], given: np.ndarray, num_classes: int) -> tuple[int, ...]:
    """The unit that each class was given for; empty unless each is given for one, and for that always."""
    units = {int(said): int(unit) for unit, said in zip(winners, given, strict=True)}
    is_order = sorted(units) == list(range(num_classes)) and all(
        units[int(said)] == unit for unit, said in zip(winners, given, strict=True)
    )
    return tuple(units[said] for said in range(num_classes)) if is_order else ()


def for_the_users_own(diagnosis: Diagnosis, reading: Reading | None) -> Diagnosis:
    """The diagnosis of a problem that was turned, with remedies of the problem as it was given."""
    if reading is None:
        return diagnosis
    return diagnosis._replace(findings=tuple(_behind_the_turn(finding, reading) for finding in diagnosis.findings))


def _behind_the_turn(finding: Finding, reading: Reading) -> Finding:
    """One finding."""
    remedy = finding.remedy
    return finding if remedy is None else finding._replace(remedy=lambda problem: remedy(turned(problem, reading)))
