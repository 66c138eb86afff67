"""Probes and the user's init compiled whole: called one operation at a time they cost a second of compilations each."""

import functools
from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from cnnprobe.compiling import quick_jit
from cnnprobe.models.caching import cached
from cnnprobe.probes.modes import mask_sharing, mask_variance_ratio, mode_gap
from cnnprobe.probes.predictions import balanced_accuracy, class_counts, input_sensitivity
from cnnprobe.tracing.surgery import first_layer_inputs
from cnnprobe.training.predict import NOT_TRACEABLE
from cnnprobe.types import Images, Key, Model, Params, State

balanced_accuracy = quick_jit(balanced_accuracy, static_argnums=2)
class_counts = quick_jit(class_counts, static_argnums=1)
input_sensitivity = quick_jit(input_sensitivity)
mask_sharing = quick_jit(mask_sharing)
mask_variance_ratio = quick_jit(mask_variance_ratio)
mode_gap = quick_jit(mode_gap)


@cached
def with_compiled_init(model: Model) -> Model:
    """The model with an init that is compiled where it can be traced."""
    compiled = quick_jit(model.init)

    @functools.wraps(model.init)
    def init(key: Key, images: Images) -> tuple[Params, State]:
        """The user's parameters and state."""
        try:
            return compiled(key, images)
        except (*NOT_TRACEABLE, TypeError):  # not traceable, or it returns what is no array
            return model.init(key, images)

    return model._replace(init=init)


@cached
def compiled_state_update(model: Model) -> Callable[[Params, State, Images, Key], State]:
    """`(params, state, images, key) -> state` in training mode."""
    return jax.jit(lambda params, state, images, key: model.apply(params, state, images, key=key, train=True)[1])


@cached
def compiled_first_inputs(model: Model) -> Callable[[Params, State, Images, Key], Float[Array, "..."]]:
    """`(params, state, images, key) -> images` as the model hands them to its first layer in training mode."""

    def feed(params: Params, state: State, images: Images, key: Key) -> Float[Array, "..."]:
        """Nothing behind the first layer is computed."""
        run = first_layer_inputs(lambda weights: model.apply(*weights, images, key=key, train=True)[0])
        return run((params, state))  # the kernel of the first layer may be held in the state

    return quick_jit(feed)
