"""What must not matter does not: the order of a batch, the names of classes and layers, where a batch is split, jit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnnprobe as cp
from cnnprobe.probes.activations import activation_sums, finish_activations, merge_activations

NUM, CLASSES = 24, 4
SEEDS = st.integers(0, 2**16)


def drawn(seed):
    """Features, logits, labels, a permutation of the rows and one of the classes."""
    rng = np.random.default_rng(seed)
    scale = rng.choice([1e-3, 1.0, 30.0])
    features = (scale * rng.normal(size=(NUM, 6)) + rng.normal()).astype(np.float32)
    logits = (scale * rng.normal(size=(NUM, CLASSES))).astype(np.float32)
    return features, logits, rng.integers(0, CLASSES, NUM), rng.permutation(NUM), rng.permutation(CLASSES)


def same(first, second, *, but=(), rtol=2e-4):
    """Whether two records agree in all fields, to the rounding of sums in another order."""
    for name, value in first._asdict().items():
        if name not in but:
            np.testing.assert_allclose(getattr(second, name), value, rtol=rtol, atol=1e-6, err_msg=name)


@given(seed=SEEDS)
def test_the_order_of_a_batch_does_not_matter(seed):
    features, logits, labels, order, _ = drawn(seed)
    same(cp.prediction_stats(logits, labels), cp.prediction_stats(logits[order], labels[order]))
    same(cp.activation_stats(np.maximum(features, 0)), cp.activation_stats(np.maximum(features, 0)[order]))
    same(cp.image_stats(features), cp.image_stats(features[order]))
    np.testing.assert_allclose(cp.effective_rank(features), cp.effective_rank(features[order]), rtol=1e-3)
    np.testing.assert_allclose(cp.input_sensitivity(logits), cp.input_sensitivity(logits[order]), rtol=1e-3)


@given(seed=SEEDS)
def test_the_names_of_the_classes_do_not_matter(seed):
    _, logits, labels, _, names = drawn(seed)
    renamed, ids = logits[:, np.argsort(names)], names[labels]
    first, second = cp.prediction_stats(logits, labels), cp.prediction_stats(renamed, ids)
    same(first, second, but=("class_share", "top_class"))
    np.testing.assert_allclose(second.class_share[names], first.class_share)
    same(cp.label_stats(labels, CLASSES), cp.label_stats(ids, CLASSES), but=("class_counts", "format"))
    predicted = logits.argmax(axis=1)
    accuracy = [cp.balanced_accuracy(*pair, CLASSES) for pair in ((predicted, labels), (names[predicted], ids))]
    np.testing.assert_allclose(*accuracy, rtol=1e-6)


@given(seed=SEEDS)
def test_the_names_of_the_classes_do_not_matter_to_a_collapse(seed):
    rng = np.random.default_rng(seed)
    predicted, labels = (rng.multinomial(16, rng.dirichlet(np.ones(CLASSES)), size=12) for _ in range(2))
    names = rng.permutation(CLASSES)
    first, second = (
        cp.batch_collapse(predicted[:, order], labels[:, order]) for order in (np.arange(CLASSES), np.argsort(names))
    )
    np.testing.assert_allclose(second.top_share, first.top_share)
    np.testing.assert_allclose(second.index, first.index, atol=0.05)  # held against deals drawn at random


@given(seed=SEEDS, cut=st.sampled_from([1, 5, NUM - 1]))
def test_where_a_batch_is_split_does_not_matter(seed, cut):
    features = drawn(seed)[0]
    merged = merge_activations(activation_sums(features[:cut]), activation_sums(features[cut:]))
    same(cp.activation_stats(features), finish_activations(merged), rtol=1e-3)


@given(seed=SEEDS)
def test_jit_does_not_matter(seed):
    features, logits, labels, _, _ = drawn(seed)
    same(cp.prediction_stats(logits, labels), jax.jit(cp.prediction_stats)(logits, labels))
    same(cp.activation_stats(features), jax.jit(cp.activation_stats)(features))
    same(cp.gradient_stats(features), jax.jit(cp.gradient_stats)(features))


@given(seed=SEEDS, factor=st.sampled_from([1e-3, 0.5, 7.0, 1e3]))
def test_readings_scale_as_they_must(seed, factor):
    features = drawn(seed)[0]
    first, second = cp.gradient_stats(features), cp.gradient_stats(factor * features)
    np.testing.assert_allclose([second.norm, second.rms], [factor * first.norm, factor * first.rms], rtol=1e-4)
    ratios = [
        cp.update_ratio({"w": a}, {"w": b})
        for a, b in ((features, features + 1), (factor * features, factor * (features + 1)))
    ]
    np.testing.assert_allclose(*ratios, rtol=1e-4)
    np.testing.assert_allclose(cp.effective_rank(features), cp.effective_rank(factor * features), rtol=1e-2)


def two_layers(names):
    """A loss of two layers that have these names, and its parameters."""
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=shape).astype(np.float32) for shape in ((6, 5), (5, CLASSES)))

    def loss(params, x):
        return jnp.mean((jax.nn.relu(x @ params[names[0]]) @ params[names[1]]) ** 2)

    return loss, {names[0]: first, names[1]: second}


@pytest.mark.parametrize("names", [("z", "a"), ("same", "same2"), ("a/b", "<script>"), ("layer 1", "0")])
def test_the_names_of_layers_do_not_matter(names):
    x, found = drawn(0)[0], []
    for each in (("first", "second"), names):
        loss, params = two_layers(each)
        _, _, readings = cp.value_and_grad(loss)(params, x)
        stats = cp.layer_stats(readings)
        assert list(stats) == list(each)
        found.append([row._asdict() for row in stats.values()])
    assert str(found[0]) == str(found[1])  # NaN included
