"""Outputs of which the smallest wins, as distances do, turned round: all that looks at outputs takes the largest."""

import functools

import jax
import numpy as np

from cnnprobe.doctor.bench import Bench
from cnnprobe.doctor.looks.loss import RECOVERED, label_encoder
from cnnprobe.probes.fingerprint import loss_fingerprint
from cnnprobe.training.predict import predict_classes
from cnnprobe.types import Diagnosis, Finding, Images, Key, Labels, Model, Outputs, Params, Problem, State

NUM_MADE_UP = 64  # rows of outputs that `predict` is asked about


def turned(problem: Problem) -> Problem:
    """The same training and the same predictions from outputs of the other sign."""
    (init, apply), loss, predict = problem.model, problem.loss, problem.predict

    def negated(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Outputs, State]:
        """The user's model with its outputs turned round."""
        outputs, state = apply(params, state, images, key=key, train=train)
        return jax.tree.map(lambda x: -x, outputs), state

    def loss_of_negated(outputs: Outputs, labels: Labels) -> jax.Array:
        """The user's loss of what the model said."""
        return loss(jax.tree.map(lambda x: -x, outputs), labels)

    turned_back = predict and (lambda outputs: predict(jax.tree.map(lambda x: -x, outputs)))
    return problem._replace(model=Model(init, negated), loss=loss_of_negated, predict=turned_back)


def largest_wins(bench: Bench) -> Bench:
    """The bench as it is; of a problem whose smallest output wins, that of the problem turned round."""
    return bench._replace(problem=turned(bench.problem)) if _smallest_wins(bench) else bench


def _smallest_wins(bench: Bench) -> bool:
    """Whether the user's `predict` takes the smallest output, and the loss brings that of the right class down."""
    problem, num_classes = bench.problem, bench.num_classes
    if problem.predict is None:
        return False
    rows = np.random.default_rng(0).normal(size=(NUM_MADE_UP, num_classes)).astype(np.float32)
    try:
        given = np.asarray(predict_classes(rows, NUM_MADE_UP, predict=problem.predict))
    except Exception:  # a function of the user's may be made for outputs of another form
        return False
    if not np.array_equal(given, rows.argmin(axis=1)):
        return False
    read = functools.partial(loss_fingerprint, problem.loss, num_classes, encode=label_encoder(bench))
    return read(link=lambda scores: -scores).recovers >= RECOVERED > read().recovers


def for_the_users_own(diagnosis: Diagnosis) -> Diagnosis:
    """The diagnosis of a problem that was turned, with remedies of the problem as it was given."""
    return diagnosis._replace(findings=tuple(map(_behind_the_turn, diagnosis.findings)))


def _behind_the_turn(finding: Finding) -> Finding:
    """One finding."""
    remedy = finding.remedy
    return finding if remedy is None else finding._replace(remedy=lambda problem: remedy(turned(problem)))
