"""What the network does with its images: before any update, and after the run."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnnprobe.compiling import quick_jit
from cnnprobe.doctor.bench import Bench, main_output, scores_of
from cnnprobe.doctor.compiled import compiled_first_inputs, input_sensitivity
from cnnprobe.doctor.looks.loss import name_outputs
from cnnprobe.doctor.run import evaluated
from cnnprobe.probes.modes import cross_example_jacobian
from cnnprobe.trees import is_floating, per_layer
from cnnprobe.types import Images, Params, State

NUM_PROBED = 256  # images
NUM_CROSSED = 8  # images whose Jacobian is looked at
SMALLEST_FAN_IN = 4  # weights below which the cosine of two random units is large by chance
COPIES = 0.9999  # cosine from which two units are one
TINY = 1e-30


class Probed(NamedTuple):
    """What the model returns for the probe images."""

    raw: Any  # as the model returns it
    scores: Float[np.ndarray, "batch units"]


def run_forward(bench: Bench, weights: tuple[Params, State]) -> Probed:
    """The model's outputs in evaluation mode."""
    images = bench.train.images[:NUM_PROBED]
    raw = evaluated(bench.problem, bench, weights, images)
    return Probed(raw, scores_of(raw, bench.num_classes))


def look_at_outputs(bench: Bench, outputs: Probed) -> tuple[dict[str, float], dict[str, str]]:
    """Shape and range of the outputs, and what they look like."""
    first, scores = main_output(outputs.raw, bench.num_classes), outputs.scores
    finite = scores[np.all(np.isfinite(scores), axis=1)]
    facts = {
        "output rank": float(first.ndim),
        "output width": float(scores.shape[1]),
        "output places": float(np.prod(first.shape[1:-1])),
        "number of outputs": float(len(jax.tree.leaves(outputs.raw))),
    }
    if len(finite):
        facts |= {
            "output min": float(finite.min()),
            "output max": float(finite.max()),
            "output zero share": float(np.mean(finite == 0)),
            "output row sum": float(np.mean(finite.sum(axis=1))),
        }
    names = {
        "outputs": name_outputs(scores),
        "output shape": "x".join(map(str, first.shape[1:])),
        "image shape": "x".join(map(str, bench.train.images.shape[1:])),
    }
    return facts, names


def sensitivity(scores: Float[np.ndarray, "batch units"], num_classes: int) -> float:
    """How much of the scores differs between images; scores that are no class's own, as thresholds, against zero."""
    both = np.concatenate([scores, -scores], axis=1) if scores.shape[1] < num_classes else scores
    return float(input_sensitivity(both))


def first_loss(bench: Bench, outputs: Probed, *, is_penalised: bool) -> Any:
    """What the user's loss returns for the first outputs, in a batch of the user's size; without the penalty if any."""
    size = min(bench.problem.batch_size, len(outputs.scores))

    def kept(leaf: Array) -> Array:
        """The rows of a batch; of a single number nothing, where that is the penalty."""
        if np.ndim(leaf):
            return jnp.asarray(leaf)[:size]
        return jnp.zeros_like(leaf) if is_penalised else leaf

    rows = jax.tree.map(kept, outputs.raw)
    return bench.problem.loss(rows, jnp.asarray(bench.train.labels[:size]))


def look_at_symmetry(first: Params, last: Params) -> tuple[dict[str, float], str]:
    """How alike the units of the most symmetric layer are before the run and after it, and the layer's name.

    A layer that starts with equal units and ends with different ones is sound: an output layer of zeros, whose units
    the labels tell apart. So the layer whose likeness lasts is the one reported. A layer of zeros is sound where its
    units part at all: a residual branch that starts as nothing.
    """
    pairs = per_layer(lambda a, b: _likenesses(np.asarray(a), np.asarray(b)), first, jax.device_get(last))
    lasting = {name: pair for name, pair in pairs.items() if not np.isnan(pair).any()}
    if not lasting:
        return {}, ""
    worst = max(lasting, key=lambda name: min(lasting[name]))
    before, after = lasting[worst]
    return {"initial unit likeness": before, "last unit likeness": after}, worst


def _likenesses(first: np.ndarray, last: np.ndarray) -> tuple[float, float]:
    """`_likeness` of one layer before the run and after it; NaN for zeros whose units have parted."""
    before, after = _likeness(first), _likeness(last)
    return (math.nan, math.nan) if not first.any() and after < COPIES else (before, after)


def _likeness(kernel: np.ndarray) -> float:
    """Median cosine between the weights of two units: about 0 drawn at random, 1 for copies; NaN for no kernel."""
    if (
        kernel.ndim < 2
        or kernel.shape[-1] < 2
        or kernel[..., 0].size < SMALLEST_FAN_IN
        or not np.all(np.isfinite(kernel))
    ):
        return float("nan")
    if np.ptp(kernel) == 0:
        return 1.0
    units = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)
    units = units / np.maximum(np.linalg.norm(units, axis=0), TINY)
    cosines = units.T @ units
    return float(np.median(cosines[np.triu_indices(len(cosines), 1)]))


def look_at_first_layer(bench: Bench, weights: tuple[Params, State]) -> dict[str, float]:
    """Mean and standard deviation of what the first layer is fed: the images as the model itself prepares them."""
    feed = compiled_first_inputs(bench.problem.model)
    fed = np.asarray(feed(*weights, bench.train.images[:NUM_PROBED], jax.random.key(0)), np.float32)
    return {"first layer input mean": float(fed.mean()), "first layer input standard deviation": float(fed.std())}


def look_across_examples(bench: Bench, weights: tuple[Params, State]) -> dict[str, float]:
    """Share of the outputs' Jacobian that crosses from one image to another, in evaluation mode."""
    images = jnp.asarray(bench.train.images[:NUM_CROSSED])
    if not is_floating(images):
        return {}
    apply = bench.problem.model.apply

    @quick_jit
    def share(params: Params, state: State, images: Images) -> Float[Array, ""]:
        """The reading, compiled whole."""

        def rows(images: Images) -> Array:
            """The first of the outputs that has a row for each image."""
            outputs, _ = apply(params, state, images, key=jax.random.key(0), train=False)
            return next(leaf for leaf in jax.tree.leaves(outputs) if jnp.shape(leaf)[:1] == (len(images),))

        return cross_example_jacobian(rows, images)

    return {"cross example share": float(share(*weights, images))}
