import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnprobe.probes.vectors import check_same_shapes, tree_cosine, tree_dot, tree_norm

VECTORS = arrays(np.float32, 6, elements=st.floats(-100, 100, width=32, allow_subnormal=False))


def tree(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(scale * rng.normal(size=shape), jnp.float32)  # noqa: E731
    return {"conv": {"kernel": draw(3, 3, 2), "bias": draw(2)}, "scale": draw()}


def flat(vector):
    leaves = [vector["conv"]["bias"], vector["conv"]["kernel"], vector["scale"]]
    return np.concatenate([np.ravel(leaf) for leaf in leaves]).astype(np.float64)


def test_products_match_definition(variant):
    a, b = tree(0), tree(1)
    norms = [np.sqrt(sum(x * x for x in flat(vector))) for vector in (a, b)]
    dot = sum(x * y for x, y in zip(flat(a), flat(b), strict=True))
    got = [variant(tree_dot)(a, b), variant(tree_norm)(a), variant(tree_cosine)(a, b)]
    np.testing.assert_allclose(got, [dot, norms[0], dot / norms[0] / norms[1]], rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-33, 1e-25, 1e25, 3e37])
def test_no_scale_is_too_small_or_too_large(variant, scale):
    a, b = tree(0), tree(1, scale)
    np.testing.assert_allclose(variant(tree_cosine)(a, b), tree_cosine(a, tree(1)), rtol=1e-4)
    np.testing.assert_allclose(variant(tree_norm)(b) / scale, np.linalg.norm(flat(tree(1))), rtol=1e-4)


@given(VECTORS, VECTORS)
@settings(max_examples=30, deadline=None)
def test_cosine_is_symmetric_and_bounded(a, b):
    cosine = float(tree_cosine(a, b))
    assert -1 <= cosine <= 1
    np.testing.assert_allclose([cosine, -cosine], [tree_cosine(b, a), tree_cosine(a, -b)], atol=1e-6)


@pytest.mark.parametrize(("b", "cosine"), [([0.0, 0.0], 0), ([np.nan, 1.0], np.nan), ([np.inf, 1.0], np.nan)])
def test_cosine_at_its_edges(variant, b, cosine):
    np.testing.assert_equal(float(variant(tree_cosine)(jnp.array([1.0, 2.0]), jnp.array(b))), cosine)


def test_sums_are_taken_in_float32(variant):
    ones = jnp.full(4096, 1.0, jnp.bfloat16)
    assert (variant(tree_dot)(ones, ones), variant(tree_norm)(ones)) == (4096, 64)


@pytest.mark.parametrize("empty", [{}, jnp.zeros((0, 3))])
def test_nothing_has_no_length(empty):
    assert (tree_norm(empty), tree_cosine(empty, empty)) == (0, 0)


def test_structures_must_agree():
    with pytest.raises(ValueError, match=r"a and b must have the same structure, got .*'x'.* and .*'y'"):
        check_same_shapes("a", {"x": jnp.ones(2)}, "b", {"y": jnp.ones(2)})


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"a and b must have the same shapes, got \(2,\) and \(3,\) at 'x/y'"):
        check_same_shapes("a", {"x": {"y": jnp.ones(2)}}, "b", {"x": {"y": jnp.ones(3)}})
