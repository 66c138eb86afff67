"""What the axes of a model's input stand for: examples, places, channels."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from cnnprobe.tracing.fields import Field, Fields, field_of, find_fields
from cnnprobe.tracing.layers import Structure
from cnnprobe.tracing.provenance import Origin


class Roles(NamedTuple):
    """The image input of a program and what every value sees of it."""

    fields: Fields  # empty where the program takes no data
    shape: tuple[int, ...]  # of the input
    batch: int | None  # the input's axis of examples; None for a single example
    places: tuple[int, ...]  # the input's spatial axes; empty without a convolution


def find_roles(structure: Structure, origins: Sequence[Origin]) -> Roles:
    """Takes the largest of the data inputs with most axes for the images; the first convolution names its axes."""
    program = structure.program
    inputs = [value for value, origin in zip(program.inputs, origins, strict=True) if origin.data]
    if not inputs:
        return Roles({}, (), None, ())
    image = max(inputs, key=lambda value: (len(program.types[value].shape), math.prod(program.types[value].shape)))
    fields = find_fields(program, image)
    return Roles(fields, program.types[image].shape, *_axes(structure, fields, image))


def _axes(structure: Structure, fields: Fields, image: int) -> tuple[int | None, tuple[int, ...]]:
    """Input axes of examples and of places."""
    for layer in structure.layers:
        field = field_of(fields, layer.op.inputs[1 - layer.kernel])
        if layer.op.name == "conv_general_dilated" and layer.kernel == 1 and field:
            spec = layer.op.params["dimension_numbers"].lhs_spec
            by_length = sorted(field, key=lambda source: structure.program.types[image].shape[source])
            found = {field[source].axis: source for source in by_length}  # the longest, where several run along one
            return found.get(spec[0]), tuple(found[axis] for axis in spec[2:] if axis in found)
    return (0, ()) if len(structure.program.types[image].shape) > 1 else (None, ())


def is_local(field: Field, sources: Sequence[int]) -> bool:
    """Whether a value has different views of all of these input axes at different positions."""
    return all(source in field and field[source].axis is not None for source in sources)


def own_axes(field: Field, sources: Sequence[int]) -> tuple[int, ...]:
    """The axes of a value that run along these input axes."""
    axes = (field[source].axis for source in sources if source in field)
    return tuple(axis for axis in axes if axis is not None)
