"""One training step of a network, read in several ways: cnnprobe's, and what one would write by hand in JAX."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

import cnnprobe as cp
from cnnprobe.probes.predictions import class_counts
from cnnprobe.tracing.surgery import quick_pools
from cnnprobe.training.cadence import TAP_EVERY, make_steps
from cnnprobe.training.probes import DEFAULT_PROBES, gradient_norm, layer_readings
from cnnprobe.training.step import Observation, init_state
from experiments.overhead.names import SLICE
from experiments.overhead.networks import Network

Images: TypeAlias = Float[Array, "batch height width channels"]
Labels: TypeAlias = Int[Array, " batch"]
Step: TypeAlias = Callable[[Any, Images, Labels], tuple[Any, Any]]  # (state, ...) -> (state, what is fetched)

OPTIMIZER = optax.sgd(1e-3, momentum=0.9)  # the cheapest that people use, so that readings weigh most


class State(NamedTuple):
    """What a step carries on."""

    params: PyTree[Array]
    batch_stats: PyTree[Array]
    opt_state: optax.OptState
    step: Int[Array, ""]


class Method(NamedTuple):
    """One way to train."""

    state: Any  # at the start; has `step`, the number of the next step
    step: Step
    before: Callable[[Any, Images], Any] | None = None  # what runs on the host before each step
    between: Step | None = None  # for the steps that are not read; None: `step` itself


def bare_gradient(loss_fn: Callable, state: State) -> tuple[Any, PyTree[Array], Any]:
    """`(value, grads, readings)` without readings."""
    return *jax.value_and_grad(loss_fn, has_aux=True)(state.params), ()


def quick_gradient(loss_fn: Callable, state: State) -> tuple[Any, PyTree[Array], Any]:
    """The same with the gradient of max pools that the taps have too."""
    return bare_gradient(quick_pools(loss_fn), state)


def tapped_gradient(
    loss_fn: Callable, state: State, *, backward: bool = True, every: int = 1, num_examples: int | None = None
) -> tuple[Any, Any, Any]:
    """The same with the readings of the taps."""
    when = None if every == 1 else state.step % every == 0
    tapped = cp.value_and_grad(loss_fn, has_aux=True, backward=backward, when=when, num_examples=num_examples)
    return tapped(state.params)


def see_nothing(_: Observation) -> tuple[()]:
    """No probes."""
    return ()


def see_parameters(seen: Observation) -> tuple[Array, Array]:
    """What `cp.fit` reads of every parameter array."""
    return gradient_norm(seen), layer_readings(seen)


def see_everything(seen: Observation) -> tuple[Array, Array, Array]:
    """The same and how often each class is predicted."""
    return *see_parameters(seen), class_counts(jnp.argmax(seen.outputs, 1), seen.outputs.shape[1])


def cross_entropy(logits: Float[Array, "batch classes"], labels: Labels) -> Float[Array, ""]:
    """Mean softmax cross-entropy, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def make_step(
    network: Network,
    *,
    gradient: Callable = bare_gradient,
    see: Callable[[Observation], Any] = see_nothing,
    reduce: Callable[[PyTree[Array]], Any] | None = None,
) -> Step:
    """A step as its owner writes it, read by `gradient` and `see`; or all module outputs are handed to `reduce`."""

    def step(state: State, images: Images, labels: Labels) -> tuple[State, Any]:
        """Loss, gradients, update, readings."""

        def loss_fn(params: PyTree[Array]) -> tuple[Float[Array, ""], tuple]:
            """The loss of the batch."""
            logits, written = apply(network, params, state.batch_stats, images, capture=reduce is not None)
            captured = () if reduce is None else reduce(written["intermediates"])
            return cross_entropy(logits, labels), (logits, written.get("batch_stats", {}), captured)

        (loss, (logits, batch_stats, captured)), grads, readings = gradient(loss_fn, state)
        updates, opt_state = OPTIMIZER.update(grads, state.opt_state, state.params)
        seen = see(Observation(state.params, grads, updates, logits, labels, loss, images))
        params = optax.apply_updates(state.params, updates)
        return State(params, batch_stats, opt_state, state.step + 1), (loss, readings, seen, captured)

    return step


def apply(
    network: Network, params: PyTree[Array], batch_stats: PyTree[Array], images: Images, *, capture: bool
) -> tuple[Array, Any]:
    """Logits in training mode, and the collections that the network wrote."""
    return network.module.apply(
        {"params": params, "batch_stats": batch_stats},
        images,
        train=True,
        mutable=["batch_stats", "intermediates"],
        capture_intermediates=capture,
    )


def first_state(network: Network) -> State:
    """The state before the first step."""
    images = jnp.zeros((1, *network.image_shape))
    variables = jax.jit(lambda key: network.module.init(key, images, train=False))(jax.random.key(0))
    params = variables["params"]
    return State(params, variables.get("batch_stats", {}), OPTIMIZER.init(params), jnp.zeros((), jnp.int32))


# --- what one would write by hand ----------------------------------------------------------------------------------


def usual_statistics(x: Float[Array, "..."]) -> Float[Array, " statistics"]:
    """What people look at: mean, standard deviation, share of zeros, of large values, and of dead units."""
    dead = jnp.all(x <= 0, axis=tuple(range(x.ndim - 1)))
    return jnp.stack([x.mean(), x.std(), jnp.mean(x == 0), jnp.mean(jnp.abs(x) > 10), jnp.mean(dead)])


def capture_statistics(intermediates: PyTree[Array]) -> PyTree[Array]:
    """The statistics of every module's output."""
    return jax.tree.map(lambda x: usual_statistics(jax.lax.stop_gradient(x)), intermediates)


def call_back(intermediates: PyTree[Array]) -> tuple[()]:
    """Hands the statistics of every module's output to the host as soon as they are there."""
    kept: list[Any] = []
    for leaf in jax.tree.leaves(capture_statistics(intermediates)):
        jax.debug.callback(lambda values: kept.__setitem__(slice(None), [values]), leaf)
    return ()


def capture_eagerly(network: Network, state: State, images: Images) -> Any:
    """A second forward pass, operation by operation, whose statistics are fetched."""
    written = apply(network, state.params, state.batch_stats, images, capture=True)[1]
    return jax.device_get(capture_statistics(written["intermediates"]))


# --- all of them ---------------------------------------------------------------------------------------------------


def make_method(name: str, network: Network, *, every: int, num_devices: int) -> Method:
    """The method of a name in `names.METHODS`."""
    if name == "fit":
        return _fit_method(network, num_devices)
    state = first_state(network)
    if name == "eager":
        return Method(state, make_step(network), lambda state, images: capture_eagerly(network, state, images))
    return Method(state, make_step(network, **_OPTIONS[name](every)))


_OPTIONS: dict[str, Callable[[int], dict[str, Any]]] = {
    "bare": lambda _: {},
    "pools": lambda _: {"gradient": quick_gradient},
    "parameters": lambda _: {"see": see_parameters},
    "forward": lambda _: {"gradient": partial(tapped_gradient, backward=False)},
    "backward": lambda _: {"gradient": tapped_gradient},
    "everything": lambda _: {"gradient": tapped_gradient, "see": see_everything},
    "slice": lambda _: {"gradient": partial(tapped_gradient, num_examples=SLICE), "see": see_everything},
    "cadence": lambda every: {"gradient": partial(tapped_gradient, every=every), "see": see_everything},
    "capture": lambda _: {"reduce": capture_statistics},
    "callback": lambda _: {"reduce": call_back},
}


def _fit_method(network: Network, num_devices: int) -> Method:
    """What `cp.fit` runs when nobody chooses anything."""
    num_images = network.batch_size * num_devices
    data = cp.Dataset(jnp.zeros((num_images, *network.image_shape)), jnp.zeros(num_images, jnp.int32))
    problem = cp.Problem(
        cp.from_linen(network.module), cross_entropy, OPTIMIZER, data, num_classes=10, batch_size=num_images
    )
    steps = make_steps(problem, num_classes=10, probes=DEFAULT_PROBES, tap_every=TAP_EVERY)
    # Unwrapped, so that it is compiled like the others.
    tapped, between = (inspect.unwrap(step) for step in steps)
    state = init_state(problem, jax.random.key(0), data.images)
    return Method(state, tapped, between=None if steps.tapped is steps.between else between)
