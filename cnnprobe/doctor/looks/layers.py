"""What flows through each layer, before the run and after it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnnprobe.compiling import quick_jit
from cnnprobe.doctor.bench import Bench
from cnnprobe.doctor.run import ROWS, Run
from cnnprobe.tracing.readings import LayerStats, layer_stats
from cnnprobe.tracing.taps import value_and_grad
from cnnprobe.types import Images, LayerRow, Params, State

NUM_PROBED = 256  # images
FEWEST_PROBED = 16
MAX_NUMBERS = 4_000_000  # entries of all probe images: their maps and gradients are kept at once
LAST_STEPS = 20  # over which the size of the updates is averaged
TINY = 1e-30  # of squares, under the logarithm


def _stats_of(bench: Bench, weights: list[tuple[Params, State]]) -> list[dict[str, LayerStats]]:
    """Readings of the user's loss on the probe images, in evaluation mode, for several weights."""
    num = int(np.clip(MAX_NUMBERS // bench.train.images[0].size, FEWEST_PROBED, NUM_PROBED))
    images = jnp.asarray(bench.train.images[:num])
    labels = jnp.asarray(bench.train.labels[:num])
    apply, loss = bench.problem.model.apply, bench.problem.loss

    def loss_fn(params: Params, state: State, images: Images) -> Float[Array, ""]:
        """The user's loss of the probe images."""
        return loss(apply(params, state, images, key=jax.random.key(0), train=False)[0], labels)

    tapped = quick_jit(lambda params, state, images: value_and_grad(loss_fn)(params, state, images)[2])
    return [layer_stats(tapped(*weight, images)) for weight in weights]


def _leaf_of(run: Run, layer: str) -> int | None:
    """The largest parameter of a layer: its kernel."""
    owned = [i for i, name in enumerate(run.leaf_names) if name == layer or name.startswith(layer + "/")]
    return max(owned, key=lambda i: run.leaf_sizes[i], default=None)


def _row(run: Run, name: str, stats: LayerStats) -> LayerRow:
    """One layer's readings, with those of its kernel from the last steps."""
    leaf = _leaf_of(run, name.split("#")[0])
    gradient = ratio = float("nan")
    if leaf is not None:
        sums = dict(zip(ROWS, np.asarray(run.leaves[-LAST_STEPS:, :, leaf], np.float64).mean(axis=0), strict=True))
        gradient = math.sqrt(sums["gradient"] / run.leaf_sizes[leaf])
        moved = sums["update"] / max(sums["param"], TINY)
        ratio = 0.5 * math.log10(moved) if moved > 0 else -math.inf
    return LayerRow(
        name=name,
        kind=stats.kind,
        activation=stats.activation,
        activation_std=stats.std,
        zero_share=stats.zero_share,
        dead_share=stats.dead_share,
        activation_gradient_rms=stats.gradient_rms,
        gradient_rms=gradient,
        log10_update_ratio=ratio,
    )


def _most(values: list[float]) -> float:
    """The largest that is a number; NaN without any."""
    return max((value for value in values if not math.isnan(value)), default=float("nan"))


def look_at_layers(bench: Bench, run: Run) -> tuple[tuple[LayerRow, ...], dict[str, float]]:
    """One row a layer at the end of the run, and the share of dead units in the worst layer before and after."""
    before, after = _stats_of(bench, [run.first, run.last])
    facts = {
        "initial dead unit share": _most([stats.dead_share for stats in before.values()]),
        "dead unit share": _most([stats.dead_share for stats in after.values()]),
    }
    return tuple(_row(run, name, stats) for name, stats in after.items()), facts
