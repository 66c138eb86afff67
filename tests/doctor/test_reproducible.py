"""The same seed gives the same diagnosis, bit for bit, where the time does not decide how much is run."""

import numpy as np
import optax
import pytest

import cnnprobe as cp
from cnnprobe.reporting.jsonfile import diagnosis_to_dict
from cnnprobe.types import Dataset, Model, Problem
from experiments.problems import cross_entropy

GENEROUS = 3600.0  # seconds


def bytes_for_pixels(names=(0, 1, 2, 3)):
    """A problem with a fault that a remedy mends, built anew at each call; `names` are those of the classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 4
    images = (60 * (rng.random((200, 8, 8, 1)) + labels[:, None, None, None])).astype(np.float32)
    data = Dataset(images, np.array(names)[labels])
    problem = Problem(cp.small_cnn(4), cross_entropy, optax.sgd(0.05), data, valid=data, num_classes=4)
    return problem._replace(batch_size=20, num_epochs=5)


@pytest.fixture(scope="module")
def diagnosis():
    return cp.diagnose(bytes_for_pixels(), budget_seconds=GENEROUS)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_diagnosis_bit_for_bit(diagnosis):
    again = cp.diagnose(bytes_for_pixels(), budget_seconds=GENEROUS)
    first, second = map(diagnosis_to_dict, (diagnosis, again))
    assert first.pop("seconds") != second.pop("seconds")
    assert first == second
    assert first["findings"][0]["trial"]["gain"] > 0


@pytest.mark.slow
def test_the_names_of_layers_and_classes_do_not_matter(diagnosis):
    problem = bytes_for_pixels((2, 0, 3, 1))
    inner = problem.model

    def init(key, images):
        params, state = inner.init(key, images)
        return {f"z{name}": params[name] for name in params}, state

    def apply(params, state, images, *, key, train):
        return inner.apply({name[1:]: params[name] for name in params}, state, images, key=key, train=train)

    renamed = cp.diagnose(problem._replace(model=Model(init, apply)), budget_seconds=GENEROUS)
    assert diagnosis.verdict == renamed.verdict == "faulty"
    assert [finding.cause for finding in diagnosis.findings] == [finding.cause for finding in renamed.findings]


@pytest.mark.slow
def test_a_loss_times_a_constant_is_diagnosed_alike_where_steps_do_not_feel_it():
    plain = bytes_for_pixels()._replace(optimizer=optax.adam(1e-2))
    scaled = plain._replace(loss=lambda outputs, labels: 8.0 * cross_entropy(outputs, labels))
    one, other = (cp.diagnose(problem, budget_seconds=GENEROUS) for problem in (plain, scaled))
    np.testing.assert_allclose(other.curve.loss[:5], 8.0 * one.curve.loss[:5], rtol=1e-2)
    findings = [[(finding.cause, finding.severity) for finding in found.findings] for found in (one, other)]
    assert (one.verdict, findings[0]) == (other.verdict, findings[1])
