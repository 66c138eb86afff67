"""Whether this version of jax describes programs in the way that cnnprobe reads them."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnnprobe.tracing import compat
from cnnprobe.tracing.interpret import Edit, evaluate
from cnnprobe.tracing.layers import find_structure
from cnnprobe.tracing.program import Op, Program, all_ops
from cnnprobe.tracing.provenance import Origin

PARAMS = {"conv": (3, 3, 2, 4), "blocks": (3, 4, 4), "head": (4, 2)}
IMAGES = (2, 5, 5, 4)
LAYERS = [
    ("conv", "grouped-conv", "relu", 4, ()),
    ("blocks", "dense", "tanh", 4, (3,)),
    ("head", "dense", "softmax", 2, ()),
]
REBUILT = (
    "conv_general_dilated",
    "dot_general",
    "scan",
    "cond",
    "custom_jvp_call",
    "tanh",
    "exp",
    "stop_gradient",
    "remat",
)


def check_jax() -> None:
    """Raises `RuntimeError` if this version of jax describes programs in a way that cnnprobe does not know.

    The first call traces one small function, in a few milliseconds; nothing is compiled. Later calls cost nothing.
    """
    if problem := _problem():
        raise RuntimeError(
            f"cnnprobe's tracing does not know this jax version {jax.__version__}: {problem}. Taps, model graphs and "
            "surgery need a version of jax that this cnnprobe supports; probes of parameters and gradients still work."
        )


@functools.cache
def _problem() -> str:
    """What is read wrongly of the example, in words; "" if nothing is."""
    try:
        return _difference()
    except Exception as error:  # whatever a changed jax makes the reading code raise, it is told in one way
        return f"{type(error).__name__} while reading a program: {error}"


def _difference() -> str:
    """Reads the example, runs it again with every layer edited, and compares both with what they should be."""
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in PARAMS.items()}
    inputs = [*params.values(), jax.ShapeDtypeStruct(IMAGES, jnp.float32)]
    program = compat.linearise(jax.make_jaxpr(_example)(*inputs))
    origins = [*(Origin(frozenset({name}), is_kernel=True) for name in params), Origin(data=True)]
    layers = find_structure(program, origins).layers
    found = [
        (layer.name, layer.kind, layer.activation, layer.num_features, tuple(turns for _, turns in layer.scans))
        for layer in layers
    ]
    if found != LAYERS:
        return f"expected the layers {LAYERS}, found {found}"
    edits = {layer.output.value: Edit(lambda value, _read, _slot: (value, None)) for layer in layers}
    again = compat.linearise(jax.make_jaxpr(lambda *inputs: evaluate(program, inputs, edits, {}).outputs)(*inputs))
    expected, rebuilt = _shapes(program), _shapes(again)
    wrong = [
        f"{name} gives {rebuilt[name]} and not {expected[name]}" for name in REBUILT if rebuilt[name] != expected[name]
    ]
    return f"run again, {'; '.join(wrong)}" if wrong else ""


def _example(
    conv: Float[Array, "3 3 2 4"], blocks: Float[Array, "3 4 4"], head: Float[Array, "4 2"], x: Float[Array, "b h w c"]
) -> Float[Array, "b classes"]:
    """A convolution, a loop over rematerialised layers, a branch and a head."""
    dimensions = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x, conv, (1, 1), "SAME", dimension_numbers=dimensions, feature_group_count=2)
    y = jax.nn.relu(y).transpose(0, 3, 1, 2).mean((2, 3))
    layer = jax.checkpoint(lambda y, w: jnp.tanh(y @ w))
    y, _ = jax.lax.scan(lambda y, w: (layer(y, w), None), y, blocks)
    y = jax.lax.cond(y.sum() > 0, lambda y: y, lambda y: -y, jax.lax.stop_gradient(y))
    return jax.jit(jax.nn.softmax)(y @ head)


def _shapes(program: Program) -> dict[str, list]:
    """What each of a few operations returns, bodies included."""
    ops = list(all_ops(program))
    return {
        name: [program.types[value].shape for op in ops for value in op.outputs if name in (op.name, _role(op))]
        for name in REBUILT
    }


def _role(op: Op) -> str:
    """A name for what jax has called by several."""
    return "remat" if compat.is_remat(op) else ""
