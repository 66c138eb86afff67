import json

import jax
import numpy as np
import optax
import pytest

import cnnprobe as cp
from cnnprobe.doctor.causes import CAUSES
from experiments.problems import build_problem

RNG = np.random.default_rng(0)


def counts(*classes):
    return np.bincount(classes, minlength=4).tolist()


def steps(losses, *, labels=None):
    """Lines of a log; labels are drawn at random unless they are given."""
    for index, loss in enumerate(losses):
        seen = RNG.integers(0, 4, 32) if labels is None else labels(index)
        row = {"kind": "step", "step": index, "loss": loss, "accuracy": 0.5}
        yield row | {"prediction_counts": counts(*RNG.integers(0, 4, 32)), "label_counts": counts(*seen)}


@pytest.fixture
def read(tmp_path):
    def write_and_read(lines):
        path = tmp_path / "readings.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return cp.diagnose_run(path)

    return write_and_read


def test_falling_loss_shows_no_fault_and_says_what_it_cannot_tell(read):
    diagnosis = read(steps(np.linspace(1.4, 0.2, 200).tolist()))
    assert (diagnosis.verdict, diagnosis.findings) == ("cannot-tell", ())
    told = " ".join(diagnosis.untried)
    assert "cp.loss_fingerprint" in told
    assert "inputs-not-scaled" in told


def test_jump_of_the_loss_is_the_step_size(read):
    diagnosis = read(steps([1.4] * 20 + [60.0] * 20 + [1.4] * 160))
    assert (diagnosis.verdict, diagnosis.findings[0].cause) == ("faulty", "learning-rate-too-high")
    assert "nan" not in diagnosis.findings[0].evidence.sentence


def test_batches_of_one_class_are_seen_in_the_label_counts(read):
    diagnosis = read(steps([1.4] * 200, labels=lambda index: [index // 50] * 32))
    assert diagnosis.findings[0].cause == "batches-not-shuffled"


def test_loss_that_is_not_finite_is_named(read):
    diagnosis = read(steps([1.4] * 50 + [None] * 50))
    assert "non-finite-loss" in [finding.cause for finding in diagnosis.findings]


@pytest.mark.parametrize(
    ("last", "severity"), [([None] * 3, "cause"), ([0.2, None, 0.2], "warning"), ([0.2, 0.2, None], "warning")]
)
def test_a_loss_that_stays_nan_is_a_cause_however_much_was_learnt_before(last, severity, read):
    diagnosis = read(steps([*np.linspace(1.4, 0.2, 200).tolist(), *last]))
    assert {f.cause: f.severity for f in diagnosis.findings}["non-finite-loss"] == severity


def test_losses_alone_are_enough(read):
    diagnosis = read([{"loss": 1.4}, {"loss": 80.0}, *[{"loss": 90.0}] * 98])
    assert (diagnosis.findings[0].cause, diagnosis.curve) == ("learning-rate-too-high", None)


def test_every_cause_is_read_or_listed(read):
    diagnosis = read(steps([1.4] * 60))
    told = " ".join(diagnosis.untried)
    from cnnprobe.doctor.recorded import SUPPORTED

    assert all((cause.id in SUPPORTED) != (cause.id in told) for cause in CAUSES)


def test_run_of_fit_with_held_parameters_is_read(tmp_path):
    problem = build_problem(num_images=64, batch_size=16, num_epochs=2)[0]

    held = optax.chain(optax.adam(1e-3), optax.masked(optax.set_to_zero(), is_trunk))
    cp.fit(problem._replace(optimizer=held), directory=tmp_path, progress=False)
    diagnosis = cp.diagnose_run(tmp_path / "readings.jsonl")
    finding = next(f for f in diagnosis.findings if f.cause == "parameters-not-updated")
    assert "conv1/kernel" in finding.evidence.sentence
    assert diagnosis.facts["frozen parameter share"] > 0.9


def test_one_nan_blames_nothing_else_for_what_was_learnt(read):
    losses = [*np.linspace(1.4, 0.02, 200).tolist(), None, None, None]
    diagnosis = read(steps(losses, labels=lambda index: [0] * 30 + [index % 4] * 2))
    assert [f.cause for f in diagnosis.findings if f.severity == "cause"] == ["non-finite-loss"]
    assert "class-imbalance" in [f.cause for f in diagnosis.findings]


def is_trunk(params):
    return jax.tree.map(lambda leaf: leaf.shape[-1] != 10, params)


@pytest.mark.parametrize(
    ("mask", "num_epochs", "severity"), [(True, 26, "cause"), (True, 2, "warning"), (is_trunk, 2, "warning")]
)
def test_parameters_of_which_none_moves_for_long_are_a_cause(mask, num_epochs, severity, tmp_path):
    problem = build_problem(num_images=64, batch_size=16, num_epochs=num_epochs)[0]
    optimizer = optax.chain(optax.adam(1e-3), optax.masked(optax.set_to_zero(), mask))
    cp.fit(problem._replace(optimizer=optimizer), directory=tmp_path, progress=False)
    found = {f.cause: f.severity for f in cp.diagnose_run(tmp_path / "readings.jsonl").findings}
    assert found["parameters-not-updated"] == severity


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "path must name a file of readings, got"), ("", "path must name a file with a loss in each line, got")],
)
def test_what_is_no_record_is_refused(tmp_path, text, message):
    path = tmp_path / "readings.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        cp.diagnose_run(path)
