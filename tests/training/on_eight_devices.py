"""Trains and diagnoses on one device and on eight, and prints what differs; a test runs it in a process of its own."""

import json
import re

import jax
import numpy as np
import optax

import cnnprobe as cp
from cnnprobe.tracing.readings import unit_stats
from cnnprobe.training.parallel import data_mesh, share_batch, spread_batch, spread_state
from cnnprobe.training.probes import DEFAULT_PROBES
from cnnprobe.training.step import init_state, make_train_step
from cnnprobe.types import Batch, Dataset, Problem
from experiments.problems import cross_entropy

NUM_IMAGES = 32
MOVES = re.compile(r"= (\S+) (?:all-gather|all-to-all|collective-permute)")  # what is moved other than by a sum
ADAM = optax.adam(1e-2)


def problem():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 2 * NUM_IMAGES)
    images = rng.normal(size=(2 * NUM_IMAGES, 12, 12, 1)).astype(np.float32)
    model = cp.residual_cnn(3, widths=(4, 8))
    return Problem(
        model, cross_entropy, ADAM, Dataset(images, labels), num_classes=3, batch_size=NUM_IMAGES, num_epochs=2
    )


def one_step(devices):
    """The state and report after two steps, and the compiled program."""
    case, mesh = problem(), data_mesh(devices)
    batch = spread_batch(Batch(case.train.images[:NUM_IMAGES], case.train.labels[:NUM_IMAGES]), mesh)
    state = spread_state(init_state(case, jax.random.key(0), case.train.images), mesh)
    step = make_train_step(
        case.model, case.loss, case.optimizer, num_classes=3, probes=DEFAULT_PROBES, tap_every=2, mesh=mesh
    )
    text = step.lower(state, *batch).compile().as_text()
    state, report = step(state, *batch)
    return state, report, text


def farthest(one, many):
    """Largest difference of two trees of numbers, beside the size of what is compared."""
    pairs = [map(np.asarray, pair) for pair in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True)]
    with np.errstate(invalid="ignore"):  # infinities that are equal
        apart = [np.max(np.where(a == b, 0, np.abs(a - b) / (1 + np.abs(a)))) for a, b in pairs]
    return float(np.max(apart))


def diagnosed(devices):
    """What is found of a problem whose labels are random: the loss curve of the run, and the causes."""
    found = cp.diagnose(problem(), budget_seconds=40.0, devices=devices)
    return found.verdict, [finding.cause for finding in found.findings], found.curve.loss


def rows_of_a_device(num_images, devices):
    """Images of a batch that the first device gets."""
    batch = share_batch(Batch(np.zeros((num_images, 2)), np.zeros(num_images)), data_mesh(devices))
    return len(batch.images.addressable_data(0))


def main():
    devices = jax.devices()
    (one, seen_by_one, _), (many, seen_by_many, text) = one_step(None), one_step(devices)
    verdicts, causes, curves = zip(*(diagnosed(chosen) for chosen in (None, devices)), strict=True)
    fits = [cp.fit(problem(), progress=False, devices=chosen) for chosen in (None, devices)]
    print(
        json.dumps(
            {
                "devices": len(devices),
                "parameters": farthest(one.params, many.params),
                "readings": farthest(unit_stats(seen_by_one.taps), unit_stats(seen_by_many.taps)),
                "report": farthest(seen_by_one._replace(taps=None), seen_by_many._replace(taps=None)),
                "gathered": MOVES.findall(text),
                "has_collectives": "all-reduce" in text,
                "losses": farthest(dict(fits[0].train), dict(fits[1].train)),
                "final": farthest(fits[0].params, fits[1].params),
                "verdicts": verdicts,
                "causes": causes,
                "curves": farthest(*curves),
                "rows": {num: rows_of_a_device(num, devices) for num in (NUM_IMAGES, NUM_IMAGES - 2)},
            }
        )
    )


if __name__ == "__main__":
    main()
