"""Raw inputs of every kind to every probe: a reading or a clear error, and the inputs as they were."""

import tempfile
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnprobe as cp

NUM_TRIES = 150  # of each probe
SPECIAL = (0.0, 1.0, -1.0, 0.5, 255.0, 1e-40, 1e-300, 1e30, 1e300, np.nan, np.inf, -np.inf)
DTYPES = (bool, np.uint8, np.int8, np.int32, np.int64, np.float16, np.float32, np.float64)
SHAPES = ((), (0,), (1,), (3,), (8,), (0, 3), (1, 1), (3, 0), (8, 3), (8, 1), (4, 4, 1), (8, 4, 4, 1), (2, 8, 3))
ODD = (None, "image", [], [1, 2, 3], [[0.5, 0.5], [1.0]], np.array(["a", "b"]), np.array([1, "a"], object), 1j, 7)

PROBES = {
    "activation_stats": lambda a, b: cp.activation_stats(a),
    "balanced_accuracy": lambda a, b: cp.balanced_accuracy(a, b, 3),
    "batch_collapse": lambda a, b: cp.batch_collapse(a, b, num_permutations=2),
    "batch_label_entropy": lambda a, b: cp.batch_label_entropy(a, num_permutations=2),
    "class_ids": lambda a, b: cp.class_ids(a, 3),
    "cross_example_jacobian": lambda a, b: cp.cross_example_jacobian(lambda x: x, a),
    "duplicate_units": lambda a, b: cp.duplicate_units(a),
    "effective_rank": lambda a, b: cp.effective_rank(a),
    "gradient_cosine": lambda a, b: cp.gradient_cosine({"w": a}, {"w": b}),
    "gradient_stats": lambda a, b: cp.gradient_stats(a),
    "image_stats": lambda a, b: cp.image_stats(a),
    "input_sensitivity": lambda a, b: cp.input_sensitivity(a),
    "knn_consistency": lambda a, b: cp.knn_consistency(a, b, num_permutations=2),
    "label_stats": lambda a, b: cp.label_stats(a, 3),
    "log10_update_ratio": lambda a, b: cp.log10_update_ratio({"w": a}, {"w": b}),
    "mask_variance_ratio": lambda a, b: cp.mask_variance_ratio(a),
    "mode_gap": lambda a, b: cp.mode_gap(a, b),
    "moved_share": lambda a, b: cp.moved_share({"w": a}, {"w": b}),
    "prediction_stats": lambda a, b: cp.prediction_stats(a, b),
    "random_features": lambda a, b: cp.random_features(a),
    "ridge_accuracy": lambda a, b: cp.ridge_accuracy(a, b, num_permutations=2),
    "sign_update_share": lambda a, b: cp.sign_update_share({"w": a}, 0.1),
    "split_overlap": lambda a, b: cp.split_overlap(a, b),
    "statistics_drift": lambda a, b: cp.statistics_drift(a, b, a, b),
    "update_cosine": lambda a, b: cp.update_cosine({"w": a}, {"w": b}),
    "update_ratio": lambda a, b: cp.update_ratio({"w": a}, {"w": b}),
    "update_stats": lambda a, b: cp.update_stats(a, b),
}


@st.composite
def arrays(draw: st.DrawFn, shape: tuple[int, ...]) -> np.ndarray | jax.Array:
    """Ordinary and extreme numbers in every layout that numpy has; some on the device."""
    dtype = draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    values = rng.normal(scale=draw(st.sampled_from((0.0, 1.0, 50.0))), size=shape)
    share = draw(st.sampled_from((0.0, 0.0, 0.3, 1.0)))
    values = np.where(rng.random(shape) < share, draw(st.sampled_from(SPECIAL)), values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what does not fit the type wraps round
        array = np.asarray(values).astype(dtype)
    layout = draw(st.sampled_from(("plain", "read only", "reversed", "fortran", "on the disk", "device")))
    if layout == "device":
        return jnp.asarray(array)
    if layout == "on the disk" and array.size:
        mapped = np.memmap(tempfile.TemporaryFile(), array.dtype, "w+", shape=array.shape)  # noqa: SIM115
        mapped[...] = array
        return mapped
    array = {"reversed": array[::-1] if array.ndim else array, "fortran": np.asfortranarray(array)}.get(layout, array)
    array.flags.writeable = layout != "read only"
    return array


NOTHING = "."


def complaint(probe, a, b) -> str:
    """What a probe says of its arguments."""
    try:
        jax.block_until_ready(probe(a, b))
    except ValueError as error:
        return str(error)
    return NOTHING


@st.composite
def pairs(draw: st.DrawFn) -> tuple:
    """Two arguments: arrays of one shape or length, of any shapes, or something odd."""
    shape = draw(st.sampled_from(SHAPES))
    other = draw(st.sampled_from((shape, shape[:1], draw(st.sampled_from(SHAPES)))))
    odd = st.sampled_from(ODD)
    either = (draw(arrays(shape)), draw(arrays(other)))
    return draw(st.sampled_from((either, either, either, (either[0], None), (either[0], draw(odd)), (draw(odd), None))))


@pytest.mark.parametrize("name", PROBES)
def test_a_reading_or_a_clear_error(name):
    refused = []

    @settings(max_examples=NUM_TRIES)
    @given(pair=pairs())
    def search(pair):
        a, b = pair
        before = [np.array(x, copy=True) if isinstance(x, np.ndarray) else None for x in (a, b)]
        said = complaint(PROBES[name], a, b)
        assert said.endswith(".")  # a sentence of ours, not one from the depths
        refused.append(said != NOTHING)
        for x, kept in zip((a, b), before, strict=True):
            if kept is not None and kept.dtype != object:
                np.testing.assert_array_equal(x, kept)

    search()
    print(f"{name}: {len(refused)} tries, {sum(refused)} refused")
    assert refused.count(False) >= 3  # readings were given, too
