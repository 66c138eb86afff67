"""The records of a model's graph, and how it prints."""

from collections.abc import Sequence
from typing import NamedTuple

from cnnprobe.tracing.fields import Shape
from cnnprobe.tracing.steps import Step
from cnnprobe.tracing.windows import Window, padding_name, shape_text


class LayerNode(NamedTuple):
    """One layer of a model."""

    name: str  # the path of its parameters
    kind: str  # "conv", "depthwise-conv", "grouped-conv", "transposed-conv" or "dense"
    input_shape: Shape  # with the batch axis
    kernel_shape: Shape
    output_shape: Shape  # of the layer's own operation, with the batch axis
    num_params: int  # of its kernel and bias; 0 for a second use of the same kernel
    activation: str  # what its output goes through, or ""
    normalisation: str  # name of the normalisation that its output goes through, or ""
    num_repeats: int  # turns of a loop that hands it new parameters each time; 1 outside
    num_inputs: int  # values that one output is a sum over, for each tap of a window: channels of a group, or units
    num_features: int  # output channels or units
    window: Window | None  # of a convolution
    input_places: Shape  # spatial shape of a convolution's input; () for a dense layer
    output_places: Shape  # spatial shape of its output
    multiply_adds: int  # for one example, all turns of loops together
    field: Shape  # receptive field: input places that an output sees, by spatial axis; () where there is none
    field_stride: tuple[float, ...]  # input places between neighbouring outputs; 0 where all see the same
    steps: tuple[Step, ...]  # what stands between this layer and the next, in program order

    @property
    def padding(self) -> str:
        """The word "valid" or "same", or the pairs of paddings; "" for a dense layer."""
        return padding_name(self.window, self.input_places) if self.window else ""


class OtherParams(NamedTuple):
    """Parameters that belong to no layer: those of a normalisation, an embedding, a scale."""

    name: str  # path of the group
    num_params: int


class ModelGraph(NamedTuple):
    """A model as its layers, in program order."""

    layers: tuple[LayerNode, ...]
    num_params: int  # entries of all parameters, those of no layer included
    input_shape: Shape  # of one image
    input_places: Shape  # spatial shape of the images; () without a convolution
    output_shape: Shape  # of the first output
    output_activation: str  # what the first output went through last: "softmax", ... or ""
    dropout_rates: tuple[float, ...]  # of the dropouts that are active in this trace
    normalisations: tuple[str, ...]  # names of the normalisations behind layers
    skipped: tuple[str, ...]  # what holds layers but could not be looked into
    first_steps: tuple[Step, ...]  # what stands in front of the first layer
    others: tuple[OtherParams, ...]  # with the layers' own, these are all parameters

    @property
    def multiply_adds(self) -> int:
        """Of all layers, for one example; products of data with data, as in attention, are no layers."""
        return sum(layer.multiply_adds for layer in self.layers)

    def __str__(self) -> str:
        """The model as a table."""
        header = ("layer", "kind", "window", "output", "parameters", "multiply-adds", "receptive field", "then")
        rows = [header, *(_row(layer) for layer in self.layers)]
        rows += [(other.name, "", "", "", f"{other.num_params:,}", "", "", "") for other in self.others]
        totals = (f"{self.num_params:,} parameters", f"{self.multiply_adds:,} multiply-adds per example")
        output = f"output {shape_text(self.output_shape)} {self.output_activation}".rstrip()
        facts = [", ".join((*totals, output))]
        facts += [f"before the first layer: {steps_text(self.first_steps)}"] if self.first_steps else []
        facts += [f"not looked into: {', '.join(self.skipped)}"] if self.skipped else []
        return "\n".join([*_aligned(rows, right={4, 5}), *facts])


def _row(layer: LayerNode) -> tuple[str, ...]:
    """The cells of one layer."""
    repeats = f" x{layer.num_repeats}" if layer.num_repeats > 1 else ""
    return (
        layer.name + repeats,
        layer.kind,
        f"{layer.window} {layer.padding}" if layer.window else "",
        shape_text((*layer.output_places, layer.num_features)),
        f"{layer.num_params:,}",
        f"{layer.multiply_adds:,}",
        field_text(layer),
        steps_text(layer.steps),
    )


def steps_text(steps: Sequence[Step]) -> str:
    """Steps in one line."""
    return ", ".join(step.text for step in steps)


def field_text(layer: LayerNode) -> str:
    """The receptive field of a layer and, where its outputs differ in what they see, its stride: `14x14/4`."""
    if not layer.field:
        return ""
    strides = tuple(f"{stride:g}" for stride in dict.fromkeys(layer.field_stride) if stride not in (0, 1))
    return shape_text(layer.field) + (f"/{'x'.join(strides)}" if strides else "")


def _aligned(rows: Sequence[tuple[str, ...]], right: set[int]) -> list[str]:
    """Rows as lines with their columns under one another, the columns `right` to the right; empty ones are left out."""
    kept = [column for column in range(len(rows[0])) if any(row[column] for row in rows[1:])] or [0]
    widths = {column: max(len(row[column]) for row in rows) for column in kept}

    def cell(row: tuple[str, ...], column: int) -> str:
        """One cell at the width of its column."""
        pad = row[column].rjust if column in right else row[column].ljust
        return pad(widths[column])

    return ["  ".join(cell(row, column) for column in kept).rstrip() for row in rows]
