import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnprobe.training.evaluate import collect_outputs, evaluate
from cnnprobe.training.fit import fit
from cnnprobe.types import Batch, Dataset

KEY = jax.random.key(0)


def weights(problem):
    return problem.model.init(KEY, problem.train.images)


def echo(params, state, images, *, key, train):
    """Each image's first three pixels as its scores."""
    return images.reshape(len(images), -1)[:, :3] + 0.0, state


@pytest.mark.parametrize("slice_size", [None, 1, 7, 25, 50, 60])
def test_outputs_do_not_depend_on_the_slices(problem, slice_size):
    expected, _ = problem.model.apply(*weights(problem), problem.train.images, key=KEY, train=False)
    outputs, labels = collect_outputs(problem, *weights(problem), problem.train, slice_size=slice_size)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(labels, problem.train.labels)


def test_scores_match_their_definitions(problem):
    problem = problem._replace(model=problem.model._replace(apply=echo))
    scores, labels = np.float64(problem.train.images.reshape(50, -1)[:, :3]), problem.train.labels
    right = scores.argmax(1) == labels
    losses = np.log(np.exp(scores).sum(1)) - scores[np.arange(50), labels]
    seen = evaluate(problem, {}, {}, problem.train)
    expected = losses.mean(), right.mean(), np.mean([right[labels == k].mean() for k in range(3)])
    np.testing.assert_allclose(seen[:3], expected, rtol=1e-6)


def soft_loss(logits, targets):
    return optax.softmax_cross_entropy(logits, targets).mean()


def test_a_loss_of_a_loaders_rows_is_that_of_validation_labels_as_rows(problem):
    rows = np.eye(3, dtype=np.float32)[problem.train.labels]
    stored = problem._replace(loss=soft_loss, train=Dataset(problem.train.images, rows), batch_size=10)
    loaded = problem._replace(loss=soft_loss, batches=lambda epoch: [(problem.train.images, rows)], batch_size=10)
    reached, expected = (evaluate(each, *weights(each), each.train) for each in (loaded, stored))
    assert reached.loss == expected.loss
    assert reached.accuracy == expected.accuracy
    assert np.isfinite(fit(loaded._replace(num_epochs=1), progress=False).valid["loss"]).all()


def test_a_loss_that_takes_no_labels_says_so_in_its_own_words(problem):
    def strict(logits, targets):
        raise ValueError(f"not {targets.shape}")

    loaded = problem._replace(loss=strict, batches=lambda epoch: [])
    for each in (loaded, loaded._replace(batches=None)):
        with pytest.raises(ValueError, match="not "):
            evaluate(each, *weights(each), each.train)


def test_summed_loss_is_that_of_a_batch(problem):
    problem = problem._replace(loss=lambda outputs, labels: jnp.float32(len(labels)), batch_size=10)
    assert evaluate(problem, *weights(problem), problem.train).loss == 10.0


def test_partial_slice_compiles_nothing_new(problem):
    apply = chex.assert_max_traces(problem.model.apply, n=1)
    problem = problem._replace(model=problem.model._replace(apply=apply))
    for _ in range(2):
        evaluate(problem, *weights(problem), problem.train, slice_size=16)


def test_stored_examples_are_preprocessed_as_for_validation(problem):
    problem = problem._replace(
        model=problem.model._replace(apply=echo),
        preprocess_valid=lambda images: images * 2,
        augment=lambda key, x: x * 0,
    )
    outputs, _ = collect_outputs(problem, {}, {}, problem.train)
    np.testing.assert_allclose(outputs, 2 * problem.train.images.reshape(50, -1)[:, :3])


def test_batch_is_taken_as_it_is(problem):
    problem = problem._replace(model=problem.model._replace(apply=echo), preprocess=lambda images: images * 2)
    outputs, _ = collect_outputs(problem, {}, {}, Batch(*problem.train))
    np.testing.assert_array_equal(outputs, problem.train.images.reshape(50, -1)[:, :3])


def test_source_gives_what_its_arrays_give(problem):
    source = [{"image": image, "label": label} for image, label in zip(*problem.valid, strict=True)]
    seen = evaluate(problem, *weights(problem), source, slice_size=8)
    assert seen.loss == evaluate(problem, *weights(problem), problem.valid, slice_size=8).loss


def test_training_mode_uses_the_key(problem):
    runs = [
        collect_outputs(problem, *weights(problem), problem.valid, train_mode=True, key=jax.random.key(seed))[0]
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_one_row_at_a_time_has_one_prediction_each(problem):
    one = Batch(problem.valid.images[:1], problem.valid.labels[:1])
    assert evaluate(problem, *weights(problem), one).predictions.shape == (1,)


def test_users_metric_decides(problem):
    problem = problem._replace(predict=lambda outputs: jnp.full(len(outputs), 2))
    seen = evaluate(problem, *weights(problem), problem.valid)
    assert seen.accuracy == pytest.approx(np.mean(problem.valid.labels == 2))
    assert seen.balanced_accuracy == pytest.approx(1 / 3)


def test_nan_flows_into_the_loss(problem):
    seen = evaluate(problem, *weights(problem), Batch(np.full((4, 4, 4, 1), np.nan, np.float32), np.zeros(4, int)))
    assert np.isnan(seen.loss)


def test_scalar_among_the_outputs_is_averaged(problem):
    def apply(params, state, images, *, key, train):
        return (echo(params, state, images, key=key, train=train)[0], jnp.mean(images)), state

    problem = problem._replace(model=problem.model._replace(apply=apply))
    outputs, _ = collect_outputs(problem, {}, {}, problem.train, slice_size=25)
    np.testing.assert_allclose(outputs[1], problem.train.images.mean(), rtol=1e-5)


def test_outputs_without_a_row_for_each_image_are_refused(problem):
    def apply(params, state, images, *, key, train):
        return images.reshape(-1, 4), state

    problem = problem._replace(model=problem.model._replace(apply=apply))
    with pytest.raises(ValueError, match=r"outputs must have a row for each of 16 images, got shape \(64, 4\)"):
        collect_outputs(problem, {}, {}, problem.train, slice_size=16)


def test_no_examples_are_refused(problem):
    with pytest.raises(ValueError, match="examples must be one or more, got 0"):
        evaluate(problem, *weights(problem), Dataset(np.zeros((0, 4, 4, 1)), np.zeros(0, int)))


@pytest.mark.parametrize("slice_size", [0, 2.5])
def test_bad_slice_size_is_refused(problem, slice_size):
    with pytest.raises(ValueError, match="slice_size must be a whole number of at least 1, got"):
        collect_outputs(problem, *weights(problem), problem.valid, slice_size=slice_size)
