import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnprobe.probes.predictions import balanced_accuracy, class_counts, input_sensitivity, prediction_stats

LOGITS = np.random.default_rng(0).normal(size=(64, 10)) * 2
LABELS = np.random.default_rng(1).integers(0, 10, 64)
ROWS = arrays(np.float32, (6, 4), elements=st.floats(-100, 100, width=32))
IDS = arrays(np.int64, 8, elements=st.integers(-2, 5))


def entropy(shares):
    return -sum(share * np.log(share) for share in shares if share > 0) / np.log(len(shares))


def naive_stats(logits, labels):
    probs = [np.exp(row) / np.sum(np.exp(row)) for row in logits]
    predicted = [int(np.argmax(row)) for row in logits]
    share = [predicted.count(label) / len(logits) for label in range(logits.shape[1])]
    return {
        "class_share": share,
        "top_class": int(np.argmax(share)),
        "top_share": max(share),
        "entropy": entropy(share),
        "mean_entropy": np.mean([entropy(row) for row in probs]),
        "confidence": np.mean([max(row) for row in probs]),
        "num_nonfinite": 0,
        "accuracy": np.mean([a == b for a, b in zip(predicted, labels, strict=True)]),
    }


def naive_sensitivity(logits):
    centred = np.stack([row - row.mean() for row in logits.astype(np.float64)])
    variance = np.mean([np.var(column) for column in centred.T])
    return variance / np.mean(centred**2)


def naive_balanced_accuracy(predictions, labels, num_classes):
    recalls = [np.mean(predictions[labels == label] == label) for label in range(num_classes) if label in labels]
    return np.mean(recalls) if recalls else np.nan


@pytest.mark.parametrize("name", naive_stats(LOGITS, LABELS))
def test_prediction_stats_match_definition(variant, name):
    stats = variant(prediction_stats)(LOGITS, LABELS)
    np.testing.assert_allclose(getattr(stats, name), naive_stats(LOGITS, LABELS)[name], rtol=1e-5)


def test_prediction_stats_leave_out_rows_that_are_not_finite(variant):
    sick = np.concatenate([LOGITS, np.full((3, 10), np.nan), np.full((1, 10), np.inf)])
    stats, healthy = variant(prediction_stats)(sick), prediction_stats(LOGITS)
    assert stats.num_nonfinite == 4
    np.testing.assert_allclose(np.hstack(stats[:6]), np.hstack(healthy[:6]), rtol=1e-6)


def test_rows_that_are_not_finite_are_wrong(variant):
    logits = np.array([[np.nan, 0.0], [1.0, 0.0]])
    assert variant(prediction_stats)(logits, np.array([0, 0])).accuracy == 0.5
    assert variant(prediction_stats)(logits, np.array([-1, 1])).accuracy == 0
    assert variant(prediction_stats)(logits, np.array([1, 1])).accuracy == 0


def test_prediction_stats_without_a_finite_row(variant):
    stats = variant(prediction_stats)(np.full((3, 2), np.nan))
    assert (stats.top_class, stats.num_nonfinite) == (-1, 3)
    assert np.all(np.isnan([stats.top_share, stats.entropy, stats.mean_entropy, stats.confidence]))


def test_accuracy_without_labels_is_unknown():
    assert np.isnan(prediction_stats(LOGITS).accuracy)


def test_huge_logits_are_sure(variant):
    stats = variant(prediction_stats)(np.array([[3e38, -3e38], [-3e38, 3e38]]))
    assert (stats.mean_entropy, stats.confidence, stats.entropy) == (0, 1, 1)


def test_mean_entropy_has_a_gradient_where_probabilities_underflow():
    grad = jax.grad(lambda x: prediction_stats(x).mean_entropy)(jnp.array([[500.0, -500.0], [0.0, 1.0]]))
    assert np.all(np.isfinite(grad))


@given(ROWS)
@settings(max_examples=30, deadline=None)
def test_prediction_stats_lie_in_their_ranges(logits):
    stats = prediction_stats(logits)
    shares = np.array([stats.top_share, stats.confidence, stats.entropy + 0.25, stats.mean_entropy + 0.25])
    assert np.all(shares >= 0.25 - 1e-6)
    assert np.all(shares <= [1 + 1e-6, 1 + 1e-6, 1.25 + 1e-6, 1.25 + 1e-6])


@given(ROWS, st.permutations(range(6)))
@settings(max_examples=30, deadline=None)
def test_prediction_stats_ignore_the_order_of_images(logits, order):
    np.testing.assert_allclose(
        np.hstack(prediction_stats(logits)), np.hstack(prediction_stats(logits[list(order)])), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    "ids", [np.array([0, 2, 2, 4], np.uint8), np.array([0.0, 2.0, 2.0, 4.0]), jnp.array([0, 2, 2, 4])]
)
def test_class_counts_read_ids_of_any_type(variant, ids):
    np.testing.assert_array_equal(variant(lambda x: class_counts(x, 1000))(ids)[:5], [1, 0, 2, 0, 1])


def test_class_counts_leave_out_what_is_no_class(variant):
    ids = np.array([-1, 3, 0.5, np.nan, np.inf, 1])
    np.testing.assert_array_equal(variant(lambda x: class_counts(x, 3))(ids), [0, 1, 0])


@given(IDS)
@settings(max_examples=30, deadline=None)
def test_class_counts_match_definition(ids):
    np.testing.assert_array_equal(class_counts(ids, 4), [np.sum(ids == label) for label in range(4)])


@given(IDS, IDS)
@settings(max_examples=30, deadline=None)
def test_balanced_accuracy_matches_definition(predictions, labels):
    np.testing.assert_allclose(
        balanced_accuracy(predictions, labels, 4), naive_balanced_accuracy(predictions, labels, 4), rtol=1e-6
    )


def test_balanced_accuracy_weighs_classes_alike(variant):
    labels = np.array([0] * 96 + [1] * 4)
    assert variant(lambda p, y: balanced_accuracy(p, y, 10))(np.zeros(100, int), labels) == 0.5


def test_balanced_accuracy_of_labels_outside_the_classes_is_unknown(variant):
    ids = np.array([3, -1])
    assert np.isnan(variant(lambda p, y: balanced_accuracy(p, y, 3))(ids, ids))


@pytest.mark.parametrize("offset", [0, 5, 100])
def test_input_sensitivity_matches_definition(variant, offset):
    logits = LOGITS + offset * np.arange(10)
    np.testing.assert_allclose(variant(input_sensitivity)(logits), naive_sensitivity(logits), rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_input_sensitivity_has_no_unit(variant, scale):
    np.testing.assert_allclose(variant(input_sensitivity)(LOGITS * scale), naive_sensitivity(LOGITS), rtol=1e-5)


@pytest.mark.parametrize("row", [np.array([0.1, 0.2, 0.7]), np.full(3, 1 / 3), np.array([1e30, 0, 0]), np.zeros(3)])
def test_input_sensitivity_of_a_constant_output_is_zero(variant, row):
    np.testing.assert_allclose(variant(input_sensitivity)(np.tile(row, (37, 1))), 0, atol=1e-12)


def test_what_all_classes_share_is_no_sensitivity(variant):
    assert variant(input_sensitivity)(np.tile(LOGITS[:, :1], (1, 3))) == 0


def test_input_sensitivity_leaves_out_rows_that_are_not_finite(variant):
    sick = np.concatenate([np.full((2, 10), np.nan), LOGITS])
    np.testing.assert_allclose(variant(input_sensitivity)(sick), naive_sensitivity(LOGITS), rtol=1e-5)


def test_input_sensitivity_without_a_finite_row_is_unknown(variant):
    assert np.isnan(variant(input_sensitivity)(np.full((4, 3), np.inf)))


@given(ROWS)
@settings(max_examples=30, deadline=None)
def test_input_sensitivity_is_a_share(logits):
    assert 0 <= input_sensitivity(logits) <= 1 + 1e-5


@pytest.mark.parametrize("fn", [prediction_stats, input_sensitivity])
@pytest.mark.parametrize(("shape", "message"), [((3, 1), r"two columns, got shape \(3, 1\)"), ((5,), "2 axes")])
def test_logits_of_another_shape_are_refused(fn, shape, message):
    with pytest.raises(ValueError, match=f"logits must have .*{message}"):
        fn(np.zeros(shape))


@pytest.mark.parametrize(("labels", "message"), [(np.eye(10)[LABELS], "labels must have 1 axes"), (LABELS[1:], "rows")])
def test_labels_that_are_not_one_id_for_each_row_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        prediction_stats(LOGITS, labels)


def test_class_counts_of_no_classes_are_refused():
    with pytest.raises(ValueError, match="num_classes must be a whole number of at least 1, got 0"):
        class_counts(LABELS, 0)


def test_other_numbers_of_predictions_and_labels_are_refused():
    with pytest.raises(ValueError, match="predictions and labels must have as many rows"):
        balanced_accuracy(LABELS[1:], LABELS, 10)
