"""Flax Linen modules as models."""

from typing import TYPE_CHECKING, Any

import jax

from cnnprobe.models.caching import cached
from cnnprobe.models.modes import mode_arguments
from cnnprobe.types import Images, Key, Model, Outputs, Params, State

if TYPE_CHECKING:
    from flax import linen as nn

TRANSIENT = ("intermediates", "perturbations")  # written anew by every call, and as large as the batch


@cached
def from_linen(module: "nn.Module") -> Model:
    """A Flax Linen module as a model; equal modules give the same model, so that they are compiled once.

    - The mode is told through whichever of `train`, `training`, `is_training`, `deterministic` and
      `use_running_average` the module's `__call__` takes.
    - Every random stream that the module asks for, under any name, is drawn from the step's key.
    - `params` is trained; all other collections are the state. In training they change as the module changes them; in
      evaluation they are left alone, whatever the module writes. What `sow` collects is dropped.

    Raises:
      ValueError: `module` is no Linen module.
    """
    from flax import linen as nn

    if not isinstance(module, nn.Module):
        raise ValueError(f"module must be a flax.linen.Module instance, got {module!r}.")

    @jax.jit
    def init(key: Key, images: Images) -> tuple[Params, State]:
        """The module's own initialisation; compiled, so that its forward pass is not run."""
        mode: dict[str, Any] = mode_arguments(module.__call__, train=False)
        return _part(module.init(_streams(key), images, **mode))

    def apply(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Outputs, State]:
        """The module's outputs and what it wrote."""
        mode: dict[str, Any] = mode_arguments(module.__call__, train=train)
        variables = {"params": params, **state}
        outputs, written = module.apply(variables, images, rngs=_streams(key), mutable=list(state), **mode)
        return outputs, {**state, **_same_structure(written, state)} if train else state

    return Model(init, apply)


def _streams(key: Key) -> dict[str, Key]:
    """Random streams for Flax, which draws every name that it is not given from "params"."""
    return {"params": key, "dropout": jax.random.fold_in(key, 1)}


def _part(variables: Any) -> tuple[Params, State]:
    """Variables as parameters and everything else that lasts."""
    state = {name: value for name, value in variables.items() if name not in ("params", *TRANSIENT)}
    return variables.get("params", {}), state


def _same_structure(written: Any, state: State) -> State:
    """The collections that kept their shape; one that `sow` appends to would grow with every step."""
    before = {name: jax.tree.structure(value) for name, value in state.items()}
    return {name: value for name, value in written.items() if bool(jax.tree.structure(value) == before.get(name))}
