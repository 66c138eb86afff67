import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnprobe.training.step import init_state, make_train_step, run_model
from cnnprobe.types import Model


def make(problem, **options):
    return make_train_step(problem.model, problem.loss, problem.optimizer, num_classes=3, **options)


def start(problem):
    return init_state(problem, jax.random.key(0), problem.train.images)


def batch(problem, num=8):
    return problem.train.images[:num], problem.train.labels[:num]


def test_sgd_step_is_the_textbook_update(problem):
    linear = problem.model
    quiet = linear._replace(apply=lambda p, s, x, *, key, train: linear.apply(p, s, x, key=key, train=False))
    problem = problem._replace(model=quiet, optimizer=optax.sgd(0.1))
    images, labels = batch(problem)
    state = start(problem)
    kernel, bias = (np.float64(state.params["dense"][name]) for name in ("kernel", "bias"))
    after, _ = make(problem)(state, images, labels)
    x = np.float64(images.reshape(8, -1))
    scores = np.exp(x @ kernel + bias)
    error = scores / scores.sum(1, keepdims=True) - np.eye(3)[labels]
    np.testing.assert_allclose(after.params["dense"]["kernel"], kernel - 0.1 * x.T @ error / 8, rtol=1e-5, atol=1e-7)


def test_report_is_taken_before_the_update(problem):
    images, labels = batch(problem)
    state = start(problem)
    key = jax.random.fold_in(state.key, 0)
    logits, _ = problem.model.apply(state.params, state.model_state, images, key=key, train=True)
    loss, guesses = float(problem.loss(logits, labels)), np.argmax(logits, 1)
    _, report = make(problem)(state, images, labels)
    np.testing.assert_allclose(report.loss, loss, rtol=1e-6)
    np.testing.assert_allclose(report.accuracy, np.mean(guesses == labels), rtol=1e-6)


def test_report_counts_predictions_and_labels(problem):
    _, report = make(problem)(start(problem), *batch(problem))
    np.testing.assert_array_equal(report.label_counts, np.bincount(batch(problem)[1], minlength=3))
    assert report.prediction_counts.sum() == 8


def test_compiles_once(problem):
    model = problem.model._replace(apply=chex.assert_max_traces(problem.model.apply, n=1))
    step, state = make(problem._replace(model=model)), start(problem)
    for _ in range(3):
        state, _ = step(state, *batch(problem))
    assert state.step == 3
    assert state.model_state["num_calls"] == 3


def test_weak_types_in_the_state_compile_once(problem):
    def double(params, state, images, *, key, train):
        return images.reshape(8, 16)[:, :3] * params["dense"]["bias"], state * 2

    linear = problem.model
    model = Model(lambda key, images: (linear.init(key, images)[0], 1.0), chex.assert_max_traces(double, n=1))
    problem = problem._replace(model=model)
    step, state = make(problem), start(problem)
    for _ in range(2):
        state, _ = step(state, *batch(problem))
    assert state.model_state == 4.0


def test_same_parts_give_the_same_step(problem):
    assert make(problem, probes={"loss": float}) is make(problem, probes=(("loss", float),))


def test_parts_that_cannot_be_hashed_still_train(problem):
    class Loss:
        __hash__ = None

        def __call__(self, logits, labels):
            return problem.loss(logits, labels)

    _, report = make(problem._replace(loss=Loss()))(start(problem), *batch(problem))
    assert np.isfinite(report.loss)


def test_seeds_train_side_by_side(problem):
    keys = jax.random.split(jax.random.key(0), 3)
    states = jax.vmap(lambda key: init_state(problem, key, problem.train.images))(keys)
    after, report = jax.vmap(make(problem), in_axes=(0, None, None))(states, *batch(problem))
    alone, _ = make(problem)(init_state(problem, keys[1], problem.train.images), *batch(problem))
    chex.assert_trees_all_close(jax.tree.map(lambda x: x[1], after.params), alone.params, rtol=1e-5, atol=1e-6)
    assert report.loss.shape == (3,)


def test_state_is_donated(problem):
    state = start(problem)
    make(problem)(state, *batch(problem))
    assert state.params["dense"]["kernel"].is_deleted()


def test_state_shares_no_array_with_the_model(problem):
    params = problem.model.init(jax.random.key(0), problem.train.images)[0]
    same = problem._replace(
        model=problem.model._replace(init=lambda k, x: (params, {"num_calls": params["dense"]["bias"]}))
    )
    state = start(same)
    same.model.apply(*state[:2], problem.train.images, key=state.key, train=True)
    make(same)(state, *batch(problem))
    assert not params["dense"]["kernel"].is_deleted()


def test_optimizer_state_that_holds_the_parameters_is_copied(problem):
    keeper = optax.GradientTransformation(lambda params: params, lambda g, s, p: (g, p))
    state, _ = make(problem._replace(optimizer=keeper))(start(problem._replace(optimizer=keeper)), *batch(problem))
    assert state.step == 1


def test_initialisation_sees_one_batch(problem):
    seen = []
    model = problem.model._replace(init=lambda k, x: (seen.append(x.shape), problem.model.init(k, x))[1])
    start(problem._replace(model=model))
    assert seen == [(8, 4, 4, 1)]


def test_probes_see_the_step(problem):
    probes = {
        "ratio": lambda seen: optax.tree.norm(seen.updates) / optax.tree.norm(seen.params),
        "images": lambda seen: jnp.sum(seen.images),
    }
    state = start(problem)
    before = jax.tree.map(np.array, state.params)
    state, report = make(problem, probes=probes)(state, *batch(problem))
    moved = optax.tree.norm(jax.tree.map(jnp.subtract, state.params, before))
    np.testing.assert_allclose(report.probes["ratio"], moved / optax.tree.norm(before), rtol=1e-4)
    np.testing.assert_allclose(report.probes["images"], batch(problem)[0].sum(), rtol=1e-5)


def test_probes_do_not_change_training(problem):
    bare, _ = make(problem)(start(problem), *batch(problem))
    probed, _ = make(problem, probes={"norm": lambda seen: optax.tree.norm(seen.grads)})(
        start(problem), *batch(problem)
    )
    chex.assert_trees_all_equal(bare.params, probed.params)


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_non_finite_values_flow_on(problem, value):
    images, labels = batch(problem)
    _, report = make(problem)(start(problem), np.full_like(images, value), labels)
    assert np.isnan(report.loss)


def test_optimizer_that_wants_the_value_gets_it(problem):
    optimizer = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau())
    problem = problem._replace(optimizer=optimizer)
    state, report = make(problem)(start(problem), *batch(problem))
    assert state.opt_state[1].best_value == report.loss


def test_optimizer_that_wants_the_parameters_gets_them(problem):
    problem = problem._replace(optimizer=optax.chain(optax.add_decayed_weights(1.0), optax.scale(-1.0)))
    state = start(problem)
    kernel = np.array(state.params["dense"]["kernel"])
    _, report = make(problem, probes={"u": lambda seen: (seen.updates, seen.grads)})(state, *batch(problem))
    updates, grads = (tree["dense"]["kernel"] for tree in report.probes["u"])
    np.testing.assert_allclose(updates, -grads - kernel, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (lambda z, y: optax.softmax_cross_entropy_with_integer_labels(z, y), r"float32 of shape \(8,\)"),
        (lambda z, y: z.sum(keepdims=True), r"float32 of shape \(1, 1\)"),
        (lambda z, y: (z.mean(), z), "a tuple of 2"),
        (lambda z, y: jnp.sum(z > 0), r"int32 of shape \(\)"),
        (lambda z, y: None, "NoneType"),
    ],
)
def test_loss_that_is_no_scalar_is_refused(problem, loss, found):
    with pytest.raises(ValueError, match=f"loss must return a real scalar, got {found}"):
        make(problem._replace(loss=loss))(start(problem), *batch(problem))


def test_constant_loss_trains_nothing(problem):
    problem = problem._replace(loss=lambda z, y: 1.5)
    _, report = make(problem, probes={"norm": lambda seen: optax.tree.norm(seen.grads)})(
        start(problem), *batch(problem)
    )
    assert report.loss == 1.5
    assert report.probes["norm"] == 0.0


def test_integer_parameters_are_refused(problem):
    model = problem.model._replace(init=lambda k, x: ({"head": {"ids": jnp.arange(3)}}, {}))
    with pytest.raises(ValueError, match="params must be floating-point arrays to be trained, got int32 at head/ids"):
        start(problem._replace(model=model))


def test_model_that_returns_outputs_alone_is_refused(problem):
    model = problem.model._replace(apply=lambda p, s, x, *, key, train: jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"model.apply must return \(outputs, state\), got float32 of shape \(2, 3\)"):
        run_model(model, {}, {}, jnp.zeros((2, 4)), key=jax.random.key(0), train=True)


def test_labels_that_are_no_classes_have_no_accuracy(problem):
    images, _ = batch(problem)
    problem = problem._replace(loss=lambda z, y: jnp.mean(jnp.square(z[:, None] - y)))
    _, report = make(problem)(start(problem), images, np.zeros((8, 2, 3)))
    assert np.isnan(report.accuracy)
    assert report.label_counts.sum() == 0
