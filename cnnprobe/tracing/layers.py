"""The layers of a program: its convolutions and products of data with parameters."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from cnnprobe.tracing import compat
from cnnprobe.tracing.axes import layer_axes
from cnnprobe.tracing.following import Output, follow
from cnnprobe.tracing.program import Op, Operand, Program, View, all_ops
from cnnprobe.tracing.provenance import PRODUCTS, Origin, Origins, is_parameter, origin_of, shared_name, trace_origins


class Layer(NamedTuple):
    """One use of one kernel."""

    name: str  # its parameter's path: "conv1", "layers/2"; a second use is "conv1#1"
    kind: str  # "conv", "depthwise-conv", "grouped-conv", "transposed-conv" or "dense"
    op: Op
    kernel: int  # which operand of `op` holds the parameters
    kernel_params: frozenset[str]  # paths of the parameters that its kernel is made of
    params: frozenset[str]  # these, its bias and the normalisation that follows
    output: Output
    num_features: int
    scans: tuple[tuple[int, int], ...]  # (loop, turns) of the loops that hand it a new kernel each turn
    is_repeated: bool  # inside a loop or a branch
    num_turns: int  # turns of all loops around it

    @property
    def activation(self) -> str:
        """Name of the activation it goes through, or ""."""
        return self.output.activation.name if self.output.activation else ""


class Structure(NamedTuple):
    """What a program is made of."""

    program: Program
    origins: Origins
    layers: tuple[Layer, ...]  # in program order
    skipped: tuple[str, ...]  # operations that hold layers but cannot be looked into, and convolutions of no layer


def find_structure(program: Program, inputs: list[Origin]) -> Structure:
    """Finds the layers of `program`, whose inputs have the origins `inputs`."""
    origins = trace_origins(program, inputs)
    uses: Counter[str] = Counter()
    layers = [_numbered(layer, uses) for layer in _layers(program, origins, {}, frozenset(), is_repeated=False)]
    return Structure(program, origins, tuple(layers), (*_closed(program), *_nameless(program, layers)))


def _numbered(layer: Layer, uses: Counter[str]) -> Layer:
    """Tells a second use of the same kernel from the first."""
    uses[layer.name] += 1
    uses_before = uses[layer.name] - 1
    return layer._replace(name=f"{layer.name}#{uses_before}") if uses_before else layer


def _layers(
    program: Program, origins: Origins, turns: Mapping[int, int], helpers: frozenset[int], is_repeated: bool
) -> Iterator[Layer]:
    """Layers in program order; `turns` is the length of each loop around, `helpers` are products that are none."""
    view = View(program)
    kernels = {op.outputs[0]: kernel for op in program.ops if (kernel := _kernel_operand(op, origins)) is not None}
    helpers |= {
        product
        for value, kernel in kernels.items()
        for product in _products_in(view, origins, program.ops[view.producers[value]].inputs[kernel])
    }
    for op in program.ops:
        if op.outputs and op.outputs[0] in kernels.keys() - helpers:
            yield _layer(view, origins, op, kernels[op.outputs[0]], turns, is_repeated)
        elif is_open(op):
            parts = compat.scan_parts(op)
            inner = {**turns, op.outputs[0]: parts.settings["length"]} if parts and op.outputs else turns
            for body in op.bodies:
                yield from _layers(body, origins, inner, helpers, is_repeated or not compat.is_remat(op))


def is_open(op: Op) -> bool:
    """Whether the bodies of `op` can be looked into and rebuilt."""
    return compat.scan_parts(op) is not None or compat.is_remat(op) or compat.is_branch(op)


def _kernel_operand(op: Op, origins: Origins) -> int | None:
    """Number of the operand that holds parameters, if the other one comes from data; forward passes only."""
    if op.name not in PRODUCTS or compat.is_backward(op):
        return None
    sides = [origin_of(origins, ref) for ref in op.inputs[:2]]
    pure = [side for side in (0, 1) if is_parameter(sides[side]) and sides[1 - side].data]
    masked = [side for side in (0, 1) if sides[side].is_kernel] if all(side.data for side in sides) else []
    if op.name == "conv_general_dilated" and 1 in masked:
        return 1
    return (pure or masked)[0] if len(pure or masked) == 1 else None


def _products_in(view: View, origins: Origins, kernel: Operand) -> Iterator[int]:
    """The products that only help to make a kernel, as in the power iteration of spectral normalisation."""
    origin = origin_of(origins, kernel)
    return _products_behind(view, origins, kernel, origin.params) if origin.data else iter(())


def _products_behind(view: View, origins: Origins, value: Operand, params: frozenset[str]) -> Iterator[int]:
    """The products with `params` that `value` is computed from, those in branches and loops included."""
    queue, seen = [value], set[Operand]()
    while queue:
        op = view.producer(ref := queue.pop())
        if op is None or ref in seen or compat.is_backward(op):
            continue
        seen.add(ref)
        queue += [operand for operand in op.inputs if isinstance(operand, int)]
        if op.name in PRODUCTS and params & origin_of(origins, ref).params:
            yield op.outputs[0]
        for body in op.bodies if is_open(op) else ():
            yield from _products_behind(View(body), origins, body.outputs[op.outputs.index(ref)], params)


def _layer(view: View, origins: Origins, op: Op, kernel: int, turns: Mapping[int, int], is_repeated: bool) -> Layer:
    """The layer whose operation is `op`."""
    origin = origin_of(origins, op.inputs[kernel])
    name = shared_name(origin.params)
    axes = layer_axes(op, kernel)
    output = follow(view, origins, op.outputs[0], axes)
    num_features = math.prod(view.shape(output.value)[axis] for axis in output.axes)
    scans = tuple((loop, length) for loop, length in turns.items() if loop in origin.scans)
    params = origin.params | output.params
    num_turns = math.prod(turns.values())
    kind = _kind(op)
    return Layer(name, kind, op, kernel, origin.params, params, output, num_features, scans, is_repeated, num_turns)


def _kind(op: Op) -> str:
    """What kind of layer an operation is."""
    if op.name == "dot_general":
        return "dense"
    groups = op.params["feature_group_count"]
    if any(step > 1 for step in op.params["lhs_dilation"]):
        return "transposed-conv"
    if groups == 1:
        return "conv"
    channels = op.equation.invars[0].aval.shape[op.params["dimension_numbers"].lhs_spec[1]]
    return "depthwise-conv" if groups == channels else "grouped-conv"


def _closed(program: Program) -> Iterator[str]:
    """Operations with layers inside that stay closed, in words."""
    for op in program.ops:
        hidden = sum(inner.name in PRODUCTS for body in op.bodies for inner in all_ops(body))
        if is_open(op):
            for body in op.bodies:
                yield from _closed(body)
        elif hidden:
            label = op.params.get("name", "")
            yield f"{op.name}{f' {label}' if label else ''} ({hidden} convolutions or products inside)"


def _nameless(program: Program, layers: Sequence[Layer]) -> Iterator[str]:
    """Convolutions in the open that belong to no layer, in words."""
    named = {layer.op.outputs[0] for layer in layers}
    found = [op for op in _open_ops(program) if op.name == "conv_general_dilated" and op.outputs[0] not in named]
    if count := sum(not compat.is_backward(op) for op in found):
        yield f"conv_general_dilated ({count} with a kernel that is no parameter)"


def _open_ops(program: Program) -> Iterator[Op]:
    """Every operation, but for those of bodies that stay closed."""
    for op in program.ops:
        yield op
        for body in op.bodies if is_open(op) else ():
            yield from _open_ops(body)
