import jax
import numpy as np
import pytest

from cnnprobe.tracing.readings import layer_stats
from cnnprobe.training.cadence import make_steps
from cnnprobe.training.step import init_state
from cnnprobe.types import Model


def steps_of(problem, tap_every):
    return make_steps(problem, num_classes=3, probes={}, tap_every=tap_every)


def train(problem, steps, num_steps, tap_every):
    """The state and the reports of a few steps, chosen as `fit` chooses them."""
    state, reports = init_state(problem, jax.random.key(0), problem.train.images), []
    for number in range(num_steps):
        step = steps.tapped if tap_every and number % tap_every == 0 else steps.between
        state, report = step(state, problem.train.images[:8], problem.train.labels[:8])
        reports.append(report)
    return state, reports


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_layers_are_read_every_second_step(problem, monkeypatch, backend):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    _, reports = train(problem, steps_of(problem, 2), 3, 2)
    read = [report.taps is not None and layer_stats(report.taps)["dense"].num_activations for report in reports]
    assert read == [24, 0, 24]


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_reading_does_not_change_training(problem, monkeypatch, backend):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    tapped, _ = train(problem, steps_of(problem, 2), 4, 2)
    bare, _ = train(problem, steps_of(problem, None), 4, None)
    for a, b in zip(jax.tree.leaves(tapped.params), jax.tree.leaves(bare.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_one_program_serves_both_on_a_cpu(problem):
    steps = steps_of(problem, 2)
    assert steps.tapped is steps.between


def test_a_model_without_layers_trains_and_says_what_is_not_read(problem):
    constant = Model(problem.model.init, lambda p, s, x, *, key, train: (x[:, 0, :3, 0] + p["dense"]["bias"], s))
    with pytest.warns(UserWarning, match="the layers of the model are not read: ValueError"):
        _, reports = train(problem._replace(model=constant), steps_of(problem._replace(model=constant), 2), 2, 2)
    assert [report.taps for report in reports] == [None, None]
