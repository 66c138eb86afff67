"""Models changed without their source do what the changed source would do."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnprobe.tracing.calls import trace_call
from cnnprobe.tracing.layers import find_structure
from cnnprobe.tracing.surgery import (
    change_last_inputs,
    drop_output_activation,
    feed_first_layer,
    first_layer_inputs,
    insert_activation,
    keep_gradients,
    last_layer_inputs,
    log_output_softmax,
    replace_activation,
    set_dropout_rate,
)

from .networks import IMAGES, LinenNet, NnxNet, assert_trees_equal, linen_arguments, plain_outputs, plain_params

KEY = jax.random.key(5)
NET_KERNELS = ("first", "second", "last")
X = jax.random.normal(jax.random.key(6), (40, 50))


@pytest.fixture(params=[lambda fn: fn, jax.jit], ids=["eager", "jit"])
def variant(request):
    return request.param


# --- dropout: (fn(key, x) with rate 0.3, so that what is kept is x / 0.7) ------------------------------------------


def linen_dropout(key, x):
    return nn.Dropout(0.3, deterministic=False).apply({}, x, rngs={"dropout": key})


def nnx_dropout(key, x):
    return nnx.Dropout(0.3, deterministic=False, rngs=nnx.Rngs(dropout=key))(x)


def where_dropout(key, x):
    return jnp.where(jax.random.bernoulli(key, 0.7, x.shape), x / 0.7, 0)


def uniform_dropout(key, x):
    return jnp.where(jax.random.uniform(key, x.shape) < 0.3, 0.0, x * (1 / 0.7))


def mask_dropout(key, x):
    return x * (jax.random.uniform(key, x.shape) > 0.3).astype(x.dtype) / 0.7


def scaled_mask_dropout(key, x):
    return x * (jax.random.bernoulli(key, 0.7, x.shape) / 0.7)


def channel_dropout(key, x):
    return jnp.where(jax.random.bernoulli(key, 0.7, (len(x), 1)), x / 0.7, 0)


def remat_dropout(key, x):
    return jax.checkpoint(where_dropout)(key, x)


DROPOUTS = [
    linen_dropout,
    nnx_dropout,
    where_dropout,
    uniform_dropout,
    mask_dropout,
    scaled_mask_dropout,
    channel_dropout,
    remat_dropout,
]


@pytest.mark.parametrize("fn", DROPOUTS)
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.8])
def test_dropout_rate_is_set(fn, rate):
    out = np.asarray(jax.jit(set_dropout_rate(fn, rate))(KEY, X))
    spread = 0.25 if fn is channel_dropout else 0.04
    assert np.mean(out == 0) == pytest.approx(rate, abs=spread if rate else 0)
    np.testing.assert_allclose(out[out != 0], (np.asarray(X) / (1 - rate))[out != 0], rtol=1e-5)


@pytest.mark.parametrize("fn", DROPOUTS)
def test_dropout_rate_as_a_function_of_the_old_one(fn):
    seen = []
    same = set_dropout_rate(fn, lambda rate: seen.append(rate) or rate)(KEY, X)
    assert seen == [pytest.approx(0.3)]
    np.testing.assert_allclose(same, fn(KEY, X), rtol=1e-6)


def test_dropout_rate_of_a_model_in_training(variant):
    params, batch_stats, images, _, key = linen_arguments()

    def apply(params, state, images, *, key, train):
        variables = {"params": params, "batch_stats": state}
        return LinenNet().apply(variables, images, train, mutable=["batch_stats"], rngs={"dropout": key})[0]

    def fixed(images):
        return set_dropout_rate(apply, 0.0)(params, batch_stats, images, key=key, train=True)

    first = variant(fixed)(images)
    other = set_dropout_rate(apply, 0.0)(params, batch_stats, images, key=jax.random.key(9), train=True)
    np.testing.assert_allclose(first, other, rtol=1e-4, atol=1e-5)


def test_dropout_gradient():
    gradient = jax.grad(lambda x: jnp.sum(set_dropout_rate(linen_dropout, 0.5)(KEY, x)))(X)
    assert set(np.unique(np.asarray(gradient))) == {0.0, 2.0}


def test_without_dropout_nothing_changes():
    np.testing.assert_array_equal(
        set_dropout_rate(lambda x: jnp.where(x > 0.5, x / 0.5, 0), 0.1)(X), jnp.where(X > 0.5, 2 * X, 0)
    )


def test_random_flip_is_no_dropout():
    def flip(key, x):
        return jnp.where(jax.random.bernoulli(key, 0.5, (len(x), 1)), x[:, ::-1], x)

    np.testing.assert_array_equal(set_dropout_rate(flip, 0.0)(KEY, X), flip(KEY, X))


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2])
def test_rate_out_of_range(rate):
    with pytest.raises(ValueError, match=rf"rate must be in \[0, 1\), got {rate}"):
        set_dropout_rate(linen_dropout, rate)


# --- output activation -------------------------------------------------------------------------------------------

ENDINGS = {
    "softmax": jax.nn.softmax,
    "log_softmax": jax.nn.log_softmax,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "hand-written sigmoid": lambda x: 1 / (1 + jnp.exp(-x)),
    "hand-written softmax": lambda x: jnp.exp(x) / jnp.sum(jnp.exp(x), -1, keepdims=True),
    "remat": jax.checkpoint(jax.nn.softmax),
    "cast": lambda x: jax.nn.softmax(x.astype(jnp.float16)).astype(jnp.float32),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_output_activation_is_dropped(ending):
    logits = 3 * X[:, :4]
    got = jax.jit(drop_output_activation(lambda x: (ENDINGS[ending](2 * x), {"state": x})))(logits / 2)
    np.testing.assert_allclose(got[0], logits, rtol=2e-3)


def test_only_the_outer_of_two_softmaxes_is_dropped():
    got = drop_output_activation(lambda x: jax.nn.softmax(jax.nn.softmax(x)))(X)
    np.testing.assert_allclose(got, jax.nn.softmax(X), rtol=1e-6)


def test_gradient_of_the_logits():
    gradient = jax.grad(lambda x: drop_output_activation(jax.nn.softmax)(x)[:, 0].sum())(X)
    np.testing.assert_array_equal(gradient, np.eye(50)[np.zeros(40, int)])


@pytest.mark.parametrize("fn", [lambda x: 2 * x, lambda x: x, lambda x: jax.nn.relu(x) + 1])
def test_no_output_activation(fn):
    with pytest.raises(ValueError, match="fn must end in an activation to drop, got a function that ends in"):
        drop_output_activation(fn)(X)


LOGS = {
    "softmax": (jax.nn.softmax, jax.nn.log_softmax),
    "over the first axis": (lambda x: jax.nn.softmax(x, 0), lambda x: jax.nn.log_softmax(x, 0)),
    "sigmoid": (jax.nn.sigmoid, jax.nn.log_sigmoid),
    "hand-written": (ENDINGS["hand-written softmax"], jax.nn.log_softmax),
    "remat": (ENDINGS["remat"], jax.nn.log_softmax),
    "jit": (jax.jit(jax.nn.softmax), jax.nn.log_softmax),
}


@pytest.mark.parametrize("ending", LOGS)
def test_output_softmax_is_logged(ending, variant):
    probabilities, log_probabilities = LOGS[ending]

    def loss(end, change):
        return lambda w: (change(lambda w, x: end(x @ w))(w, X) * X[:, :4]).sum()

    w = X[:, :4].T @ X @ X.T @ X[:, :4] / 100
    got = variant(jax.value_and_grad(loss(probabilities, log_output_softmax)))(jnp.concatenate([w] * 13)[:50])
    expected = jax.value_and_grad(loss(log_probabilities, lambda fn: fn))(jnp.concatenate([w] * 13)[:50])
    assert_trees_equal(got, expected, rtol=1e-4)


def test_logged_softmax_keeps_the_gradient_of_an_impossible_class():
    gradient = jax.grad(lambda x: log_output_softmax(jax.nn.softmax)(x)[1])(jnp.array([200.0, -200.0]))
    np.testing.assert_allclose(gradient, [-1, 1])


@pytest.mark.parametrize(("ending", "got"), [(jnp.tanh, "tanh"), (jax.nn.log_softmax, "log_softmax"), (jnp.sin, "sin")])
def test_no_output_softmax(ending, got):
    with pytest.raises(ValueError, match=f"must end in a softmax or a sigmoid, got a function that ends in {got}"):
        log_output_softmax(ending)(X)


# --- the others --------------------------------------------------------------------------------------------------


def test_stop_gradient_is_cut():
    def fn(w, x):
        return jnp.sum(jax.nn.softmax(jax.lax.stop_gradient(jnp.tanh(x @ w["a"])) @ w["b"])[:, 0])

    w = {"a": jnp.eye(50)[:, :5] * 0.1, "b": jnp.ones((5, 3)).at[0, 0].set(2.0)}
    without = jax.grad(lambda w, x: jnp.sum(jax.nn.softmax(jnp.tanh(x @ w["a"]) @ w["b"])[:, 0]))(w, X)
    np.testing.assert_allclose(jax.grad(keep_gradients(fn))(w, X)["a"], without["a"], rtol=1e-5)


STOPPED = {
    "jit": lambda fn: jax.jit(jax.jit(fn)),
    "remat": jax.checkpoint,
    "cond": lambda fn: lambda w, x: jax.lax.cond(x.sum() < 1e9, fn, fn, w, x),
    "scan": lambda fn: lambda w, x: jax.lax.scan(lambda x, _: (fn(w, x), None), x, length=2)[0],
    "vmap": lambda fn: jax.vmap(fn, in_axes=(None, 0)),
}


@pytest.mark.parametrize("wrap", STOPPED)
def test_stop_gradient_is_cut_inside(wrap, variant):
    def loss(stop):
        return lambda w: STOPPED[wrap](lambda w, x: jnp.tanh(stop(jnp.tanh(x @ w)) @ stop(w)))(w, X[:, :5]).sum()

    w = X[:5, :5]
    got = variant(jax.value_and_grad(keep_gradients(loss(jax.lax.stop_gradient))))(w)
    assert_trees_equal(got, jax.value_and_grad(loss(lambda x: x))(w), rtol=1e-4)


def test_straight_through_estimator_keeps_its_gradient():
    def rounded(x):
        return jnp.sum(x + jax.lax.stop_gradient(jnp.round(x) - x))

    assert jnp.all(jax.grad(keep_gradients(rounded))(X) == 1)


def test_last_layer_inputs(variant):
    params = plain_params()

    def fn(params, x):
        return plain_outputs(params, x)["head"]

    out, features = variant(last_layer_inputs(fn))(params, IMAGES)
    expected = plain_outputs(params, IMAGES)["conv2"].reshape(len(IMAGES), -1)
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out, fn(params, IMAGES), rtol=1e-5, atol=1e-6)


def test_last_layer_inputs_of_an_nnx_model():
    graph, params, state = nnx.split(NnxNet(nnx.Rngs(0)), nnx.Param, ...)
    _, features = last_layer_inputs(lambda p, s, x: nnx.merge(graph, p, s)(x))(params, state, IMAGES)
    assert features.shape == (6, 5)


@pytest.mark.parametrize(
    ("fn", "got"),
    [
        (lambda w, x: x, "got no layer"),
        (lambda w, x: jax.lax.fori_loop(0, 3, lambda _, x: x @ w, x), "got params, which is in a loop or branch"),
    ],
)
def test_last_layer_that_cannot_be_read(fn, got):
    with pytest.raises(ValueError, match=got):
        last_layer_inputs(fn)(jnp.eye(50), X)


def test_activation_is_replaced(variant):
    def net(activation):
        return lambda w, x: activation(x @ w) @ w

    w = X[:, :40].T @ X[:, :40] / 40
    got = variant(jax.grad(lambda w, x: replace_activation(net(jax.nn.relu), "relu", jnp.tanh)(w, x).sum()))(
        w, X[:, :40]
    )
    np.testing.assert_allclose(
        got, jax.grad(lambda w, x: net(jnp.tanh)(w, x).sum())(w, X[:, :40]), rtol=1e-4, atol=1e-4
    )


def test_activation_inside_a_loop_is_replaced():
    def net(activation):
        return lambda w, x: jax.lax.scan(lambda x, w: (activation(x @ w), None), x, w)[0]

    w = jnp.stack([jnp.eye(50), -jnp.eye(50)])
    np.testing.assert_allclose(
        replace_activation(net(jax.nn.relu), "relu", jnp.tanh)(w, X), net(jnp.tanh)(w, X), rtol=1e-6
    )


def test_an_activation_is_inserted_behind_the_shift_of_all_layers_but_the_last(variant):
    def net(activation):
        def outputs(params, x):
            hidden = x @ params["first"]
            hidden = activation((hidden - hidden.mean(0)) / hidden.std(0) + params["shift"])
            return activation(hidden @ params["second"]) @ params["last"]

        return outputs

    params = {name: jax.random.normal(jax.random.fold_in(KEY, i), (50, 50)) for i, name in enumerate(NET_KERNELS)}
    params["shift"] = jnp.ones(50)
    bent = variant(insert_activation(net(lambda x: x), jnp.tanh))
    np.testing.assert_allclose(bent(params, X), net(jnp.tanh)(params, X), rtol=1e-4, atol=1e-4)


def test_an_activation_is_inserted_behind_named_layers_alone():
    def net(activation):
        return lambda params, x: activation(x @ params["first"]) @ params["second"] @ params["last"]

    params = {name: jnp.eye(50) for name in NET_KERNELS}
    bent = insert_activation(net(lambda x: x), jnp.tanh, ["first"])
    np.testing.assert_allclose(bent(params, X), net(jnp.tanh)(params, X), rtol=1e-6)
    with pytest.raises(ValueError, match=r"names must be layers of fn, got \['third'\]"):
        insert_activation(net(jnp.tanh), jnp.tanh, ["third"])(params, X)


def test_every_activation_is_replaced_without_a_name():
    def net(first, second):
        return lambda params, x: second(first(x @ params["first"]) @ params["second"]) @ params["last"]

    params = {name: jax.random.normal(jax.random.fold_in(KEY, i), (50, 50)) for i, name in enumerate(NET_KERNELS)}
    linear = replace_activation(net(jnp.tanh, jax.nn.gelu), None, lambda x: x)
    np.testing.assert_allclose(linear(params, X), net(lambda x: x, lambda x: x)(params, X), rtol=1e-3, atol=1e-3)


def test_the_last_layer_is_applied_to_other_features(variant):
    def net(params, x):
        return jnp.tanh(x @ params["first"]) @ params["last"] + params["bias"]

    params = {name: jax.random.normal(jax.random.fold_in(KEY, i), (50, 50)) for i, name in enumerate(NET_KERNELS)}
    params["bias"] = jnp.arange(50.0)
    halved = variant(change_last_inputs(net, lambda features: features / 2))(params, X)
    np.testing.assert_allclose(halved, (net(params, X) + params["bias"]) / 2, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="fn must end in a layer outside loops and branches, got no layer"):
        change_last_inputs(lambda w, x: x, jnp.tanh)(params["last"], X)
    with pytest.raises(ValueError, match=r"fn must compute what its last layer is applied to, got .* on an argument"):
        change_last_inputs(lambda w, x: x @ w, jnp.tanh)(params["last"], X)


def test_a_layer_that_is_applied_to_other_features_stays_one_layer():
    changed = change_last_inputs(lambda w, x: jnp.tanh(x) @ w, lambda features: features / 2)
    call = trace_call(changed, (jnp.eye(50), X), {}, [0])
    assert len(find_structure(call.program, call.origins).layers) == 1


def test_first_layer_inputs_are_the_images_as_the_model_prepares_them(variant):
    fed = variant(first_layer_inputs(lambda w, x: jax.nn.relu((x / 255 - 0.5) @ w) @ w))
    np.testing.assert_allclose(fed(jnp.eye(50), X), X / 255 - 0.5, rtol=1e-5)


def test_the_first_layer_is_fed_something_else_and_with_it_what_reads_the_same(variant):
    def net(params, x):
        fed = x / 255 - 0.5
        return fed @ params["first"] + jnp.tanh(fed @ params["second"]) @ params["last"] + jnp.mean(fed)

    params = {name: jax.random.normal(jax.random.fold_in(KEY, i), (50, 50)) for i, name in enumerate(NET_KERNELS)}
    fed = jnp.cos(X)
    expected = fed @ params["first"] + jnp.tanh(fed @ params["second"]) @ params["last"] + jnp.mean(X / 255 - 0.5)
    np.testing.assert_allclose(variant(feed_first_layer(net, fed))(params, X), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="fed must have the shape of what the first layer is applied to"):
        feed_first_layer(net, fed[:1])(params, X)


def test_no_first_layer():
    with pytest.raises(ValueError, match="fn must start with a layer outside loops and branches, got no layer"):
        first_layer_inputs(lambda w, x: x)(jnp.eye(50), X)


def test_no_such_activation():
    with pytest.raises(ValueError, match=r"name must be an activation behind a layer, got 'elu'; found: \['tanh'\]"):
        replace_activation(lambda w, x: jnp.tanh(x @ w), "elu", jax.nn.relu)(jnp.eye(50), X)


@pytest.mark.parametrize("change", [drop_output_activation, keep_gradients, last_layer_inputs, log_output_softmax])
def test_not_a_function(change):
    with pytest.raises(ValueError, match="fn must be a function, got 'x'"):
        change("x")
