import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.doctor.causes import CAUSES
from cnnprobe.doctor.looks.linearity import look_between_layers
from cnnprobe.tracing.calls import trace_call
from cnnprobe.tracing.surgery import last_layer_inputs
from experiments.faults import EXPECTED, FAULTS, plant
from experiments.networks import NETWORKS
from experiments.problems import build_problem

KEY = jax.random.key(1)


@pytest.fixture(scope="module")
def problem():
    return build_problem(num_images=120, batch_size=20)[0]


def first_step(problem):
    """Loss, outputs, updates and parameters of one step on the first batch as stored."""
    images, labels = (x[: problem.batch_size] for x in problem.train)
    images, key = jnp.asarray(problem.preprocess(images)), jax.random.key(0)
    params, state = problem.model.init(key, images)

    def loss_of(params):
        outputs, _ = problem.model.apply(params, state, images, key=key, train=True)
        return problem.loss(outputs, labels), outputs

    (loss, outputs), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    updates, _ = problem.optimizer.update(grads, problem.optimizer.init(params), params)
    return loss, outputs, grads, updates


def norm(tree):
    return np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree)))


def inputs(problem):
    return problem.preprocess(problem.train.images)


@pytest.mark.parametrize("name", FAULTS)
def test_every_faulty_problem_still_runs(name, problem):
    loss, outputs, *_ = first_step(plant(problem, name))
    assert loss.shape == ()
    assert jax.tree.leaves(outputs)[0].shape[-1] == (9 if name == "class_without_unit" else 10)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_does_not_touch_the_healthy_problem(name, problem):
    before = (inputs(problem).copy(), np.copy(problem.train.labels))
    plant(problem, name)
    np.testing.assert_array_equal(inputs(problem), before[0])
    np.testing.assert_array_equal(problem.train.labels, before[1])


def test_no_fault_leaves_the_problem_as_it_is(problem):
    assert plant(problem, None) is problem


def test_an_unknown_fault_lists_the_known_ones(problem):
    with pytest.raises(ValueError, match=r"fault must be one of augmented_inside, .*wrong_metric, got 'typo'"):
        plant(problem, "typo")


@pytest.mark.parametrize(
    ("name", "mean", "highest"),
    [("raw_pixels", 73.0, 255.0), ("inputs_scaled_twice", 0.0011, 1 / 255), ("inputs_offset", 10.3, 11.0)],
)
def test_pixels_are_changed_as_said(name, mean, highest, problem):
    images = inputs(plant(problem, name))
    np.testing.assert_allclose((images.mean(), images.max()), (mean, highest), rtol=0.1)


def test_blank_images_are_all_alike(problem):
    assert np.ptp(inputs(plant(problem, "blank_images"))) == 0


def test_shuffled_labels_keep_their_counts(problem):
    labels = plant(problem, "shuffled_labels").train.labels
    np.testing.assert_array_equal(np.bincount(labels), np.bincount(problem.train.labels))
    assert np.mean(labels == problem.train.labels) < 0.3


def test_sorted_batches_go_through_one_class_after_the_other(problem):
    sorted_problem = plant(problem, "sorted_batches")
    assert not sorted_problem.shuffle
    assert np.all(np.diff(sorted_problem.train.labels) >= 0)


def test_mask_of_a_batch_leaves_out_the_same_features_of_every_image(problem):
    init, apply = plant(problem, "dropout_mask_shared").model
    images, key = np.ones((6, *np.shape(problem.train.images)[1:]), np.float32), jax.random.key(0)
    params, state = init(key, images)
    one_each = {**params, "dense2": {"kernel": np.eye(64, dtype=np.float32), "bias": np.zeros(64)}}
    dropped = apply(one_each, state, images * np.arange(1, 7)[:, None, None, None], key=key, train=True)[0] == 0
    kept = apply(one_each, state, images, key=key, train=False)[0] > 0
    lost = np.asarray(dropped & kept)
    np.testing.assert_array_equal(lost, np.tile(lost[:1], (6, 1)))
    assert 0.6 < lost.sum() / kept.sum() < 1


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("fault", "rate"), [("dropout_too_strong", 0.95), ("dropout_in_evaluation", 0.8)])
def test_dropout_thins_the_features_of_every_network(fault, rate, network, problem):
    healthy = problem._replace(model=NETWORKS[network](10))
    params, state = healthy.model.init(jax.random.key(0), images := jnp.asarray(inputs(problem)))

    def features(problem, *, train):
        apply = problem.model.apply
        return last_layer_inputs(lambda p, s, x: apply(p, s, x, key=KEY, train=train))(params, state, images)[1]

    was_zero = np.mean(features(healthy, train=False) == 0)
    planted = plant(healthy, fault)
    shares = [np.mean(features(planted, train=train) == 0) for train in (True, False)]
    expected = [rate, rate if fault == "dropout_in_evaluation" else 0.0]
    np.testing.assert_allclose(shares, [1 - (1 - was_zero) * (1 - rate) for rate in expected], atol=0.05)


@pytest.mark.parametrize(
    ("fault", "network"),
    [("no_nonlinearity", "plain"), ("no_nonlinearity", "linen"), ("no_nonlinearity_nnx", "nnx")],
)
def test_without_activations_a_network_has_none_between_its_layers(fault, network, problem):
    healthy = problem._replace(model=NETWORKS[network](10))
    images = jnp.asarray(inputs(problem))

    def between(problem):
        init, apply = problem.model
        args = (*init(KEY, images), images)
        call = trace_call(lambda *args: apply(*args, key=KEY, train=False)[0], args, {}, [0, 1])
        return look_between_layers(call)["hidden nonlinearities"]

    assert between(healthy) > 0
    assert between(plant(healthy, fault)) == 0


def test_class_imbalance_keeps_the_first_class_whole(problem):
    counts = np.bincount(plant(problem, "class_imbalance").train.labels, minlength=10)
    assert counts[0] == np.sum(problem.train.labels == 0)
    assert counts[1:].max() == 1


def test_sum_loss_is_the_batch_size_times_the_mean(problem):
    np.testing.assert_allclose(first_step(plant(problem, "sum_loss"))[0], 20 * first_step(problem)[0], rtol=1e-5)


def test_softmax_twice_gives_probabilities(problem):
    np.testing.assert_allclose(first_step(plant(problem, "softmax_twice"))[1].sum(-1), 1.0, rtol=1e-5)


def test_frozen_trunk_moves_the_head_alone(problem):
    updates = first_step(plant(problem, "frozen_trunk"))[3]
    moved = [leaf.shape[-1] for leaf in jax.tree.leaves(updates) if np.any(leaf)]
    assert moved == [10, 10]


def test_one_masked_kernel_climbs_and_the_rest_does_not(problem):
    _, _, grads, updates = first_step(plant(problem, "masked_out"))
    climbs = [np.array_equal(u, g) for u, g in zip(jax.tree.leaves(updates), jax.tree.leaves(grads), strict=True)]
    assert sum(climbs) == 1
    assert jax.tree.leaves(grads)[climbs.index(True)].ndim == 4


def test_negated_update_goes_along_the_gradient(problem):
    _, _, grads, updates = first_step(plant(problem, "negated_update"))
    products = jax.tree.map(lambda u, g: jnp.sum(u * g), updates, grads)
    assert sum(jax.tree.leaves(products)) > 0


@pytest.mark.parametrize(("name", "lowest", "highest"), [("tiny_clip", 0, 1.01e-5), ("learning_rate_too_low", 0, 1e-3)])
def test_small_updates_are_small(name, lowest, highest, problem):
    assert lowest < norm(first_step(plant(problem, name))[3]) < highest


def test_constant_init_makes_all_units_alike(problem):
    params, _ = plant(problem, "constant_init").model.init(jax.random.key(0), inputs(problem))
    assert {float(np.ptp(leaf)) for leaf in jax.tree.leaves(params)} == {0.0}


def test_statistics_never_updated_are_those_of_the_start(problem):
    model, images = plant(problem, "statistics_never_updated").model, inputs(problem)
    params, state = model.init(jax.random.key(0), images)
    _, after = model.apply(params, state, images, key=jax.random.key(1), train=True)
    assert jax.tree.leaves(state)
    jax.tree.map(np.testing.assert_array_equal, state, after)


def test_labels_are_dealt_anew_every_epoch(problem):
    loader = plant(problem, "reshuffled_labels").batches
    assert not np.array_equal(*(np.concatenate([labels for _, labels in loader(epoch)]) for epoch in (0, 1)))


def test_class_numbers_of_validation_alone_differ(problem):
    planted = plant(problem, "class_numbers_differ")
    np.testing.assert_array_equal(planted.valid.labels, (problem.valid.labels + 1) % 10)
    np.testing.assert_array_equal(planted.train.labels, problem.train.labels)


def test_split_by_class_shares_no_class(problem):
    planted = plant(problem, "split_by_class")
    assert not set(planted.train.labels) & set(planted.valid.labels)


def test_every_cause_is_planted():
    assert {cause.id for cause in CAUSES} == set(EXPECTED.values())


def test_darker_bytes_wrap_around(problem):
    images = (255 * inputs(problem)).astype(np.uint8).astype(float)
    fed = inputs(plant(problem, "bytes_wrapped")) * 255
    np.testing.assert_allclose(fed, np.where(images >= 128, images - 128, images + 128))


def test_validation_alone_is_read_upside_down(problem):
    planted, images = plant(problem, "valid_upside_down"), problem.valid.images
    np.testing.assert_array_equal(planted.preprocess_valid(images), problem.preprocess(images)[:, ::-1])
    np.testing.assert_array_equal(inputs(planted), inputs(problem))


def test_a_model_augments_inside_in_training_alone(problem):
    images, key = inputs(problem)[:8], jax.random.key(0)
    models = problem.model, plant(problem, "augmented_inside").model
    given = problem.model.init(key, images)
    one, other = (model.apply(*given, images, key=key, train=False)[0] for model in models)
    np.testing.assert_array_equal(one, other)
    one, other = (model.apply(*given, images, key=key, train=True)[0] for model in models)
    assert np.max(np.abs(one - other)) > 1


def test_without_gradients_weights_grow(problem):
    optimizer, ones = plant(problem, "growing_weights").optimizer, {"kernel": jnp.ones(3)}
    updates, _ = optimizer.update({"kernel": jnp.zeros(3)}, optimizer.init(ones), ones)
    np.testing.assert_allclose(updates["kernel"], 0.02, rtol=1e-6)


def test_a_trunk_in_the_state_gives_the_same_outputs(problem):
    images, key = inputs(problem)[:8], jax.random.key(0)
    models = problem.model, plant(problem, "trunk_in_state").model
    (params, _), (kept, (held, _)) = (model.init(key, images) for model in models)
    assert {leaf.shape[-1] for leaf in kept.values() if leaf.ndim > 1} == {10}
    assert len(kept) + len(held) == len(jax.tree.leaves(params))
    one, other = (model.apply(*model.init(key, images), images, key=key, train=False)[0] for model in models)
    np.testing.assert_array_equal(one, other)


def test_parameters_in_float16_break_adam_in_the_first_step(problem):
    loss, _, grads, updates = first_step(plant(problem, "parameters_in_float16"))
    assert np.isfinite(loss)
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {np.dtype(np.float16)}
    assert any(not np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))


def test_a_penalty_on_lengths_has_no_gradient_at_zero(problem):
    loss, _, grads, _ = first_step(plant(problem, "norm_of_zeros"))
    assert np.isfinite(loss)
    assert any(not np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
