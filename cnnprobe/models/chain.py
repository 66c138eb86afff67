"""Networks as lists of steps: each step knows how to begin and what to do, and a list of them is a model."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnnprobe.models import plain
from cnnprobe.types import Images, Key, Model, Params, State

Features = Float[Array, "batch ..."]


class Step(NamedTuple):
    """One operation of a network; `name` keys its parameters and its state, and is empty where it has none."""

    name: str
    init: Callable[[Key, tuple[int, ...]], tuple[Params, State]]  # (key, shape of the input) -> (params, state)
    apply: Callable[[Params, State, Features, Key, bool], tuple[Features, State]]  # (..., key, train)


def chain(steps: Sequence[Step]) -> Model:
    """The model that goes through the steps in order.

    Each step that draws gets a key of its own.

    Raises:
      ValueError: two steps have the same name.
    """
    names = [step.name for step in steps if step.name]
    if len(set(names)) < len(names):
        raise ValueError(f"steps must have names of their own, got {names}.")

    def init(key: Key, images: Images) -> tuple[Params, State]:
        """Parameters and state of every step that has a name."""
        return _init(steps, key, jnp.shape(images))

    def apply(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Features, State]:
        """The output of the last step."""
        return _apply(steps, params, state, jnp.asarray(images, jnp.float32), key, train)

    return Model(init, apply)


def conv(name: str, width: int, *, size: int = 3, stride: int = 1, padding: str = "SAME", bias: bool = True) -> Step:
    """A convolution to `width` channels, from He's normal distribution."""

    def init(key: Key, shape: tuple[int, ...]) -> tuple[Params, State]:
        """Kernel and bias."""
        return plain.init_conv(key, shape[-1], width, size=size, bias=bias), {}

    def apply(params: Params, state: State, x: Features, key: Key, train: bool) -> tuple[Features, State]:
        """The map that it makes."""
        del key, train
        return plain.conv(params, x, stride=stride, padding=padding), state

    return Step(name, init, apply)


def dense(name: str, units: int) -> Step:
    """A dense layer over the last axis, from He's normal distribution."""

    def init(key: Key, shape: tuple[int, ...]) -> tuple[Params, State]:
        """Kernel and bias."""
        return plain.init_dense(key, shape[-1], units), {}

    def apply(params: Params, state: State, x: Features, key: Key, train: bool) -> tuple[Features, State]:
        """The units."""
        del key, train
        return plain.dense(params, x), state

    return Step(name, init, apply)


def batch_norm(name: str, *, momentum: float = 0.9) -> Step:
    """Batch normalisation whose running statistics keep `momentum` of the old."""

    def init(key: Key, shape: tuple[int, ...]) -> tuple[Params, State]:
        """Scale and bias; mean and variance."""
        del key
        return plain.init_batch_norm(shape[-1])

    def apply(params: Params, state: State, x: Features, key: Key, train: bool) -> tuple[Features, State]:
        """The normalised map."""
        del key
        return plain.batch_norm(params, state, x, train=train, momentum=momentum)

    return Step(name, init, apply)


def function(fn: Callable[[Features], Features]) -> Step:
    """A step without parameters: an activation, a pool, `plain.flatten`."""

    def apply(params: Params, state: State, x: Features, key: Key, train: bool) -> tuple[Features, State]:
        """What the function makes of it."""
        del params, key, train
        return fn(x), state

    return Step("", _nothing, apply)


def dropout(rate: float) -> Step:
    """Dropout of a fraction `rate` of the values in training.

    Raises:
      ValueError: `rate` is not in [0, 1).
    """
    plain.check_rate("rate", rate)

    def apply(params: Params, state: State, x: Features, key: Key, train: bool) -> tuple[Features, State]:
        """What is left."""
        del params
        return plain.dropout(key, x, rate=rate, train=train), state

    return Step("", _nothing, apply)


def residual(name: str, branch: Sequence[Step], shortcut: Sequence[Step] = ()) -> Step:
    """The sum of a branch and a shortcut (the input itself where it has no steps), then ReLU.

    References:
      He et al., Deep residual learning for image recognition, CVPR 2016.
    """
    paths = {"branch": branch, "shortcut": shortcut}

    def init(key: Key, shape: tuple[int, ...]) -> tuple[Params, State]:
        """Parameters and state of both paths."""
        keys = jax.random.split(key)
        begun = {which: _init(steps, each, shape) for each, (which, steps) in zip(keys, paths.items(), strict=True)}
        return {which: pair[0] for which, pair in begun.items()}, {which: pair[1] for which, pair in begun.items()}

    def apply(params: Params, state: State, x: Features, key: Key, train: bool) -> tuple[Features, State]:
        """Both paths, added."""
        keys = jax.random.split(key)
        ends = {
            which: _apply(steps, params[which], state[which], x, each, train)
            for each, (which, steps) in zip(keys, paths.items(), strict=True)
        }
        return jax.nn.relu(ends["branch"][0] + ends["shortcut"][0]), {which: end[1] for which, end in ends.items()}

    return Step(name, init, apply)


def _nothing(key: Key, shape: tuple[int, ...]) -> tuple[Params, State]:
    """No parameters and no state."""
    del key, shape
    return {}, {}


def _init(steps: Sequence[Step], key: Key, shape: tuple[int, ...]) -> tuple[Params, State]:
    """What every step begins with; shapes are followed without computing."""
    params, state = {}, {}
    for index, step in enumerate(steps):
        begun = step.init(jax.random.fold_in(key, index), shape)
        shape = _shape_after(step, *begun, shape, key)
        if step.name:
            params[step.name], state[step.name] = begun
    return params, {name: kept for name, kept in state.items() if kept}


def _shape_after(step: Step, params: Params, state: State, shape: tuple[int, ...], key: Key) -> tuple[int, ...]:
    """Shape of what a step makes of an input of `shape`."""
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(lambda y: step.apply(params, state, y, key, False), x)[0].shape


def _apply(
    steps: Sequence[Step], params: Params, state: State, x: Features, key: Key, train: bool
) -> tuple[Features, State]:
    """One step after the other."""
    new_state = dict(state)
    for index, step in enumerate(steps):
        own = (params.get(step.name, {}), state.get(step.name, {}))
        x, after = step.apply(*own, x, jax.random.fold_in(key, index), train)
        if step.name in state:
            new_state[step.name] = after
    return x, new_state
