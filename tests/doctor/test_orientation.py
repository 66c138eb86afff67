"""Outputs of which the smallest wins, or in another order: the same training and predictions, and no finding."""

import jax.numpy as jnp
import numpy as np
import pytest

import cnnprobe as cp
from cnnprobe.doctor.bench import make_bench
from cnnprobe.doctor.orientation import Reading, for_the_users_own, largest_wins, reading_of, turned
from cnnprobe.types import Model
from experiments.faults import plant
from experiments.problems import build_problem


def smallest(outputs):
    return jnp.argmin(outputs, axis=-1)


@pytest.fixture(scope="module")
def plain():
    return build_problem(num_images=300, batch_size=30)[0]


def distances(problem):
    """The problem with a model that says how far each class is."""
    init, apply = problem.model

    def far(params, state, images, *, key, train):
        outputs, state = apply(params, state, images, key=key, train=train)
        return 10 - outputs, state

    loss = problem.loss
    return problem._replace(model=Model(init, far), loss=lambda z, y: loss(-z, y), predict=smallest)


ORDER = np.random.default_rng(5).permutation(10)  # the class of each unit
UNITS = np.argsort(ORDER)


def shuffled(problem, order=ORDER):
    """The problem with units in another order than the classes, and a `predict` that knows of one."""
    loss = problem.loss
    return problem._replace(
        loss=lambda z, y: loss(z, jnp.asarray(UNITS)[y]), predict=lambda z: jnp.asarray(order)[jnp.argmax(z, axis=-1)]
    )


SMALLEST = Reading(-1, tuple(range(10)))
OTHERS = {"distances": (distances, SMALLEST), "another order": (shuffled, Reading(1, tuple(UNITS.tolist())))}


@pytest.mark.parametrize("name", OTHERS)
def test_outputs_are_turned_as_they_are_meant(name, plain):
    change, expected = OTHERS[name]
    bench = make_bench(change(plain))
    assert reading_of(bench) == expected
    problem = largest_wins(bench, expected).problem
    scores = np.random.default_rng(0).normal(size=(8, 10))
    np.testing.assert_array_equal(problem.predict(scores), scores.argmax(axis=1))


@pytest.mark.parametrize(
    "change",
    [
        lambda problem: problem,
        lambda problem: problem._replace(predict=lambda z: jnp.argmax(z, axis=-1)),
        lambda problem: problem._replace(predict=smallest),  # a metric that is wrong
        lambda problem: distances(problem)._replace(predict=None),
        lambda problem: problem._replace(predict=lambda z: z["classes"]),
        lambda problem: problem._replace(predict=lambda z: jnp.argmax(z, axis=-1) // 2),
        lambda problem: shuffled(problem, UNITS),  # the other way round than the loss
    ],
)
def test_others_are_left_as_they_are(change, plain):
    problem = change(plain)
    bench = make_bench(problem)
    assert reading_of(bench) is None
    assert largest_wins(bench, None).problem is problem


@pytest.mark.parametrize("name", OTHERS)
def test_turned_training_is_the_same(name, plain):
    change, reading = OTHERS[name]
    problem = change(plain)._replace(num_epochs=2)
    own, other = (cp.fit(each, progress=False) for each in (problem, turned(problem, reading)))
    for name in ("loss", "balanced_accuracy"):
        np.testing.assert_allclose(own.valid[name], other.valid[name], rtol=1e-5)


def test_remedies_are_of_the_problem_as_it_was_given(plain):
    given = distances(plain)
    finding = cp.Finding(**dict.fromkeys(cp.Finding._fields))._replace(remedy=lambda problem: problem)
    made = cp.Diagnosis(**dict.fromkeys(cp.Diagnosis._fields))
    findings = finding, finding._replace(remedy=None)
    first, second = for_the_users_own(made._replace(findings=findings), SMALLEST).findings
    assert second.remedy is None
    scores = np.random.default_rng(0).normal(size=(8, 10))
    np.testing.assert_array_equal(first.remedy(given).predict(scores), scores.argmax(axis=1))


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_such_outputs_of_a_healthy_network_are_healthy(name):
    problem, _ = build_problem(dataset="fashion_mnist", num_images=1000, num_epochs=10, seed=3)
    diagnosis = cp.diagnose(OTHERS[name][0](problem), budget_seconds=150.0)
    assert diagnosis.findings == ()
    assert diagnosis.verdict in ("healthy", "under-trained")


@pytest.mark.slow
def test_fault_behind_distances_is_named_and_its_remedy_mends_the_problem_as_given():
    problem, _ = build_problem(dataset="fashion_mnist", num_images=1000, num_epochs=10, seed=3)
    given = distances(plant(problem, "inputs_scaled_twice"))
    diagnosis = cp.diagnose(given, budget_seconds=150.0)
    first = diagnosis.findings[0]
    assert (first.severity, first.cause) == ("cause", "inputs-scaled-twice")
    before, after = (
        cp.fit(each, progress=False).valid["balanced_accuracy"][-1] for each in (given, first.remedy(given))
    )
    assert after > before + 0.1
