"""What is malformed raises; what is sick gives a finding."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cnnprobe as cp
from cnnprobe.types import Dataset, Model, Problem
from experiments.problems import cross_entropy


def tiny(**changes):
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 4
    images = (rng.random((80, 8, 8, 1)) + labels[:, None, None, None]).astype(np.float32) / 4
    problem = Problem(cp.small_cnn(4), cross_entropy, optax.adam(1e-2), Dataset(images, labels), num_classes=4)
    return problem._replace(batch_size=16, num_epochs=4)._replace(**changes)


def broken_model(problem, *, init=None, apply=None):
    model = problem.model
    return problem._replace(model=Model(init or model.init, apply or model.apply))


def raising(*args, **kwargs):
    raise RuntimeError("the model's own error")


def diagnose(problem):
    return cp.diagnose(problem, budget_seconds=60.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": 0.1}, "optimizer"),
        ({"loss": "mse"}, "loss must be a function, got 'mse'"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"num_classes": 1}, "num_classes"),
        ({"train": Dataset(np.zeros((0, 8, 8, 1)), np.zeros(0))}, "train"),
        ({"valid": Dataset(np.zeros((3, 8, 8, 1)), np.zeros(2))}, "valid"),
    ],
)
def test_malformed_problem_raises(changes, message):
    with pytest.raises(ValueError, match=message):
        diagnose(tiny(**changes))


def test_a_budget_that_is_over_before_the_first_step_is_no_fault_of_the_program():
    problem = tiny()
    slow = broken_model(problem, init=lambda key, images: time.sleep(1.2) or problem.model.init(key, images))
    diagnosis = cp.diagnose(slow, budget_seconds=1.0)
    assert diagnosis.verdict == "cannot-tell"
    assert "Give it more seconds" in diagnosis.summary


def test_budget_must_be_positive():
    with pytest.raises(ValueError, match="budget_seconds must be a number of at least"):
        cp.diagnose(tiny(), budget_seconds=-1.0)


def test_loss_of_several_numbers_raises():
    with pytest.raises(ValueError, match=r"loss must return a real scalar, got .*\(16,\)"):
        diagnose(tiny(loss=optax.softmax_cross_entropy_with_integer_labels))


@pytest.mark.parametrize("where", ["init", "apply"])
def test_model_that_cannot_run_gives_a_finding_that_says_where(where):
    diagnosis = diagnose(broken_model(tiny(), **{where: raising}))
    assert diagnosis.verdict == "faulty"
    assert "the model's own error" in diagnosis.findings[0].evidence.sentence


def test_preprocess_that_raises_gives_a_finding():
    diagnosis = diagnose(tiny(preprocess=raising))
    assert "the model's own error" in diagnosis.findings[0].evidence.sentence


def test_nan_images_are_named():
    problem = tiny()
    images = problem.train.images.copy()
    images[::3, 0, 0] = np.nan
    diagnosis = diagnose(problem._replace(train=Dataset(images, problem.train.labels)))
    assert diagnosis.findings[0].cause == "inputs-blank-or-corrupt"


def test_labels_out_of_range_are_named():
    problem = tiny()
    diagnosis = diagnose(problem._replace(train=Dataset(problem.train.images, problem.train.labels + 1)))
    assert diagnosis.findings[0].cause == "label-encoding"


def test_one_class_only_is_no_crash():
    problem = tiny()
    diagnosis = diagnose(problem._replace(train=Dataset(problem.train.images, np.zeros(80, int))))
    assert diagnosis.verdict in ("faulty", "cannot-tell", "untrained", "healthy", "under-trained")


def test_batch_larger_than_the_data_runs():
    assert diagnose(tiny(batch_size=500)).curve is not None


def test_loss_that_returns_nan_is_no_crash():
    diagnosis = diagnose(tiny(loss=lambda outputs, labels: jnp.nan * outputs.sum()))
    assert "non-finite-loss" in [finding.cause for finding in diagnosis.findings]


def test_a_source_item_by_item_is_diagnosed():
    problem = tiny()
    items = [{"image": image, "label": label} for image, label in zip(*problem.train, strict=True)]
    assert diagnose(problem._replace(train=items)).curve is not None


def test_output_of_one_unit_for_four_classes_is_named():
    def apply(params, state, images, *, key, train):
        return jax.nn.softmax(jnp.asarray(images).reshape(len(images), -1) @ params, axis=1), state

    model = Model(lambda key, images: (0.1 * jax.random.normal(key, (64, 1)), {}), apply)
    loss = lambda outputs, labels: jnp.mean((outputs[:, 0] - labels) ** 2)  # noqa: E731
    assert diagnose(tiny(model=model, loss=loss)).findings[0].cause == "output-units-not-classes"
