"""Probes that sit inside an optimizer: they read what passes through them and leave it as it is."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from cnnprobe.probes.gradients import GradientStats, gradient_stats
from cnnprobe.probes.updates import update_ratio
from cnnprobe.probes.vectors import check_same_shapes, tree_norm
from cnnprobe.trees import per_layer
from cnnprobe.types import AnyArray

Read: TypeAlias = Callable[[optax.Updates, optax.Params | None], dict[str, Any]]  # (updates, params) -> by layer


class UpdateStats(NamedTuple):
    """Summary of the update of one parameter array."""

    norm: Float[Array, ""]  # Euclidean
    param_norm: Float[Array, ""]  # of the parameters before the update
    ratio: Float[Array, ""]  # norm / param_norm; about 1e-3 in a healthy layer, infinite where zeros move


class ProbeState(NamedTuple):
    """What a probe saw last, `{name: {layer: stats}}`; NaN before the first update."""

    probe_readings: dict[str, dict[str, Any]]


def update_probe(name: str = "updates") -> optax.GradientTransformationExtraArgs:
    """Reads each parameter array's update beside the array itself: `UpdateStats`.

    It reads what passes through its place in a chain, so the last place sees the whole update:
    `optax.chain(optax.adam(1e-3), cp.update_probe())`. Several probes need names of their own. Inside
    `optax.MultiSteps` it reads the steps that are taken, not those that accumulate.

    Raises:
      ValueError: `name` is empty or no string; or, in an update, there are no `params`.
    """

    def read(updates: optax.Updates, params: optax.Params | None) -> dict[str, UpdateStats]:
        """One record for each parameter array."""
        if params is None:
            raise ValueError(f"update_probe {name!r} needs params: optimizer.update(grads, state, params), got None.")
        return per_layer(update_stats, updates, params)

    return _probe(name, read)


def gradient_probe(name: str = "gradients") -> optax.GradientTransformationExtraArgs:
    """Reads each array of what passes through its place in a chain: `GradientStats`.

    The first place sees the gradients themselves, a place behind a clipping what is left of them:
    `optax.chain(cp.gradient_probe(), optax.clip_by_global_norm(1.0), cp.gradient_probe("after clip"), ...)`.

    Raises:
      ValueError: `name` is empty or no string.
    """

    def read(updates: optax.Updates, _params: optax.Params | None) -> dict[str, GradientStats]:
        """One record for each array."""
        return per_layer(gradient_stats, updates)

    return _probe(name, read)


def update_stats(update: Float[AnyArray, "..."], param: Float[AnyArray, "..."]) -> UpdateStats:
    """Summarises the update of one parameter array; lift it over trees with `per_layer`.

    Raises:
      ValueError: the two have other shapes.
    """
    check_same_shapes("update", update, "param", param)
    return UpdateStats(tree_norm(update), tree_norm(param), update_ratio(update, param))


def probe_readings(opt_state: optax.OptState) -> dict[str, dict[str, Any]]:
    """The readings of every probe in an optimizer's state, however deep: `{name: {layer: stats}}`.

    Layers that `optax.multi_transform` or `optax.masked` hand to several probes of one name come together again.

    Raises:
      ValueError: two probes of one name read the same layer.
    """
    found: dict[str, dict[str, Any]] = {}
    for _, readings in optax.tree.get_all_with_path(opt_state, "probe_readings"):
        for name, layers in readings.items():
            known = found.setdefault(name, {})
            if twice := sorted(known.keys() & layers.keys()):
                raise ValueError(f"probes must have names of their own, got two named {name!r} on {', '.join(twice)}.")
            known.update(layers)
    return found


def _probe(name: str, read: Read) -> optax.GradientTransformationExtraArgs:
    """The transformation that keeps what `read` returns."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"name must be a string that is not empty, got {name!r}.")

    def init(params: optax.Params) -> ProbeState:
        """NaN in the place of every reading."""
        shapes = jax.eval_shape(read, params, params)
        return ProbeState({name: jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), shapes)})

    def update(
        updates: optax.Updates, state: ProbeState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, ProbeState]:
        """The updates as they came, and what they look like."""
        del state, extra_args
        return updates, ProbeState({name: read(updates, params)})

    return optax.GradientTransformationExtraArgs(init, update)
