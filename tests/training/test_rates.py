import jax
import numpy as np
import optax
import pytest

from cnnprobe.data.batching import endless_batches
from cnnprobe.training import rates as module
from cnnprobe.training.fit import fit
from cnnprobe.training.pipeline import prepare
from cnnprobe.training.rates import fit_lines, learning_rate_range
from cnnprobe.training.step import init_state, make_train_step

NUM = 100  # steps
WIDTH = 11  # of the lines of so many steps
RATES = np.geomspace(1e-3, 1e3, NUM)


@pytest.fixture
def problem(problem):
    return problem._replace(batch_size=40)


def sweep(problem, **options):
    return learning_rate_range(
        problem, **{"lowest": 1e-3, "highest": 1e3, "num_steps": NUM, "progress": False, **options}
    )


def trained(problem, optimizer, num_steps):
    """The losses of a plain training."""
    problem = problem._replace(optimizer=optimizer)
    step = make_train_step(problem.model, problem.loss, optimizer, num_classes=3)
    key, state, losses = jax.random.key(problem.seed), None, []
    for index, batch in zip(range(num_steps), endless_batches(problem), strict=False):
        images, labels = prepare(problem, batch, jax.random.fold_in(key, index), train=True)
        state = state or init_state(problem, key, images)
        state, report = step(state, images, labels)
        losses.append(float(report.loss))
    return losses


def concluded(losses):
    return module._conclude(RATES, np.asarray(losses, float), WIDTH)


def falling(at, *, noise=0.02):
    """A loss that falls from 1 to 0, fastest at a place, with noise."""
    places = np.arange(NUM)
    return 1 / (1 + np.exp((places - at) / 5)) + noise * np.random.default_rng(0).normal(size=NUM)


@pytest.mark.parametrize("optimizer", [optax.sgd, optax.adam])
def test_losses_are_those_of_a_training_with_these_learning_rates(problem, optimizer):
    found = sweep(problem._replace(optimizer=optimizer(0.02)))
    table = 0.02 * jax.numpy.asarray(found.rates)
    by_hand = trained(problem, optimizer(lambda count: table[count]), len(found.rates))
    np.testing.assert_allclose(found.losses, by_hand, rtol=1e-3)


def test_lines_are_those_of_least_squares():
    losses = np.random.default_rng(0).normal(size=12)
    lines = fit_lines(losses, 5)
    for middle in range(2, 10):
        (slope, level), covariance = np.polyfit(np.arange(-2, 3), losses[middle - 2 : middle + 3], 1, cov=True)
        expected = level, slope, covariance[0, 0] ** 0.5
        np.testing.assert_allclose([column[middle] for column in lines], expected)
    assert np.isnan(lines.slopes[[0, 1, 10, 11]]).all()


def test_the_suggestion_does_not_depend_on_the_step_that_the_user_has(problem):
    coarse = sweep(problem._replace(optimizer=optax.sgd(0.1)))
    fine = sweep(problem._replace(optimizer=optax.sgd(0.01)), lowest=1e-2, highest=1e4)
    assert 0.1 * coarse.suggestion == pytest.approx(0.01 * fine.suggestion, rel=1e-6)


def test_the_suggestion_trains_and_more_of_it_does_not(problem):
    found = sweep(problem._replace(optimizer=optax.sgd(0.1)))
    losses = [fit(problem._replace(optimizer=optax.sgd(0.1 * rate)), progress=False).train["loss"][-1]
              for rate in (found.suggestion, 0.01 * found.suggestion, 1000 * found.suggestion)]  # fmt: skip
    assert losses[0] < losses[1] < losses[2]


def test_a_sweep_ends_where_the_loss_has_exploded(problem):
    found = sweep(problem._replace(optimizer=optax.sgd(0.1)), highest=1e8)
    assert WIDTH < len(found.rates) == len(found.losses) == len(found.smoothed) < NUM


def test_a_network_that_does_not_move_gives_no_suggestion(problem):
    found = sweep(problem._replace(optimizer=optax.set_to_zero()))
    assert np.isnan(found.suggestion)
    assert "the loss does not fall beyond chance" in found.conclusion


def test_a_loss_that_is_no_number_gives_no_suggestion(problem):
    found = sweep(problem._replace(loss=lambda outputs, labels: outputs.mean() * np.nan))
    assert found.losses.shape == (1,)
    assert found.conclusion.startswith("Cannot tell: the loss is lost after 1 steps")


def test_the_steepest_fall_is_found():
    found = concluded(falling(50))
    assert abs(np.searchsorted(RATES, found.suggestion) - 50) <= 3
    assert found.upper == RATES[np.nanargmin(found.smoothed)]


def test_a_recovery_after_an_explosion_is_not_taken_for_a_fall():
    losses = falling(30)
    losses[70:80], losses[80:] = 4.0, 0.5
    assert abs(np.searchsorted(RATES, concluded(losses).suggestion) - 30) <= 3


@pytest.mark.parametrize(
    ("losses", "reason"),
    [
        (falling(100), "the loss still falls at the highest rate"),
        (falling(0), "the loss falls fastest at the lowest rate"),
        (np.ones(NUM), "the loss does not fall beyond chance"),
        ([1.0, np.inf], "the loss is lost after 2 steps"),
    ],
)
def test_what_cannot_be_told_is_said(losses, reason):
    found = concluded(losses)
    assert np.isnan(found.suggestion)
    assert reason in found.conclusion


def test_noise_is_hardly_ever_taken_for_a_fall():
    rng = np.random.default_rng(0)
    told = [np.isfinite(concluded(rng.normal(size=NUM)).suggestion) for _ in range(300)]
    assert sum(told) <= 6


def test_a_loader_of_the_users_own_is_swept(problem):
    loader = lambda epoch: [(problem.train.images[:8], problem.train.labels[:8])]  # noqa: E731
    assert len(sweep(problem._replace(batches=loader)).rates) > WIDTH


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 10}, "num_steps must be a whole number of at least 100, got 10"),
        ({"highest": "large"}, "highest must be a number of at least 0.0, got 'large'"),
        ({"lowest": 0.0}, "lowest must be above 0 and below highest, got lowest=0.0"),
        ({"lowest": 2.0, "highest": 1.0}, "lowest must be above 0 and below highest, got lowest=2.0, highest=1.0"),
    ],
)
def test_bad_arguments_are_refused(problem, options, message):
    with pytest.raises(ValueError, match=message):
        sweep(problem, **options)
