"""Flax NNX modules as models."""

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from cnnprobe.models.caching import cached
from cnnprobe.models.dealing import own_or_dealt
from cnnprobe.models.modes import mode_arguments
from cnnprobe.types import Images, Key, Model, Outputs, Params, State

if TYPE_CHECKING:
    from flax import nnx


class _Parts(NamedTuple):
    """A module taken apart: its structure, and its variables by what becomes of them."""

    graph: Any  # an `nnx.GraphDef`
    params: Any  # an `nnx.State` of every `nnx.Param`
    rngs: Any  # of the random streams
    rest: Any  # of everything else: batch statistics, counters, arrays


def from_nnx(module: "nnx.Module | Callable[[nnx.Rngs], nnx.Module]") -> Model:
    """A Flax NNX module, or the constructor `rngs -> module` of one, as a model.

    Training and evaluation are told through `train()` and `eval()`, and through `train`, `training`, `is_training`,
    `deterministic` or `use_running_average` where the module's `__call__` takes one. Every random stream is reseeded
    from the step's key. Each `nnx.Param` is trained; all other variables but the streams are the state. The module
    itself is never changed.

    A constructor is run anew for every key, which gives the module's own initialisation: hand one over where you can.

    An instance does not tell how it was made. Key 0 gives the values that it has now; any other key deals the entries
    of each parameter array anew among themselves. That keeps the distribution of each array and whatever is constant,
    and is as good as a new draw for independent entries. It is not one for orthogonal kernels, and it destroys
    pretrained ones.

    Raises:
      ValueError: `module` is neither; or, when it is first used, the constructor does not return a module.
    """
    from flax import nnx

    if isinstance(module, nnx.Module):
        return _from_instance(module)
    if not callable(module):
        raise ValueError(f"module must be an nnx.Module or a constructor of one, got {module!r}.")
    return _from_constructor(module)


def _from_instance(module: "nnx.Module") -> Model:
    """The model of an instance as it is now; not cached, since the owner may train it meanwhile."""
    parts = _take_apart(module)
    own_params, own_state = _values(parts.params), _values(parts.rest)

    def init(key: Key, images: Images) -> tuple[Params, State]:
        """The instance's own parameters for key 0, dealt anew for any other."""
        del images
        return own_or_dealt(key, own_params), own_state

    return Model(init, functools.partial(_apply, lambda: parts))


@cached
def _from_constructor(construct: "Callable[..., nnx.Module]") -> Model:
    """The model of a constructor; the same one for the same constructor."""

    @functools.cache
    def parts() -> _Parts:
        """The module without its values."""
        from flax import nnx

        return _take_apart(nnx.eval_shape(lambda: _construct(construct, jax.random.key(0))))

    @jax.jit
    def init(key: Key, images: Images) -> tuple[Params, State]:
        """What the constructor draws from `key`."""
        del images
        made = _take_apart(_construct(construct, key))
        return _values(made.params), _values(made.rest)

    return Model(init, functools.partial(_apply, parts))


def _apply(
    parts: Callable[[], _Parts], params: Params, state: State, images: Images, *, key: Key, train: bool
) -> tuple[Outputs, State]:
    """Puts the module together, runs it in one mode, and reads what it wrote."""
    from flax import nnx

    graph, old_params, old_rngs, old_rest = parts()
    module = nnx.merge(graph, _filled(old_params, params), _reseeded(old_rngs, key), _filled(old_rest, state))
    if train:
        module.train()
    else:
        module.eval()
    outputs = module(jnp.asarray(images), **mode_arguments(module.__call__, train=train))
    return outputs, _same_keys(_values(_take_apart(module).rest), state) if train else state


def _construct(construct: "Callable[..., nnx.Module]", key: Key) -> "nnx.Module":
    """Runs the constructor, whether it takes `rngs` by name or by place."""
    from flax import nnx

    rngs = nnx.Rngs(key)
    module = construct(rngs=rngs) if _takes_by_name(construct) else construct(rngs)
    if not isinstance(module, nnx.Module):
        raise ValueError(f"module must be a constructor of an nnx.Module, got one of {type(module).__name__}.")
    return module


def _takes_by_name(construct: "Callable[..., nnx.Module]") -> bool:
    """Whether a constructor has an argument called `rngs`."""
    called: Any = construct.func if isinstance(construct, functools.partial) else construct
    is_class = isinstance(called, type)  # whose metaclass hides the signature, behind a `partial` too
    return "rngs" in inspect.signature(called.__init__ if is_class else called).parameters


def _take_apart(module: "nnx.Module") -> _Parts:
    """Structure and variables of a module."""
    from flax import nnx

    pieces: Any = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return _Parts(*pieces)


def _values(state: Any) -> PyTree[Array]:
    """An `nnx.State` as nested dicts of arrays."""
    from flax import nnx

    return nnx.to_pure_dict(state)


def _filled(template: Any, values: PyTree[Array]) -> Any:
    """A copy of the `nnx.State` that holds `values`."""
    from flax import nnx

    copy = jax.tree.map(lambda leaf: leaf, template)
    nnx.replace_by_pure_dict(copy, values)
    return copy


def _reseeded(template: Any, key: Key) -> Any:
    """A copy of the random streams, each with a key of its own and its count at zero."""
    from flax import nnx

    def fresh(index: int, variable: Any) -> Array:
        """The new value of one variable."""
        if not isinstance(variable, nnx.RngKey):
            return jnp.zeros(variable.shape, jnp.uint32)
        return jax.random.split(jax.random.fold_in(key, index), variable.shape)

    flat = nnx.to_flat_state(template)
    return nnx.from_flat_state([(path, each.replace(fresh(i, each))) for i, (path, each) in enumerate(flat)])


def _same_keys(written: Any, state: Any) -> Any:
    """What was written of the variables that the state has; what `sow` adds is dropped."""
    if not isinstance(state, dict):
        return written
    return {name: _same_keys(written[name], value) for name, value in state.items()}
