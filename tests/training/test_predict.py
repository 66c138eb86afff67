import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnprobe.training.predict import count_classes, count_ids, label_classes, predict_classes
from cnnprobe.types import Dataset, Problem


@pytest.fixture(params=[lambda f, **_: f, jax.jit], ids=["eager", "jit"])
def variant(request):
    return request.param


def test_largest_score_wins(variant):
    scores = jnp.array([[0.0, 2.0, 1.0], [3.0, -1.0, 0.0]])
    np.testing.assert_array_equal(variant(lambda x: predict_classes(x, 2))(scores), [1, 0])


@pytest.mark.parametrize(
    ("column", "expected"), [([0.4, 0.6, 1.0], [0, 1, 1]), ([-2.0, 0.4, 3.0], [0, 1, 1])], ids=["probability", "logit"]
)
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_single_score_is_held_against_a_threshold(column, expected, shape):
    np.testing.assert_array_equal(predict_classes(jnp.array(column).reshape(shape), 3), expected)


def test_nan_never_wins():
    scores = jnp.array([[jnp.nan, -5.0, -4.0], [jnp.nan, jnp.nan, jnp.nan]])
    np.testing.assert_array_equal(predict_classes(scores, 2), [2, 0])


def test_map_of_scores_is_averaged_over_places():
    scores = np.random.default_rng(0).normal(size=(4, 3, 5, 6))
    expected = scores.reshape(4, 15, 6).sum(1).argmax(1)
    np.testing.assert_array_equal(predict_classes(jnp.asarray(scores), 4), expected)


def test_first_array_of_several_outputs_counts():
    outputs = (jnp.eye(3), jnp.zeros(()))
    np.testing.assert_array_equal(predict_classes(outputs, 3), [0, 1, 2])


def test_metric_written_in_numpy_works(variant):
    def smallest_score(scores):
        return np.argmin(np.asarray(scores), axis=1)

    scores = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(variant(lambda x: predict_classes(x, 2, predict=smallest_score))(scores), [1, 0])


@pytest.mark.parametrize("predict", [lambda scores: scores, lambda scores: scores[:2].argmax(1)])
def test_metric_of_another_shape_is_refused(predict):
    with pytest.raises(ValueError, match=r"predict\(outputs\) must have a row for each of 3 images, got shape"):
        predict_classes(jnp.eye(3), 3, predict=predict)


def test_outputs_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"outputs must have a row for each of 4 images, got shape \(8,\)"):
        predict_classes(jnp.zeros((8, 3)), 4)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([2, 0]),
        np.array([[2], [0]]),
        np.array([2.0, 0.0]),
        np.eye(3)[[2, 0]],
        [[0.1, 0.3, 0.6], [0.5, 0.2, 0.3]],
    ],
    ids=["integer", "column", "float", "one-hot", "soft"],
)
def test_label_classes_reads_every_encoding(labels, variant):
    np.testing.assert_array_equal(variant(label_classes)(jnp.asarray(labels)), [2, 0])


def test_labels_that_are_not_whole_are_in_no_class(variant):
    np.testing.assert_array_equal(variant(label_classes)(jnp.array([1.0, 0.5, jnp.nan])), [1, -1, -1])


@given(arrays(np.int32, 20, elements=st.integers(-3, 8)))
def test_counts_add_up_to_the_ids_in_range(ids):
    assert count_ids(ids, 5).sum() == np.sum((ids >= 0) & (ids < 5))


@given(arrays(np.float32, (6, 4), elements=st.integers(-1000, 1000)), st.sampled_from([0.5, 2.0, 4.0]))
def test_scaling_the_scores_changes_no_prediction(scores, factor):
    np.testing.assert_array_equal(predict_classes(scores, 6), predict_classes(scores * factor, 6))


@pytest.mark.parametrize("shape", [(), (4, 2, 2)])
def test_labels_that_are_no_classes_have_none(shape):
    assert label_classes(jnp.zeros(shape)) is None


def test_ids_out_of_range_are_in_no_class(variant):
    counted = variant(count_ids, static_argnums=1)(jnp.array([0, 2, 2, 3, -1]), 3)
    np.testing.assert_array_equal(counted, [1, 0, 2])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(np.array([5, 7, 9]), 3), (np.zeros((4, 6)), 6), (np.zeros(4, int), 2), (np.ones((3, 1)), 2)],
)
def test_number_of_classes_is_read_off_the_labels(labels, expected):
    assert count_classes(Problem(None, None, None, Dataset(np.zeros((len(labels), 2)), labels))) == expected


def test_number_of_classes_of_a_source_is_read_off_a_sample():
    source = [{"image": np.zeros(2), "label": k % 4} for k in range(20)]
    assert count_classes(Problem(None, None, None, source)) == 4


@pytest.mark.parametrize("labels", [np.array([True, False]), np.array([[True], [False]]), np.eye(2, dtype=bool)[::-1]])
def test_truth_values_are_classes(labels):
    np.testing.assert_array_equal(label_classes(labels), [1, 0])
