"""Haiku functions as models."""

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax

from cnnprobe.checks import check_callable
from cnnprobe.models.caching import cached
from cnnprobe.models.modes import MEANS_EVALUATION, MEANS_TRAINING, mode_arguments
from cnnprobe.types import Images, Key, Model, Outputs, Params, State

if TYPE_CHECKING:
    import haiku as hk


@cached
def from_haiku(network: "Callable | hk.Transformed | hk.TransformedWithState") -> Model:
    """A Haiku network as a model: a function `(images, is_training) -> outputs`, or what `hk.transform` made of one.

    - The mode is told through whichever of `is_training`, `training`, `train`, `deterministic`,
      `use_running_average` and `inference` the function takes; it need take none.
    - `hk.next_rng_key()` draws from the step's key.
    - Parameters and state are Haiku's own dicts. The state changes in training and is left alone in evaluation.

    Raises:
      ValueError: `network` is neither, or it needs an argument besides the images and the mode.
      ImportError: dm-haiku is not installed.
    """
    hk = _import_haiku()
    transformed = _with_state(hk, network)
    _check_arguments(transformed)

    def init(key: Key, images: Images) -> tuple[Params, State]:
        """The network's own initialisation, in training mode: statistics that evaluation reads do not exist before."""
        return transformed.init(key, images, **mode_arguments(transformed.init, train=True))

    def apply(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Outputs, State]:
        """The network's outputs and its new state."""
        mode = mode_arguments(transformed.apply, train=train)
        outputs, new_state = transformed.apply(params, state, key, images, **mode)
        return outputs, new_state if train else state

    return Model(jax.jit(init), apply)


def _import_haiku() -> Any:
    """The library."""
    try:
        import haiku
    except ImportError as error:
        raise ImportError('from_haiku needs dm-haiku: pip install "cnnprobe[haiku]"') from error
    return haiku


def _with_state(hk: Any, network: Any) -> "hk.TransformedWithState":
    """The network as a pair of functions that take and return a state."""
    if isinstance(network, hk.TransformedWithState):
        return network
    if isinstance(network, hk.Transformed):
        return hk.with_empty_state(_with_rng(hk, network))
    if isinstance(network, hk.Module | tuple) or inspect.isclass(network):
        raise ValueError(f"network must be a function that calls its Haiku modules, got {network!r}.")
    check_callable("network", network)
    return hk.transform_with_state(network)


def _with_rng(hk: Any, network: "hk.Transformed") -> "hk.Transformed":
    """A transformed function that takes a key, which `hk.without_apply_rng` takes away."""
    apply = network.apply
    if "rng" in inspect.signature(apply).parameters:
        return network

    @functools.wraps(apply)
    def apply_with_key(params: Params, _rng: Key, *args: Any, **kwargs: Any) -> Outputs:
        """The function, which draws nothing."""
        return apply(params, *args, **kwargs)

    return hk.Transformed(network.init, apply_with_key)


def _check_arguments(transformed: "hk.TransformedWithState") -> None:
    """Raises `ValueError` unless images and mode are all that the function needs."""
    parameters = list(inspect.signature(transformed.init).parameters.values())[2:]
    known = (*MEANS_TRAINING, *MEANS_EVALUATION)
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in optional and p.name not in known]
    if needed:
        raise ValueError(f"network must need no argument besides the images and the mode, got one that needs {needed}.")
