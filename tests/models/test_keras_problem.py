import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from keras import layers

from cnnprobe.doctor import remedies
from cnnprobe.models.keras_problem import problem_from_keras
from cnnprobe.tracing.graph import model_graph
from cnnprobe.training.evaluate import evaluate
from cnnprobe.training.fit import fit
from cnnprobe.training.step import init_state, make_train_step
from cnnprobe.training.validate import check_problem
from cnnprobe.trees import per_layer
from cnnprobe.types import Dataset

SIZE = 16
RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (3 * SIZE, 6, 6, 1)).astype(np.uint8)
Y = np.arange(3 * SIZE) % 3
ONE_HOT = np.eye(3, dtype=np.float32)[Y]
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(*, last="softmax", units=3, rate=0.0, regularizer=None, **settings):
    """A small network as Keras users write it; Keras draws its parameters from a seed of its own."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, activation="relu", kernel_regularizer=regularizer, name="conv"),
            layers.Flatten(),
            layers.Dropout(rate),
            layers.Dense(units, activation=last, name="head"),
        ]
    )
    defaults = {"optimizer": "adam", "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
    model.compile(**{**defaults, **settings})
    return model


def schedule():
    return keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)


def one_step(problem):
    """Parameters after one step of a problem, and its report."""
    step = make_train_step(problem.model, problem.loss, problem.optimizer, num_classes=3, predict=problem.predict)
    state = init_state(problem, jax.random.key(0), problem.train.images[:SIZE])
    return step(state, problem.train.images[:SIZE], problem.train.labels[:SIZE])


def first_outputs(problem):
    params, state = problem.model.init(jax.random.key(0), X[:SIZE])
    apply = jax.jit(lambda p: problem.model.apply(p, state, X[:SIZE], key=jax.random.key(0), train=False)[0])
    return apply(params)


LOSSES = {
    "name": (lambda: compiled(), Y),
    "column": (lambda: compiled(), Y[:, None]),
    "one-hot": (lambda: compiled(loss="categorical_crossentropy"), ONE_HOT),
    "logits": (lambda: compiled(last=None, loss=LOGITS), Y),
    "function": (lambda: compiled(loss=lambda y, p: keras.ops.mean((y - p) ** 2, axis=-1)), ONE_HOT),
    "guessed, weighted": (lambda: compiled(loss="crossentropy", loss_weights=[0.5]), Y),
    "regularised": (lambda: compiled(regularizer="l2", last=None, loss=LOGITS), Y),
    "one unit": (lambda: compiled(last="sigmoid", units=1, loss="binary_crossentropy"), (Y > 0).astype(np.float32)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_is_that_of_evaluate(name):
    make, labels = LOSSES[name]
    model = make()
    problem = problem_from_keras(model, X, labels)
    expected = model.evaluate(X[:SIZE], labels[:SIZE], batch_size=SIZE, verbose=0, return_dict=True)["loss"]
    assert float(problem.loss(first_outputs(problem), labels[:SIZE])) == pytest.approx(expected, rel=1e-5)


OPTIMIZERS = {
    "weight decay, loss scale": lambda: keras.optimizers.AdamW(1e-2, weight_decay=0.1, loss_scale_factor=8.0),
    "schedule, clipping": lambda: keras.optimizers.SGD(schedule(), momentum=0.9, nesterov=True, clipnorm=0.1),
    "accumulation": lambda: keras.optimizers.RMSprop(1e-2, gradient_accumulation_steps=2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_after_an_epoch_are_those_of_fit(name):
    model = compiled(optimizer=OPTIMIZERS[name](), regularizer="l2")
    problem = problem_from_keras(model, X, Y, batch_size=SIZE, shuffle=False)
    params = per_layer(np.asarray, fit(problem, progress=False, probes={}).params)
    model.fit(X, Y, batch_size=SIZE, shuffle=False, verbose=0)
    np.testing.assert_allclose(params["conv/kernel"], model.get_layer("conv").kernel, atol=1e-6)
    np.testing.assert_allclose(params["head/kernel"], model.get_layer("head").kernel, atol=1e-6)


def test_class_weights_count_as_in_fit():
    weights = {0: 5.0, 2: 0.5}
    model = compiled()
    problem = problem_from_keras(model, X, Y, class_weight=weights, batch_size=SIZE)
    value = float(problem.loss(first_outputs(problem), Y[:SIZE]))
    assert value == pytest.approx(
        model.train_on_batch(X[:SIZE], Y[:SIZE], class_weight=weights, return_dict=True)["loss"], rel=1e-5
    )


def test_settings_are_those_of_fit():
    model = compiled()
    problem = problem_from_keras(model, X, Y, validation_split=0.25, batch_size=8, epochs=3, shuffle=False, seed=4)
    check_problem(problem)
    assert (problem.batch_size, problem.num_epochs, problem.shuffle, problem.seed) == (8, 3, False, 4)
    np.testing.assert_array_equal(problem.valid.images, X[36:])


def test_validation_data_are_evaluated_by_the_models_own_metric():
    model = compiled(
        last="sigmoid", units=1, loss="binary_crossentropy", metrics=[keras.metrics.BinaryAccuracy(threshold=0.9)]
    )
    y = (Y > 0).astype(np.int32)
    problem = problem_from_keras(model, X, y, validation_data=(X[:20], y[:20]))
    seen = evaluate(problem, *problem.model.init(jax.random.key(0), X[:20]), problem.valid)
    _, accuracy = model.evaluate(X[:20], y[:20], verbose=0)
    assert seen.accuracy == pytest.approx(accuracy, abs=1e-6)
    assert problem.predict(jnp.array([[0.95], [0.6]])).tolist() == [1, 0]


def test_a_class_without_examples_is_counted():
    model = compiled(units=5)
    assert problem_from_keras(model, X, np.where(Y == 2, 4, Y)).num_classes == 5
    assert problem_from_keras(model, X, Y).num_classes is None


def test_frozen_layers_stay_frozen():
    model = compiled()
    model.get_layer("conv").trainable = False
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    state, _ = one_step(problem_from_keras(model, X, Y, batch_size=SIZE))
    assert list(state.params) == ["head"]


def test_mixed_precision_trains():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    model = compiled()
    keras.config.set_dtype_policy(policy)
    state, report = one_step(problem_from_keras(model, X, Y, batch_size=SIZE))
    assert np.isfinite(report.loss)
    assert not np.array_equal(state.params["head"]["kernel"], model.get_layer("head").kernel)


REMEDIES = {
    "step": remedies.scale_updates(0.1),
    "loss": remedies.use_cross_entropy,
    "softmax": remedies.remove_output_activation,
    "dropout": remedies.thin_dropout(0.1),
    "head": remedies.add_head(3),
}


@pytest.mark.parametrize("name", REMEDIES)
def test_remedies_run(name):
    problem = problem_from_keras(compiled(rate=0.5, regularizer="l2"), X, Y, batch_size=SIZE)
    state, report = one_step(REMEDIES[name](problem))
    assert np.isfinite(report.loss)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(state.params))


def test_dropout_is_found_in_the_trace():
    problem = problem_from_keras(compiled(rate=0.5), X, Y)
    params, state = problem.model.init(jax.random.key(0), X)
    run = lambda p: problem.model.apply(p, state, X[:2], key=jax.random.key(0), train=True)[0]  # noqa: E731
    assert model_graph(run, params).dropout_rates == (0.5,)


def test_log_of_the_outputs_leaves_the_penalty_alone():
    problem = problem_from_keras(compiled(regularizer="l2"), X, Y)
    outputs, seen = first_outputs(problem), []
    remedies.map_outputs(remedies.log_of)(problem._replace(loss=lambda out, _: seen.append(out))).loss(outputs, Y)
    assert seen[0].penalty is outputs.penalty


def test_trained_model_is_warned_of():
    model = compiled()
    model.fit(X, Y, batch_size=SIZE, verbose=0)
    with pytest.warns(UserWarning, match="trained for 3 steps"):
        problem_from_keras(model, X, Y)


class Own(keras.Sequential):
    def train_step(self, state, data):
        return super().train_step(state, data)


BAD = {
    "model must be compiled": lambda: problem_from_keras(keras.Sequential([layers.Dense(3)]), X, Y),
    "overrides train_step": lambda: problem_from_keras(own(), X, Y),
    "must be compiled again": lambda: problem_from_keras(thawed(), X, Y),
    "x must be one array of numbers, got a list of 2": lambda: problem_from_keras(compiled(), [X, X], Y),
    "y must be one array of numbers, got a generator": lambda: problem_from_keras(compiled(), X, (i for i in Y)),
    "x and y must have as many rows": lambda: problem_from_keras(compiled(), X, Y[:-1]),
    "validation_data must be a pair": lambda: problem_from_keras(compiled(), X, Y, validation_data=(X, Y, Y)),
    r"validation_split must be in \[0, 1\), got 1.5": lambda: problem_from_keras(
        compiled(), X, Y, validation_split=1.5
    ),
    "epochs must be a whole number of at least 1, got 0": lambda: problem_from_keras(compiled(), X, Y, epochs=0),
}


def own():
    model = Own([layers.Flatten(), layers.Dense(3)])
    model.compile(loss="mse")
    return model


def thawed():
    model = compiled()
    model.optimizer.build(model.trainable_variables)
    model.get_layer("conv").trainable = False
    return model


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_read_is_refused(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()


def test_function_is_called_for_a_fresh_model():
    problem = problem_from_keras(compiled, X, Y)
    assert isinstance(problem.train, Dataset)
    assert problem.model.init(jax.random.key(0), X)[0]["conv"]["kernel"].shape == (3, 3, 1, 4)
