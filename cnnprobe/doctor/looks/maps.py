"""How much of the image plane each layer still sees, read from the model's trace; nothing is run."""

import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from cnnprobe.doctor.bench import Bench
from cnnprobe.doctor.looks.layout import has_channels_first
from cnnprobe.doctor.remedies_data import enlarged
from cnnprobe.tracing.calls import trace_call
from cnnprobe.tracing.layers import Structure, find_structure
from cnnprobe.tracing.pooled_axes import Pooled, misplaced_pools
from cnnprobe.tracing.program import Op, all_ops
from cnnprobe.tracing.sides import SIDES, OneSided, is_spatial, one_sided
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
    structure = find_structure(call.program, call.origins)
    spatial = [layer for layer in structure.layers if is_spatial(layer)]
    single = [layer.name for layer in spatial if places_before(layer.op) <= 1]
    pooled, narrow = misplaced_pools(call.program), one_sided(structure)
    facts = {
        "pools over features and one side": float(len(pooled)),
        "side read as channels": float(_reads_side_as_channels(structure, bench.train.images)),
        "spatial convolutions": float(len(spatial)),
        "convolutions along one side": float(len(narrow)),
        "convolutions with the height in the batch": float(sum(len(each.window.size) == 1 for each in narrow)),
        "convolutions on a single place": float(len(single)),
        "smallest map places": float(min(_places_after(all_ops(call.program)), default=math.nan)),
    }
    names = {"first convolution on a single place": next(iter(single), "")}
    names |= {"misplaced pool": _pool_text(pooled[0])} if pooled else {}
    return facts, names | (_side_names(narrow[0]) if narrow else {})


def _reads_side_as_channels(structure: Structure, images: np.ndarray) -> bool:
    """Whether images with channels in front go into a first convolution that looks for channels at the end."""
    op = next((layer.op for layer in structure.layers if layer.op.name == CONVOLUTION), None)
    if op is None or not has_channels_first(images):
        return False
    given = op.equation.invars[0].aval.shape
    return given[1:] == images.shape[1:] and op.params["dimension_numbers"].lhs_spec[1] == len(given) - 1


def _side_names(narrow: OneSided) -> dict[str, str]:
    """The side that windows are wide along, the one that they never see, and the shape of the first kernel."""
    shape = narrow.layer.op.equation.invars[1].aval.shape
    return {
        "seen side": SIDES[narrow.side],
        "unseen side": SIDES[1 - narrow.side],
        "one-sided kernel": f"the kernel of {narrow.layer.name} has the shape {'x'.join(map(str, shape))}",
    }


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
