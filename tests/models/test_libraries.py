"""The same network with the same weights in every library: the same rows and the same numbers."""

import functools

import jax
import numpy as np
import optax
import pytest

from cnnprobe.tracing.graph import model_graph
from cnnprobe.tracing.readings import layer_stats
from cnnprobe.tracing.taps import value_and_grad
from cnnprobe.training.fit import fit
from cnnprobe.training.step import init_state
from cnnprobe.training.validate import check_problem
from cnnprobe.types import Dataset, Problem

from .library_networks import IMAGES, LABELS, NAMES, WEIGHTS, build, cross_entropy, weights_of, with_weights

KEY = jax.random.key(0)
NUMBERS = ("mean", "std", "max", "zero_share", "gradient_rms")
library = functools.cache(build)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@functools.cache
def weights(name):
    """Parameters and state of one library, with the shared values."""
    return tuple(with_weights(library(name), tree) for tree in library(name).model.init(KEY, IMAGES))


@functools.cache
def run(name, train):
    """Loss, gradients, readings and new state."""
    params, state = weights(name)
    apply = library(name).model.apply

    def loss_fn(params):
        outputs, new_state = apply(params, state, IMAGES, key=KEY, train=train)
        return cross_entropy(outputs, LABELS), new_state

    (loss, new_state), grads, readings = jax.jit(value_and_grad(loss_fn, has_aux=True))(params)
    return loss, weights_of(library(name), grads), layer_stats(readings), new_state


def numbers(stats):
    return np.array([[getattr(row, number) for number in NUMBERS] for row in stats.values()])


def problem_of(name):
    train = Dataset(np.asarray(IMAGES), np.asarray(LABELS))
    model = library(name).model
    return Problem(model, cross_entropy, optax.adam(1e-2), train, num_classes=3, batch_size=3, num_epochs=1)


def test_rows_have_the_librarys_own_paths(name):
    stats = run(name, False)[2]
    assert tuple(stats) == library(name).rows
    assert [(row.kind, row.activation) for row in stats.values()] == [("conv", "relu"), ("dense", "")]


def test_loss_is_the_same(name):
    np.testing.assert_allclose(run(name, False)[0], run("plain", False)[0], rtol=1e-5)


def test_readings_are_the_same_forward_and_backward(name):
    np.testing.assert_allclose(numbers(run(name, False)[2]), numbers(run("plain", False)[2]), rtol=1e-4, atol=1e-6)


def test_gradients_are_the_same(name):
    grads, expected = run(name, False)[1], run("plain", False)[1]
    assert grads.keys() == expected.keys()
    for weight, grad in grads.items():
        np.testing.assert_allclose(grad, expected[weight], rtol=1e-3, atol=1e-6, err_msg=weight)


def test_training_mode_normalises_by_the_batch_in_every_library(name):
    first, expected = (next(iter(run(each, True)[2].values())) for each in (name, "plain"))
    np.testing.assert_allclose([first.mean, first.std], [expected.mean, expected.std], rtol=1e-4)


def test_training_moves_the_statistics_and_evaluation_does_not(name):
    before = weights_of(library(name), weights(name)[1])
    trained, evaluated = (weights_of(library(name), run(name, train)[3]) for train in (True, False))
    assert not np.allclose(trained["mean"], before["mean"])
    np.testing.assert_array_equal(evaluated["mean"], before["mean"])


def test_dropout_follows_the_key(name):
    params, state = weights(name)
    apply = jax.jit(lambda key: library(name).model.apply(params, state, IMAGES, key=key, train=True)[0])
    first, again, other = (np.asarray(apply(jax.random.key(seed))) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_another_key_draws_other_kernels(name):
    first, second = (
        weights_of(library(name), library(name).model.init(jax.random.key(seed), IMAGES)[0]) for seed in (0, 1)
    )
    assert not np.allclose(first["conv kernel"], second["conv kernel"])
    np.testing.assert_array_equal(first["scale"], second["scale"])


def test_parameters_are_counted_exactly(name):
    params, state = weights(name)
    graph = model_graph(lambda p: library(name).model.apply(p, state, IMAGES, key=KEY, train=False)[0], params)
    expected = sum(value.size for weight, value in WEIGHTS.items() if weight not in ("mean", "variance"))
    assert graph.num_params == expected


def test_the_problem_is_well_formed_and_trains(name):
    problem = problem_of(name)
    check_problem(problem)
    history = fit(problem, progress=False, probes={})
    assert history.num_steps == 2
    start = init_state(problem, KEY, problem.train.images).params
    moved = [not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (start, history.params)), strict=True)]
    assert sum(moved) >= 4
