"""Readings are right and the function is unchanged."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from cnnprobe.tracing.readings import layer_stats, merge_readings, unit_stats
from cnnprobe.tracing.taps import tap, value_and_grad

from .networks import (
    IMAGES,
    LABELS,
    assert_trees_equal,
    cross_entropy,
    linen_arguments,
    linen_loss,
    nnx_parts,
    plain_loss,
    plain_outputs,
    plain_params,
    reference,
)


@pytest.fixture(params=[lambda fn: fn, jax.jit], ids=["eager", "jit"])
def variant(request):
    return request.param


@pytest.mark.parametrize("name", ["conv1", "conv2", "head"])
def test_forward_readings_match_the_definition(variant, name):
    params = plain_params()
    _, readings = variant(tap(plain_loss))(params)
    mean, std, maximum, _ = reference(plain_outputs(params, IMAGES)[name])
    units = unit_stats(readings)[name]
    np.testing.assert_allclose(np.stack(units[1:4]), np.stack([mean, std, maximum]), rtol=1e-4, atol=1e-6)


def test_layer_statistics_match_the_definition():
    params = plain_params()
    stats = layer_stats(tap(plain_loss)(params)[1])["conv1"]
    x = np.asarray(plain_outputs(params, IMAGES)["conv1"], np.float64)
    expected = (x.mean(), x.std(), x.max(), (x == 0).mean(), x.size)
    got = (stats.mean, stats.std, stats.max, stats.zero_share, stats.num_activations)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["conv1", "conv2", "head"])
def test_activation_gradients_match_explicit_perturbations(variant, name):
    params = plain_params()
    offsets = jax.tree.map(jnp.zeros_like, plain_outputs(params, IMAGES))
    gradient = jax.grad(lambda offsets: cross_entropy(plain_outputs(params, IMAGES, offsets)["head"], LABELS))(offsets)
    readings = variant(value_and_grad(plain_loss))(params)[2]
    expected = np.sqrt(
        np.mean(np.square(np.asarray(gradient[name], np.float64)), axis=tuple(range(gradient[name].ndim - 1)))
    )
    np.testing.assert_allclose(unit_stats(readings)[name].gradient_rms, expected, rtol=1e-4)


def test_a_dead_unit_is_counted():
    params = plain_params()
    params["conv1"]["b"] = params["conv1"]["b"].at[2].set(-100.0)
    stats = layer_stats(value_and_grad(plain_loss)(params)[2])
    assert stats["conv1"].dead_share == pytest.approx(1 / 5)
    assert stats["conv1"].no_gradient_share == 0  # the gradient by an activation does not pass through its own ReLU


@pytest.mark.parametrize("backward", [True, False])
def test_plain_value_and_gradient_are_unchanged(variant, backward):
    params = plain_params()
    value, grads, _ = variant(value_and_grad(plain_loss, backward=backward))(params, IMAGES, labels=LABELS)
    assert_trees_equal((value, grads), variant(jax.value_and_grad(plain_loss))(params, IMAGES, labels=LABELS))


def test_operation_by_operation_nothing_changes_in_the_last_bit():
    def loss(w, x):
        return jnp.sum(jnp.tanh(jax.nn.relu(x @ w) @ w))

    w, x = np.random.default_rng(0).standard_normal((2, 5, 5), np.float32)
    with jax.disable_jit():  # else XLA fuses what stands inside `jit` and what is inlined differently
        got, bare = (transform(loss)(w, x) for transform in (value_and_grad, jax.value_and_grad))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, got[:2], bare))


def test_linen_value_aux_and_gradient_are_unchanged(variant):
    arguments = linen_arguments()
    got = variant(value_and_grad(linen_loss, has_aux=True))(*arguments)
    assert_trees_equal(got[:2], variant(jax.value_and_grad(linen_loss, has_aux=True))(*arguments), rtol=1e-5)


def test_nnx_value_aux_and_gradient_are_unchanged(variant):
    loss, *parts = nnx_parts()
    got = variant(value_and_grad(loss, has_aux=True))(*parts, IMAGES, LABELS)
    expected = variant(jax.value_and_grad(loss, has_aux=True))(*parts, IMAGES, LABELS)
    assert_trees_equal(got[:2], expected, rtol=1e-5)


def test_bfloat16_statistics_are_summed_in_float32():
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), plain_params())
    images = IMAGES.astype(jnp.bfloat16)
    value, grads, readings = jax.jit(value_and_grad(plain_loss))(params, images)
    expected = float(np.asarray(plain_outputs(params, images)["conv1"], np.float64).mean())
    assert (value.dtype, grads["head"]["w"].dtype) == (jnp.bfloat16, jnp.bfloat16)
    assert layer_stats(readings)["conv1"].mean == pytest.approx(expected, rel=1e-2)


def test_vmap_over_seeds_equals_a_loop():
    seeds = [plain_params(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    together = jax.jit(jax.vmap(value_and_grad(plain_loss)))(stacked)
    alone = [value_and_grad(plain_loss)(params) for params in seeds]
    assert_trees_equal(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone), rtol=1e-3)


def test_gradient_of_the_tapped_gradient():
    params = plain_params()
    bare = jax.grad(lambda p: sum(jnp.sum(g**2) for g in jax.tree.leaves(jax.grad(plain_loss)(p))))(params)
    tapped = jax.grad(lambda p: sum(jnp.sum(g**2) for g in jax.tree.leaves(value_and_grad(plain_loss)(p)[1])))(params)
    assert_trees_equal(tapped, bare, rtol=1e-4)


def test_several_and_later_argnums():
    params = plain_params()

    def loss(images, head, trunk):
        return plain_loss({"head": head, **trunk}, images)

    trunk = {name: params[name] for name in ("conv1", "conv2")}
    value, grads, readings = value_and_grad(loss, argnums=(1, -1))(IMAGES, params["head"], trunk)
    assert_trees_equal((value, grads), jax.value_and_grad(loss, argnums=(1, 2))(IMAGES, params["head"], trunk))
    assert list(layer_stats(readings)) == ["2/conv1", "2/conv2", "1"]


def test_what_is_no_array_stays_what_it_is():
    def loss(params, images, mode, *, scale, names):
        assert (mode, scale, names) == (True, 2.0, ["a"])
        return plain_loss(params, images) * scale

    value, _, _ = jax.jit(lambda p: value_and_grad(loss)(p, IMAGES, True, scale=2.0, names=["a"]))(plain_params())
    assert float(value) == pytest.approx(2 * float(plain_loss(plain_params())), rel=1e-6)


def test_aux_may_hold_what_is_no_array():
    (_, aux), _, _ = value_and_grad(lambda p: (plain_loss(p), {"name": "x", "n": 3}), has_aux=True)(plain_params())
    assert aux == {"name": "x", "n": 3}


def test_numpy_arguments_are_taken():
    params = jax.tree.map(np.asarray, plain_params())
    value, _, _ = value_and_grad(plain_loss)(params, np.asarray(IMAGES), np.asarray(LABELS, np.int64))
    assert float(value) == pytest.approx(float(plain_loss(plain_params())), rel=1e-6)


def test_compiles_once():
    step = jax.jit(chex.assert_max_traces(value_and_grad(linen_loss, has_aux=True), n=1))
    arguments = linen_arguments()
    first, second = step(*arguments), step(*arguments)
    assert_trees_equal(first, second)


def test_readings_are_one_float32_vector():
    readings = jax.jit(tap(plain_loss))(plain_params())[1]
    (leaf,) = jax.tree.leaves(readings)
    assert (leaf.dtype, leaf.ndim, leaf.size) == (jnp.float32, 1, readings.layout.size)


def test_readings_do_not_grow_with_the_batch():
    small, large = (tap(plain_loss)(plain_params(), IMAGES[:n], LABELS[:n])[1] for n in (2, 6))
    assert small.layout == large.layout


# --- read now and then -------------------------------------------------------------------------------------------

WHENS = {"python": lambda flag: flag, "numpy": np.bool_, "array": jnp.asarray}


@pytest.mark.parametrize("kind", WHENS)
def test_read_when_it_is_true(variant, kind):
    when, params = WHENS[kind](True), plain_params()
    got = variant(lambda params: value_and_grad(plain_loss, when=when)(params))(params)
    assert_trees_equal(got, variant(value_and_grad(plain_loss))(params), rtol=1e-5)


@pytest.mark.parametrize("kind", WHENS)
def test_not_read_when_it_is_false(variant, kind):
    when, params = WHENS[kind](False), plain_params()
    value, grads, readings = variant(lambda params: value_and_grad(plain_loss, when=when)(params))(params)
    assert_trees_equal((value, grads), variant(jax.value_and_grad(plain_loss))(params))
    assert all(stats.num_activations == 0 and np.isnan(stats[4:]).all() for stats in layer_stats(readings).values())


def test_readings_of_every_second_step_merge_to_those_alone():
    params = plain_params()
    step = jax.jit(lambda number: value_and_grad(plain_loss, when=number % 2 == 0)(params, IMAGES + number)[2])
    merged = functools.reduce(merge_readings, [step(number) for number in range(4)])
    alone = merge_readings(*(value_and_grad(plain_loss)(params, IMAGES + number)[2] for number in (0, 2)))
    np.testing.assert_allclose(merged.packed, alone.packed, rtol=1e-4, atol=1e-6)


def test_forward_tap_reads_when_it_is_true():
    step = jax.jit(lambda params, when: tap(plain_loss, when=when)(params)[1].packed)
    params = plain_params()
    np.testing.assert_allclose(step(params, True), tap(plain_loss)(params)[1].packed, rtol=1e-5)
    assert layer_stats(tap(plain_loss, when=False)(params)[1])["head"].num_activations == 0


def test_seeds_are_read_one_by_one():
    params = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), plain_params())
    readings = jax.vmap(lambda params, when: value_and_grad(plain_loss, when=when)(params)[2])(
        params, jnp.array([True, False])
    )
    first, second = (jax.tree.map(lambda leaf, index=index: leaf[index], readings) for index in (0, 1))
    assert layer_stats(first)["conv1"].num_activations > 0
    assert layer_stats(second)["conv1"].num_activations == 0


def test_a_step_that_is_not_read_runs_no_reduction_of_an_activation():
    text = jax.jit(lambda params, when: value_and_grad(plain_loss, when=when)(params)[2]).lower(plain_params(), True)
    assert text.as_text().count("stablehlo.case") == 2 * 3  # forward and backward of each layer


@pytest.mark.parametrize("when", [1, "yes", jnp.ones(2, bool), np.float32(1)])
@pytest.mark.parametrize("transform", [tap, value_and_grad])
def test_when_is_one_truth_value(transform, when):
    with pytest.raises(ValueError, match="when must be None or a boolean scalar, got"):
        transform(plain_loss, when=when)


# --- read on some examples ---------------------------------------------------------------------------------------


def test_some_examples_are_read_forward_as_alone(variant):
    params = plain_params()
    some = variant(lambda params: tap(plain_loss, num_examples=2)(params)[1])(params)
    np.testing.assert_allclose(some.packed, tap(plain_loss)(params, IMAGES[:2], LABELS[:2])[1].packed, rtol=1e-5)


def test_some_examples_are_read_backward_at_the_scale_of_the_whole_batch(variant):
    params = plain_params()
    some = unit_stats(variant(lambda params: value_and_grad(plain_loss, num_examples=2)(params)[2])(params))
    alone = unit_stats(value_and_grad(plain_loss)(params, IMAGES[:2], LABELS[:2])[2])  # its mean is over two
    for name, stats in some.items():
        np.testing.assert_allclose(stats.gradient_rms, alone[name].gradient_rms * 2 / len(IMAGES), rtol=1e-4)


@pytest.mark.parametrize("num_examples", [1, 3, len(IMAGES), len(IMAGES) + 1])
def test_loss_and_gradients_are_of_all_examples(num_examples):
    params = plain_params()
    value, grads, readings = jax.jit(value_and_grad(plain_loss, num_examples=num_examples))(params)
    assert_trees_equal((value, grads), jax.jit(jax.value_and_grad(plain_loss))(params))
    read, whole = (unit_stats(each)["head"].num_activations for each in (readings, tap(plain_loss)(params)[1]))
    assert read == min(num_examples, len(IMAGES)) / len(IMAGES) * whole


def test_the_axis_of_the_examples_is_the_first_that_is_not_of_the_units():
    channels_first = lambda w, x: jnp.sum(jnp.einsum("oi,bihw->obhw", w, x))  # noqa: E731
    w, x = jnp.eye(3), jnp.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    stats = unit_stats(tap(channels_first, num_examples=1)(w, x)[1])
    np.testing.assert_allclose(*[each.mean for each in stats.values()], np.mean(x[0], axis=(1, 2)))


@pytest.mark.parametrize("num_examples", [0, -1, 1.5, "all", True])
@pytest.mark.parametrize("transform", [tap, value_and_grad])
def test_number_of_examples_is_positive(transform, num_examples):
    with pytest.raises(ValueError, match="num_examples must be"):
        transform(plain_loss, num_examples=num_examples)


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", [tap, value_and_grad])
def test_not_a_function(transform):
    with pytest.raises(ValueError, match=r"fn must be a function, got 3"):
        transform(3)


def test_no_layers():
    with pytest.raises(ValueError, match=r"convolution or matrix product.*parameters: \['w'\]"):
        value_and_grad(lambda p, x: jnp.sum(p["w"] * x))({"w": jnp.ones(3)}, jnp.ones(3))


def test_parameters_that_are_closed_over():
    with pytest.raises(ValueError, match=r"got none; parameters: \['params'\]"):
        tap(lambda x: plain_outputs(plain_params(), x)["head"])(IMAGES)


@pytest.mark.parametrize(
    ("leaf", "got"),
    [
        (jnp.ones((3, 3), int), "int32 for extra"),
        (jax.random.key(0), "key<fry> for extra"),
        ("adam", "'adam' for extra"),
        (True, "True for extra"),
        (np.array([None]), "array.* for extra"),
    ],
)
def test_parameters_that_are_not_floating(leaf, got):
    with pytest.raises(ValueError, match=f"floating-point arrays, got {got}; what is not trained belongs in another"):
        value_and_grad(lambda p, x: jnp.sum(x @ p["w"]))({"w": jnp.ones((3, 3)), "extra": leaf}, jnp.ones((2, 3)))


def test_parameters_may_hold_functions_and_names_where_nothing_is_differentiated():
    params = {"w": jnp.eye(3), "activation": jnp.tanh, "name": "head"}
    out, readings = tap(lambda p, x: p["activation"](x @ p["w"]))(params, jnp.ones((2, 3)))
    assert (out.shape, readings.layout.layers[0].name) == ((2, 3), "w")


@pytest.mark.parametrize("loss", [lambda w, x: None, lambda w, x: (x @ w, None)[1]])
def test_loss_that_returns_nothing(loss):
    with pytest.raises(ValueError, match=r"loss_fn must return a floating-point scalar, got None|got a NoneType"):
        value_and_grad(loss)(jnp.ones((3, 3)), jnp.ones((2, 3)))


def test_function_that_returns_nothing():
    with pytest.raises(ValueError, match=r"fn must return at least one array, got {'logits': None}"):
        tap(lambda w, x: {"logits": (x @ w, None)[1]})(jnp.ones((3, 3)), jnp.ones((2, 3)))


@pytest.mark.parametrize(
    ("loss", "got"),
    [
        (lambda w, x: x @ w, r"shape \(2, 3\), float32"),
        (lambda w, x: (x @ w, 1.0)[1], "1.0"),
        (lambda w, x: jnp.sum(x @ w).astype(int), r"shape \(\), int32"),
        (lambda w, x: jnp.sum(x @ w) + 0j, r"shape \(\), complex64"),
        (lambda w, x: (jnp.sum(x @ w), 1), "a tuple"),
    ],
)
def test_loss_that_is_no_scalar(loss, got):
    with pytest.raises(ValueError, match=f"loss_fn must return a floating-point scalar, got {got}"):
        value_and_grad(loss)(jnp.ones((3, 3)), jnp.ones((2, 3)))


@pytest.mark.parametrize("shapes", [((3, 0), (2, 3)), ((0, 3), (2, 0)), ((3, 3), (0, 3))])
def test_zero_size_arrays_are_taken(shapes):
    w, x = map(jnp.zeros, shapes)

    def loss(w, x):
        return jnp.sum(x @ w)

    value, grads, readings = value_and_grad(loss)(w, x)
    assert_trees_equal((value, grads), jax.value_and_grad(loss)(w, x))
    assert list(layer_stats(readings)) == ["params"]


def test_aux_without_a_pair():
    with pytest.raises(ValueError, match=r"\(loss, aux\) with has_aux=True, got"):
        value_and_grad(plain_loss, has_aux=True)(plain_params())


@pytest.mark.parametrize("argnums", [3, -4, "0", True, 1.5, (), (0, "1"), (0, 7)])
def test_argnums_out_of_range(argnums):
    with pytest.raises(ValueError, match="argnums must"):
        value_and_grad(plain_loss, argnums=argnums)(plain_params())


def test_params_argnum_out_of_range():
    with pytest.raises(ValueError, match=r"params_argnum must name positional arguments.* has 1, got 1"):
        tap(plain_loss, params_argnum=1)(plain_params())


# --- effects -----------------------------------------------------------------------------------------------------

X = jnp.ones((2, 3))
EFFECTS = {
    "unordered callback": lambda seen, x: jax.debug.callback(seen, x[0, 0]),
    "ordered callback": lambda seen, x: jax.debug.callback(seen, x[0, 0], ordered=True),
    "io callback": lambda seen, x: io_callback(seen, None, x[0, 0], ordered=True),
}


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("transform", [tap, value_and_grad])
def test_effects_happen_once(variant, effect, transform):
    seen = []

    def loss(w, x):
        EFFECTS[effect](lambda value: seen.append(float(value)), x)
        return jnp.sum(x @ w)

    variant(transform(loss))(jnp.eye(3), X)
    jax.effects_barrier()
    assert seen == [1.0]


def test_effects_in_a_loop_over_layers_happen_in_order():
    seen = []

    def body(x, w):
        jax.debug.callback(lambda value: seen.append(float(value)), x[0, 0], ordered=True)
        return x @ w, None

    value_and_grad(lambda w: jnp.sum(jax.lax.scan(body, X, w)[0]))(jnp.stack([2 * jnp.eye(3)] * 3))
    jax.effects_barrier()
    assert seen == [1.0, 2.0, 4.0]
