import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnprobe.doctor import remedies, remedies_data
from cnnprobe.models.networks import small_cnn
from cnnprobe.training.pipeline import prepare
from cnnprobe.types import Batch, Dataset, Model

KEY = jax.random.key(0)


@pytest.fixture
def problem(tiny_bench):
    return tiny_bench.problem


def fed(problem, images, *, train=True):
    return np.asarray(prepare(problem, Batch(images, np.zeros(len(images), int)), KEY, train=train).images)


def test_standardised_inputs_have_mean_0_and_std_1(problem):
    images = problem.train.images
    mended = remedies_data.standardise_inputs(float(images.mean()), float(images.std()))(problem)
    assert fed(mended, images).mean() == pytest.approx(0, abs=1e-5)
    assert fed(mended, images, train=False).std() == pytest.approx(1, abs=1e-5)


def test_map_images_comes_after_the_users_preprocessing_and_reaches_the_loader(problem):
    own = problem._replace(preprocess=lambda x: x * 0 + 3, batches=lambda epoch: [(np.ones((2, 4)), np.zeros(2))])
    mended = remedies_data.map_images(lambda x: x * 2)(own)
    assert mended.preprocess(np.ones(2)).tolist() == [6, 6]
    assert next(iter(mended.batches(0)))[0].max() == 2


def test_remedies_leave_the_problem_alone(problem):
    before = problem.train.images.copy()
    remedies_data.standardise_inputs(1.0, 2.0)(problem)
    remedies_data.balance_classes(problem)
    np.testing.assert_array_equal(problem.train.images, before)


def test_balanced_classes_are_equally_frequent(problem):
    skewed = problem._replace(train=Dataset(problem.train.images, np.array([0] * 15 + [1] * 4 + [2])))
    counts = np.bincount(remedies_data.balance_classes(skewed).train.labels)
    assert counts.tolist() == [15, 15, 15]


def test_map_labels_serves_both_splits(problem):
    mended = remedies_data.map_labels(lambda y: y + 5)(problem._replace(valid=problem.train))
    np.testing.assert_array_equal(mended.train.labels, problem.train.labels + 5)
    np.testing.assert_array_equal(mended.valid.labels, problem.train.labels + 5)


def test_log_of_undoes_a_softmax():
    logits = jax.random.normal(KEY, (4, 3))
    again = jax.nn.softmax(remedies.log_of(jax.nn.softmax(logits)))
    np.testing.assert_allclose(again, jax.nn.softmax(logits), rtol=1e-5)


def test_logit_of_undoes_a_sigmoid():
    logits = jax.random.normal(KEY, (4, 3))
    np.testing.assert_allclose(remedies.logit_of(jax.nn.sigmoid(logits)), logits, rtol=1e-3, atol=1e-4)


def test_cross_entropy_takes_integers_and_rows():
    logits, ids = jax.random.normal(KEY, (5, 3)), jnp.array([0, 1, 2, 1, 0])
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, ids).mean()
    assert remedies.cross_entropy(logits, ids) == pytest.approx(float(expected))
    assert remedies.cross_entropy(logits, jax.nn.one_hot(ids, 3)) == pytest.approx(float(expected))


def test_expected_shares_leave_the_network_free_of_them(problem):
    shares = np.array([0.9, 0.1])
    loss = remedies.expect_shares(shares)(problem).loss
    labels = np.array([0] * 9 + [1])  # as frequent as the shares say
    by_hand = -np.mean(np.log(shares[labels]))  # the loss of a blind guess in proportion
    np.testing.assert_allclose(loss(jnp.zeros((10, 2)), labels), by_hand, rtol=1e-6)
    slope = jax.grad(lambda bias: loss(jnp.zeros((10, 2)) + bias, labels))(jnp.zeros(2))
    np.testing.assert_allclose(slope, 0, atol=1e-6)  # nothing draws scores of no image towards the common class


def test_average_loss_divides_by_the_batch(problem):
    summed = problem._replace(loss=lambda outputs, labels: jnp.sum(outputs))
    assert remedies.average_loss(summed).loss(jnp.ones((4, 3)), jnp.zeros(4)) == 3


def test_scaled_updates(problem):
    optimizer = remedies.scale_updates(-0.5)(problem._replace(optimizer=optax.sgd(1.0))).optimizer
    updates, _ = optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), jnp.ones(2))
    assert updates.tolist() == [0.5, 0.5]


def trained(optimizer, params, num_steps=20):
    """Parameters after some steps whose gradients are the parameters, and what the last of them are rounded from."""
    state = optimizer.init(params)
    for _ in range(num_steps):
        updates, state = optimizer.update(jax.tree.map(lambda x: x / 1000, params), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def test_updates_in_float32_are_the_users_own_where_parameters_are(problem):
    own = optax.adam(1e-2)
    mended = remedies.update_in_float32(problem._replace(optimizer=own)).optimizer
    params = {"kernel": jnp.linspace(-1, 1, 7), "steps": jnp.arange(3)}
    one, other = (trained(optimizer, {"kernel": params["kernel"]})[0] for optimizer in (own, mended))
    np.testing.assert_allclose(one["kernel"], other["kernel"], rtol=1e-5)
    assert mended.init(params).params["steps"].dtype == jnp.int32


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_updates_in_float32_leave_rounded_parameters_of_their_own_type(dtype, problem):
    mended = remedies.update_in_float32(problem._replace(optimizer=optax.adam(1e-4))).optimizer
    start = {"kernel": jnp.linspace(0.1, 1, 7)}
    params, (copy, _) = trained(mended, jax.tree.map(lambda x: x.astype(dtype), start))
    assert params["kernel"].dtype == dtype
    np.testing.assert_array_equal(params["kernel"], copy["kernel"].astype(dtype))
    expected = trained(optax.adam(1e-4), start)[0]
    np.testing.assert_allclose(copy["kernel"], expected["kernel"], atol=4e-3)  # the start is rounded


def test_adam_divides_by_zero_in_float16_and_not_in_float32(problem):
    params, own = {"kernel": jnp.full(3, 0.1, jnp.float16)}, optax.adam(1e-3)
    mended = remedies.update_in_float32(problem._replace(optimizer=own)).optimizer
    assert not np.isfinite(trained(own, params)[0]["kernel"]).any()
    np.testing.assert_allclose(trained(mended, params)[0]["kernel"], 0.08, rtol=1e-2)


def test_redrawn_kernels_are_he_normal_and_biases_stay(problem):
    params, _ = remedies.redraw_parameters(problem).model.init(KEY, problem.train.images)
    kernel = params["dense1"]["kernel"]
    assert float(jnp.std(kernel)) == pytest.approx(np.sqrt(2 / kernel.shape[0]), rel=0.1)
    assert not params["dense1"]["bias"].any()


def test_everything_redrawn_starts_where_it_does_by_custom(problem):
    inner = problem.model
    start = {"norm": {"scale": jnp.full(3, 0.01), "bias": jnp.full(3, 0.01)}}
    model = inner._replace(init=lambda key, images: (inner.init(key, images)[0] | start, {}))
    params, _ = remedies.redraw_everything(problem._replace(model=model)).model.init(KEY, problem.train.images)
    assert [float(params["norm"][name].sum()) for name in ("scale", "bias")] == [3.0, 0.0]
    assert float(jnp.std(params["dense1"]["kernel"])) > 0


def test_redrawn_kernels_are_scaled_by_what_they_sum_over_however_their_axes_stand(problem):
    def apply(params, state, images, *, key, train):
        images = images.transpose(0, 3, 1, 2)
        maps = jax.lax.conv(images, params["conv"], (1, 1), "SAME").mean((2, 3))  # its kernel: [out, in, 3, 3]
        return maps @ params["dense"].T, state

    params = {"conv": jnp.ones((500, 1, 3, 3)), "dense": jnp.ones((10, 500))}
    turned = problem._replace(model=Model(lambda key, images: (params, {}), apply))
    redrawn, _ = remedies.redraw_parameters(turned).model.init(KEY, problem.train.images)
    assert float(jnp.std(redrawn["conv"])) == pytest.approx(np.sqrt(2 / 9), rel=0.1)
    assert float(jnp.std(redrawn["dense"])) == pytest.approx(np.sqrt(2 / 500), rel=0.1)


def test_new_head_has_a_score_for_each_class(problem):
    model = remedies.add_head(7)(problem).model
    params, state = model.init(KEY, problem.train.images)
    outputs, _ = model.apply(params, state, problem.train.images, key=KEY, train=True)
    assert outputs.shape == (20, 7)


def test_thin_dropout_only_weakens(problem):
    dropping = problem._replace(model=small_cnn(10, dropout_rate=0.5))
    thinned, kept = remedies.thin_dropout(0.0)(dropping).model, remedies.thin_dropout(0.9)(dropping).model
    params, state = dropping.model.init(KEY, problem.train.images)

    def run(model, train):
        return model.apply(params, state, problem.train.images, key=KEY, train=train)[0]

    np.testing.assert_allclose(run(thinned, True), run(dropping.model, False), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(run(kept, True), run(dropping.model, True))


@pytest.mark.parametrize("momentum", [0.99, 0.999])
def test_faster_statistics_move_as_with_momentum_of_nine_tenths(problem, momentum):
    def apply(params, state, images, *, key, train):
        return images, {"mean": momentum * state["mean"] + (1 - momentum) * 5.0}

    slow = problem._replace(model=problem.model._replace(apply=apply))
    fast = remedies.faster_statistics(momentum)(slow).model
    state = fast.apply({}, {"mean": jnp.array(1.0)}, None, key=KEY, train=True)[1]
    assert float(state["mean"]) == pytest.approx(0.9 * 1 + 0.1 * 5, rel=1e-4)


def test_batch_statistics_serve_evaluation(problem):
    normalised = problem._replace(model=small_cnn(10, batch_norm=True))
    params, state = normalised.model.init(KEY, problem.train.images)

    def run(model, train):
        return model.apply(params, state, problem.train.images, key=KEY, train=train)[0]

    mended = remedies.use_batch_statistics(normalised).model
    np.testing.assert_allclose(run(mended, False), run(normalised.model, True), rtol=1e-5, atol=1e-6)
