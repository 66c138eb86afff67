"""Equinox modules as models."""

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from cnnprobe.models.caching import cached
from cnnprobe.models.dealing import own_or_dealt
from cnnprobe.models.modes import mode_arguments
from cnnprobe.models.nesting import distinct_names, flatten_names, nest
from cnnprobe.trees import leaf_name
from cnnprobe.types import Images, Key, Model, Outputs, Params, State

if TYPE_CHECKING:
    import equinox as eqx


class _Parts(NamedTuple):
    """A module and its `eqx.nn.State` taken apart; arrays may be shapes only."""

    leaves: list[Any]  # of the pair (module, state)
    structure: Any
    trained: dict[str, int]  # where each parameter stands among the leaves, by its path
    carried: dict[str, int]  # the same for all other arrays


def from_equinox(module: "eqx.Module | tuple | Callable[[Key], Any]") -> Model:
    """An Equinox module, or the constructor `key -> module` of one, as a model.

    - A module that takes one example is mapped over the batch with `jax.vmap(..., axis_name="batch")`, so that batch
      norm finds its axis; one that does not run on an example is given the whole batch. So is one that runs on both,
      if mapping it would give its outputs an axis more. Examples are passed as they
      are: for a module that takes channels first, `preprocess=lambda images: images.transpose(0, 3, 1, 2)` of the
      problem brings them there.
    - `eqx.nn.State` is carried: the module is given it where it has any, or names an argument `state`, and then returns
      `(outputs, state)`. `eqx.nn.make_with_state` is called where it has not been.
    - `key`, where the module takes one, is a key of its own for each example and step.
    - The mode is set by `eqx.nn.inference_mode`, and by `inference`, `train` and the like where the module takes one.
    - Floating-point jax arrays are trained, under their paths in the module (`layers/0/weight`); other arrays are
      state; all else stays as it is.

    A constructor takes the key by name or as its only argument, and returns a module or the pair `(module, state)`. It
    is run anew for every key: hand one over where you can. An instance, or a pair `(module, state)`, does not tell how
    it was made: key 0 gives the values that it has, any other key deals the entries of each array anew among
    themselves, which destroys pretrained ones.

    Raises:
      ValueError: `module` is none of these; or, when first used, the constructor does not return a module.
      ImportError: equinox is not installed.
    """
    eqx = _import_equinox()
    if isinstance(module, eqx.Module):
        return _from_instance((module, None))
    if isinstance(module, tuple) and len(module) == 2 and isinstance(module[0], eqx.Module):
        return _from_instance(module)
    if not callable(module):
        raise ValueError(f"module must be an eqx.Module, a pair (module, state) or a constructor, got {module!r}.")
    return _from_constructor(module)


def _import_equinox() -> Any:
    """The library."""
    try:
        import equinox
    except ImportError as error:
        raise ImportError('from_equinox needs equinox: pip install "cnnprobe[equinox]"') from error
    return equinox


def _from_instance(pair: tuple) -> Model:
    """The model of a module as it is now."""
    parts = _take_apart(_with_state(pair))
    own_params, own_state = _values(parts)

    def init(key: Key, images: Images) -> tuple[Params, State]:
        """The module's own parameters for key 0, dealt anew for any other."""
        del images
        return own_or_dealt(key, own_params), own_state

    return Model(init, _applied(lambda: parts))


@cached
def _from_constructor(construct: Callable) -> Model:
    """The model of a constructor; the same one for the same constructor."""

    @functools.cache
    def parts() -> _Parts:
        """The module without its values."""
        return _take_apart(_import_equinox().filter_eval_shape(lambda: _construct(construct, jax.random.key(0))))

    @jax.jit
    def init(key: Key, images: Images) -> tuple[Params, State]:
        """What the constructor draws from `key`."""
        del images
        return _values(_take_apart(_construct(construct, key)))

    return Model(init, _applied(parts))


def _construct(construct: Callable, key: Key) -> tuple:
    """Runs the constructor, whether it takes `key` by name or by place; returns `(module, state)`."""
    by_name = "key" in inspect.signature(construct).parameters
    made = construct(key=key) if by_name else construct(key)
    pair = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(pair[0], _import_equinox().Module):
        raise ValueError(f"module must be a constructor of an eqx.Module, got one of {type(made).__name__}.")
    return _with_state(pair)


def _with_state(pair: tuple) -> tuple:
    """`(module, state)`, with the state taken out of the module where that has not been done."""
    module, state = pair
    return pair if state is not None else _import_equinox().nn.make_with_state(lambda: module)()


def _take_apart(pair: tuple) -> _Parts:
    """The leaves of `(module, state)` and which of them are arrays."""
    placed, structure = jax.tree_util.tree_flatten_with_path(pair)
    names = distinct_names(_name(path) for path, _ in placed)
    leaves = [leaf for _, leaf in placed]
    arrays = [index for index, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)]
    trained = [i for i in arrays if placed[i][0][0].idx == 0 and jnp.issubdtype(leaves[i].dtype, jnp.inexact)]
    carried = [i for i in arrays if i not in trained]
    return _Parts(leaves, structure, {names[i]: i for i in trained}, {names[i]: i for i in carried})


def _name(path: tuple) -> str:
    """The path of a leaf of `(module, state)`: in the module, or in the state behind the word."""
    return leaf_name(path[1:]) if path[0].idx == 0 else f"state/{leaf_name(path[1:])}"


def _values(parts: _Parts) -> tuple[Params, State]:
    """Parameters and state as nested dicts of arrays."""
    params, state = (
        nest({name: parts.leaves[index] for name, index in group.items()}) for group in (parts.trained, parts.carried)
    )
    return params, state


def _put_together(parts: _Parts, params: Params, state: State) -> tuple:
    """`(module, state)` with other values."""
    leaves = list(parts.leaves)
    for group, values in ((parts.trained, params), (parts.carried, state)):
        flat = flatten_names(values)
        for name, index in group.items():
            leaves[index] = flat[name]
    return jax.tree.unflatten(parts.structure, leaves)


def _applied(parts: Callable[[], _Parts]) -> Callable[..., tuple[Outputs, State]]:
    """The `apply` of a model."""

    @functools.cache
    def takes_examples(leaves: tuple, structure: Any, train: bool) -> bool:
        """Whether the module runs on one example at a time; where it also runs on the batch, on what adds no axis."""
        args = jax.tree.unflatten(structure, leaves)
        of_examples, of_batch = (_output_rank(parts(), args, train=train, by_example=way) for way in (True, False))
        if isinstance(of_batch, Exception):
            if isinstance(of_examples, Exception):
                raise of_examples
            return True
        return not isinstance(of_examples, Exception) and of_examples <= of_batch

    def apply(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Outputs, State]:
        """The module's outputs and its new state."""
        args = (params, state, jnp.asarray(images), key)
        leaves, structure = jax.tree.flatten(jax.tree.map(_shape_of, args))
        by_example = takes_examples(tuple(leaves), structure, train)
        outputs, new_state = _run(parts(), *args, train=train, by_example=by_example)
        return outputs, new_state if train else state

    return apply


def _output_rank(parts: _Parts, args: tuple, *, train: bool, by_example: bool) -> int | Exception:
    """Number of axes of the outputs, or why the module does not run this way."""
    try:
        outputs, _ = jax.eval_shape(functools.partial(_run, parts, train=train, by_example=by_example), *args)
    except Exception as error:  # a module may raise anything on what it is not written for
        return error
    return max(len(leaf.shape) for leaf in jax.tree.leaves(outputs))


def _shape_of(leaf: Array) -> jax.ShapeDtypeStruct:
    """Shape and type of an array."""
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))


def _run(
    parts: _Parts, params: Params, state: State, images: Images, key: Key, *, train: bool, by_example: bool
) -> tuple[Outputs, State]:
    """Puts the module together, runs it in one mode, and reads its new state."""
    eqx = _import_equinox()
    module, carried = _put_together(parts, params, state)
    call = _calling(eqx.nn.inference_mode(module, value=not train), bool(jax.tree.leaves(carried)), train=train)
    if by_example:
        mapped = jax.vmap(call, axis_name="batch", in_axes=(0, None, 0), out_axes=(0, None))
        outputs, carried = mapped(images, carried, jax.random.split(key, len(images)))
    else:
        outputs, carried = call(images, carried, key)
    return outputs, _values(_take_apart((module, carried)))[1]


def _calling(module: Any, has_state: bool, *, train: bool) -> Callable[..., tuple]:
    """`(images, state, key) -> (outputs, state)`, whatever of these the module takes."""
    names = inspect.signature(module.__call__).parameters
    mode = mode_arguments(module.__call__, train=train)
    takes_state = "state" in names or has_state

    def call(images: Images, state: Any, key: Key) -> tuple[Outputs, Any]:
        """The module, given what it takes."""
        options = {**mode, **({"key": key} if "key" in names else {})}
        if not takes_state:
            return module(images, **options), state
        return module(images, state, **options)

    return call
