"""How much of the image plane each layer still sees, read from the model's trace; nothing is run."""

import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from cnnprobe.doctor.bench import Bench
from cnnprobe.doctor.remedies_data import enlarged
from cnnprobe.tracing.calls import trace_call
from cnnprobe.tracing.layers import Layer, find_structure
from cnnprobe.tracing.pooled_axes import Pooled, misplaced_pools
from cnnprobe.tracing.program import Op, all_ops
from cnnprobe.types import Images, Outputs, Params, State

POOL = "reduce_window"  # how the names of all pools begin
CONVOLUTION = "conv_general_dilated"
FACTORS = (2, 4, 8)  # by which images are enlarged


def look_at_maps(bench: Bench, weights: tuple[Params, State] | None) -> tuple[dict[str, float], dict[str, str]]:
    """The smallest map, and the convolutions that are given a single place; images that a model's init refuses.

    `weights` are None where the model's init failed: then it is asked whether larger images would do.
    """
    images = jnp.asarray(bench.train.images[:2])
    if images.ndim != 4:
        return {}, {}
    if weights is None:
        factor = _factor_that_runs(bench, images)
        return ({"smallest map places": 0.0, "enlargement that runs": float(factor)} if factor else {}), {}
    apply = bench.problem.model.apply

    def outputs(params: Params, state: State, images: Images, key: jax.Array) -> Outputs:
        """The model's outputs alone."""
        return apply(params, state, images, key=key, train=True)[0]

    call = trace_call(outputs, (*weights, images, jax.random.key(0)), {}, [0])
    spatial = [layer for layer in find_structure(call.program, call.origins).layers if _is_spatial(layer)]
    single = [layer.name for layer in spatial if places_before(layer.op) <= 1]
    pooled = misplaced_pools(call.program)
    facts = {
        "pools over features and one side": float(len(pooled)),
        "spatial convolutions": float(len(spatial)),
        "convolutions on a single place": float(len(single)),
        "smallest map places": float(min(_places_after(all_ops(call.program)), default=math.nan)),
    }
    names = {"first convolution on a single place": next(iter(single), "")}
    return facts, names | ({"misplaced pool": _pool_text(pooled[0])} if pooled else {})


def _pool_text(pooled: Pooled) -> str:
    """Which axes of which map a pool goes over, in words."""
    return f"axes {pooled.axes} of a map of [batch, {', '.join(map(str, pooled.shape[1:]))}]"


def _factor_that_runs(bench: Bench, images: jax.Array) -> int | None:
    """The smallest enlargement of the images from which on the model's init goes through; None where none helps.

    A model that is written for one size of images runs at that size alone: that is another fault.
    """
    runs = {factor: _runs(bench, enlarged(images, factor)) for factor in (1, *FACTORS, 2 * FACTORS[-1])}
    return None if runs[1] else next((factor for factor in FACTORS if runs[factor] and runs[2 * factor]), None)


def _runs(bench: Bench, images: np.ndarray) -> bool:
    """Whether the model's init takes these images; only shapes are computed."""
    try:
        jax.eval_shape(lambda: bench.problem.model.init(jax.random.key(0), images))
    except Exception:  # whatever the user's init raises
        return False
    return True


def _is_spatial(layer: Layer) -> bool:
    """Whether a layer is a convolution that combines neighbouring places."""
    if layer.op.name != CONVOLUTION or layer.kind == "transposed-conv":
        return False
    shape = layer.op.equation.invars[1].aval.shape
    return math.prod(shape[axis] for axis in layer.op.params["dimension_numbers"].rhs_spec[2:]) > 1


def places_before(op: Op) -> int:
    """Places of the map that a convolution is given."""
    shape = op.equation.invars[0].aval.shape
    return math.prod(shape[axis] for axis in op.params["dimension_numbers"].lhs_spec[2:])


def _places_after(ops: Iterable[Op]) -> Iterable[int]:
    """Places of the maps that convolutions and pools leave."""
    for op in ops:
        after = op.equation.outvars[0].aval.shape if op.equation.outvars else ()
        if op.name == CONVOLUTION:
            yield math.prod(after[axis] for axis in op.params["dimension_numbers"].out_spec[2:])
        elif op.name.startswith(POOL) and "window_dimensions" in op.params:
            window = op.params["window_dimensions"]
            yield math.prod(side for side, width in zip(after, window, strict=True) if width > 1)
