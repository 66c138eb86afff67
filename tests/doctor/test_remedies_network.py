import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnprobe.doctor import remedies_network as remedies
from cnnprobe.doctor.bench import make_bench
from cnnprobe.doctor.causes import CAUSES
from cnnprobe.doctor.causes.updates import AS_DRAWN
from cnnprobe.doctor.looks.run import held_kernels, look_at_held, spectral_edge
from cnnprobe.doctor.run import train_run
from cnnprobe.models.networks import small_cnn
from cnnprobe.types import Model
from experiments.faults import plant
from experiments.problems import cross_entropy

KEY = jax.random.key(0)


@pytest.fixture
def problem(tiny_bench):
    return tiny_bench.problem


def apply_once(model, weights, images, *, train=False):
    return np.asarray(model.apply(*weights, images, key=KEY, train=train)[0])


@pytest.mark.parametrize("width", [1, 2])
def test_reference_loss_of_two_classes_is_the_same_for_one_score_and_two(width, problem):
    scores, labels = jax.random.normal(KEY, (6, 1)), jnp.array([0, 1, 1, 0, 1, 0])
    outputs = scores if width == 1 else jnp.concatenate([jnp.zeros_like(scores), scores], axis=1)
    mended = remedies.reference_loss("logits", width)(problem)
    expected = optax.sigmoid_binary_cross_entropy(scores[:, 0], labels).mean()
    assert float(mended.loss(outputs, labels)) == pytest.approx(float(expected), rel=1e-5)


def test_reference_loss_of_probabilities_takes_their_logarithm(problem):
    logits, labels = jax.random.normal(KEY, (6, 3)), jnp.array([0, 1, 2, 0, 1, 2])
    mended = remedies.reference_loss("probabilities", 3)(problem)
    assert float(mended.loss(jax.nn.softmax(logits), labels)) == pytest.approx(float(cross_entropy(logits, labels)))


def test_models_softmax_over_the_batch_becomes_one_over_classes(problem):
    model, images = small_cnn(10), problem.train.images
    weights = model.init(KEY, images)

    def apply(params, state, images, *, key, train):
        return jax.nn.softmax(model.apply(params, state, images, key=key, train=train)[0], axis=0), state

    faulty = problem._replace(model=Model(model.init, apply), loss=lambda p, y: jnp.sum(p, axis=1))
    mended = remedies.softmax_over_classes(is_probability_loss=True)(faulty)
    np.testing.assert_allclose(
        apply_once(mended.model, weights, images), apply_once(model, weights, images), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(mended.loss(apply_once(mended.model, weights, images), None), 1.0, rtol=1e-5)


def test_held_parameters_get_updates_and_the_others_keep_theirs(problem):
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    masked = optax.chain(optax.sgd(1.0), optax.masked(optax.set_to_zero(), {"a": True, "b": False}))
    remedy = remedies.train_held((True, False), optax.sgd(0.1))
    optimizer = remedy(problem._replace(optimizer=masked)).optimizer
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert [float(updates[name][0]) for name in "ab"] == [pytest.approx(-0.1), -1.0]


def test_inserted_relu_is_that_of_the_network_with_relu(problem):
    linear, images = small_cnn(10, activation=lambda x: x), problem.train.images
    weights = linear.init(KEY, images)
    mended = remedies.insert_relu(problem._replace(model=linear)).model
    np.testing.assert_allclose(
        apply_once(mended, weights, images), apply_once(small_cnn(10), weights, images), rtol=1e-4, atol=1e-5
    )


def test_each_image_alone_takes_a_leak_away_and_changes_nothing_else(problem):
    leaking, images = plant(problem, "images_mixed"), problem.train.images
    weights = leaking.model.init(KEY, images)
    alone = remedies.each_image_alone(leaking).model
    expected = apply_once(problem.model, weights, images)
    assert np.abs(apply_once(leaking.model, weights, images) - expected).max() > 0.1
    np.testing.assert_allclose(apply_once(alone, weights, images), expected, rtol=1e-4, atol=1e-5)


def test_lifted_biases_are_zero_and_scales_stay(problem):
    model = plant(problem._replace(model=small_cnn(10, batch_norm=True)), "biases_below_zero").model
    lifted = remedies.lift_biases(problem._replace(model=model)).model
    params, _ = lifted.init(KEY, problem.train.images)
    assert float(model.init(KEY, problem.train.images)[0]["dense1"]["bias"][0]) == -20
    assert (float(params["dense1"]["bias"][0]), float(params["norm1"]["scale"][0])) == (0.0, 1.0)


def test_own_statistics_are_the_same_in_both_modes_and_in_any_batch(problem):
    model, images = small_cnn(10, batch_norm=True), problem.train.images
    weights = model.init(KEY, images)
    own = remedies.each_image_by_its_own_statistics(problem._replace(model=model)).model
    trained, evaluated = (apply_once(own, weights, images, train=train) for train in (True, False))
    np.testing.assert_allclose(trained, evaluated, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(apply_once(own, weights, images[:3]), evaluated[:3], rtol=1e-4, atol=1e-5)


def holding(problem):
    """The problem with its first kernel in the state, as a frozen layer holds it."""
    model = problem.model

    def init(key, images):
        params, state = model.init(key, images)
        name = next(name for name, part in params.items() if np.ndim(part["kernel"]) == 4)
        rest = {**params, name: {**params[name], "kernel": None}}
        return rest, {"own": state, "held": {name: params[name]["kernel"]}}

    def apply(params, state, images, *, key, train):
        whole = {name: {**part, "kernel": state["held"].get(name, part["kernel"])} for name, part in params.items()}
        outputs, moved = model.apply(whole, state["own"], images, key=key, train=train)
        return outputs, {**state, "own": moved}

    return problem._replace(model=Model(init, apply))


def test_held_kernels_are_found_and_trained(problem):
    frozen = holding(problem)._replace(batch_size=10)
    run = train_run(frozen, make_bench(frozen), num_steps=5, seconds=60.0, deadline=math.inf)
    ((name, kernel),) = held_kernels(run.first[1], run.last[1]).items()
    facts, names = look_at_held(run)
    assert names["held"] == name
    assert facts["share of weights in the state"] == kernel.size / (kernel.size + sum(run.leaf_sizes))
    assert np.isnan(facts["spectral edge of held weights"])  # nine rows are too few to tell
    freed = remedies.train_stored((name,), optax.sgd(0.1))(frozen)
    images = problem.train.images
    before, after = ((of.model, of.model.init(KEY, images)) for of in (frozen, freed))
    np.testing.assert_allclose(apply_once(*before, images), apply_once(*after, images), rtol=1e-6)
    moved = train_run(freed, make_bench(freed), num_steps=5, seconds=60.0, deadline=math.inf)
    (first,), (last,) = ([*weights[0]["held"].values()] for weights in (moved.first, moved.last))
    assert np.max(np.abs(first - last)) > 0


@pytest.mark.parametrize("draw", ["lecun_normal", "he_uniform", "glorot_uniform", "truncated_normal"])
@pytest.mark.parametrize("shape", [(3, 3, 3, 16), (3, 3, 16, 32), (5, 5, 24, 48), (3, 3, 64, 1), (2000, 64), (64, 512)])
def test_random_kernels_keep_below_the_edge_and_trained_ones_do_not(draw, shape):
    drawn = getattr(jax.nn.initializers, draw)
    kernel = np.asarray((drawn() if draw != "truncated_normal" else drawn(0.05))(KEY, shape))
    units = shape[-1] if shape[-1] > 1 else shape[-2]
    direction = np.outer(np.sin(np.arange(kernel.size // units)), np.cos(np.arange(units))).reshape(shape)
    assert np.isnan(spectral_edge(0 * kernel + 3))
    if kernel.size // units >= 16:
        assert AS_DRAWN[0] < spectral_edge(kernel) < AS_DRAWN[1]
        assert spectral_edge(kernel + 2 * kernel.std() * direction) > 1.4
    else:
        assert np.isnan(spectral_edge(kernel))


@pytest.mark.parametrize(
    ("edge", "reached", "is_named"), [(1.0, 0.8, True), (1.6, 0.8, False), (1.6, 0.1, True), (1.0, 0.1, True)]
)
def test_held_weights_that_were_trained_before_are_meant_to_be_held(edge, reached, is_named, problem, healthy):
    run = train_run(holding(problem), make_bench(problem), num_steps=2, seconds=60.0, deadline=math.inf)
    facts = {"share of weights in the state": 0.5, "spectral edge of held weights": edge}
    facts |= {"validation accuracy": reached, "random features accuracy": 0.8}
    seen = healthy._replace(run=run, facts={**healthy.facts, **facts})
    cause = {each.id: each for each in CAUSES}["parameters-not-updated"]
    found = cause.evidence(seen)
    assert (found is not None) == is_named
    if found is not None:
        assert ("as random as weights are drawn" in found.sentence) == (edge == 1.0)
        assert "load weights" in cause.advice(seen).text
        assert len(cause.remedies(seen)) == 1


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ({"key": jax.random.key(3)}, {"key": jax.random.key(4)}),
        ({}, None),
        ({"cache": jnp.ones((4, 4))}, {"other": jnp.ones((4, 4))}),
        ({"steps": jnp.arange(12).reshape(3, 4)}, {"steps": jnp.arange(12).reshape(3, 4)}),
    ],
)
def test_what_is_no_held_kernel_is_left_out(first, last):
    assert held_kernels(first, last) == {}


def test_held_kernels_of_half_precision_count():
    state = {"kernel": jnp.ones((4, 4), jnp.bfloat16)}
    assert list(held_kernels(state, state)) == ["kernel"]
