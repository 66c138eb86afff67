"""Which layer each parameter belongs to: every one to one layer or to none."""

from collections.abc import Iterable, Sequence

from cnnprobe.tracing.layers import Layer
from cnnprobe.tracing.provenance import owner_name


def own_params(layers: Sequence[Layer], paths: Iterable[str]) -> dict[str, str]:
    """The name of the layer that each path belongs to; what belongs to none is left out.

    A kernel belongs to the first layer that uses it. So does what is met between a layer and its output but for its
    normalisation, and what stands in the same group as one kernel alone.
    """
    first_uses = [layer for layer in layers if "#" not in layer.name]
    owners: dict[str, str] = {}
    for layer in first_uses:
        _claim(owners, layer, layer.kernel_params)
    for layer in first_uses:
        _claim(owners, layer, layer.params - layer.output.normalisation_params)
    groups: dict[str, set[str]] = {}
    for path in [path for layer in first_uses for path in layer.kernel_params if "/" in path]:
        groups.setdefault(owner_name(path), set()).add(owners[path])
    for path in paths:
        names = groups.get(owner_name(path), set()) if "/" in path else set()
        if path not in owners and len(names) == 1:
            owners[path] = next(iter(names))
    return owners


def _claim(owners: dict[str, str], layer: Layer, paths: Iterable[str]) -> None:
    """Gives the paths that are still free to `layer`."""
    for path in paths:
        owners.setdefault(path, layer.name)
