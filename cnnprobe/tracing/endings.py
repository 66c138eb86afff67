"""What a program's output goes through last."""

from cnnprobe.tracing import compat
from cnnprobe.tracing.activations import Activation, activation_name, elementwise_values, find_softmax
from cnnprobe.tracing.program import Program, View, root

MAX_STEPS = 12  # operations looked at in front of the output


def output_activation(program: Program) -> Activation | None:
    """The activation that makes the program's first output, up to reshaping and conversion; None if there is none."""
    if not program.outputs:
        return None
    view = View(program)
    result = root(view, program.outputs[0])
    op = view.producer(result)
    if op is None or not isinstance(result, int):
        return None
    if compat.is_remat(op):
        body = op.bodies[0]
        return output_activation(body._replace(outputs=(body.outputs[op.outputs.index(result)],)))
    return activation_behind(view, result)


def activation_behind(view: View, result: int) -> Activation | None:
    """The activation that makes `result`."""
    found = []
    for source in _sources(view, result):
        softmax = find_softmax(view, source)
        if softmax is not None and softmax.result == result:
            found.append(softmax)
        values = elementwise_values(view, source).get(result)
        if values is not None and values.dtype != bool and (name := activation_name(values)):
            return Activation(name, source, result)
    # The shifted logits inside a softmax have the same softmax as the logits: take what came first.
    return found[-1] if found else None


def _sources(view: View, result: int) -> list[int]:
    """Values of the same shape that `result` is computed from, nearest first."""
    level, found = [result], list[int]()
    for _ in range(MAX_STEPS):
        operands = [ref for value in level if (op := view.producer(value)) for ref in op.inputs if isinstance(ref, int)]
        level = list(dict.fromkeys(ref for ref in operands if ref not in found))
        found += level
    return [value for value in found if view.shape(value) == view.shape(result)]
