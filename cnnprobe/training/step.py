"""One training step: loss, gradients, update and readings in one compiled program."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from cnnprobe.checks import place_of
from cnnprobe.models.caching import cached
from cnnprobe.tracing.readings import Readings
from cnnprobe.tracing.surgery import quick_pools
from cnnprobe.tracing.taps import value_and_grad
from cnnprobe.training.parallel import whole
from cnnprobe.training.predict import count_ids, label_classes, predict_classes
from cnnprobe.trees import leaf_name
from cnnprobe.types import Images, Key, Labels, Model, Outputs, Params, Problem, State

STEP_STREAM = 0x57E9  # keeps the draws of the steps apart from those of the initialisation


class TrainState(NamedTuple):
    """Everything that a step carries on: arrays only."""

    params: Params
    model_state: State
    opt_state: optax.OptState
    step: Int[Array, ""]  # updates made so far
    key: Key  # never changes; each step folds its number into it


class Observation(NamedTuple):
    """What a probe sees of one step."""

    params: Params  # before the update
    grads: PyTree[Array]
    updates: PyTree[Array]  # what is added to `params`
    outputs: Outputs
    labels: Labels
    loss: Float[Array, ""]
    images: Images


class Report(NamedTuple):
    """Readings of one step, all taken before its update."""

    loss: Float[Array, ""]  # the user's own
    accuracy: Float[Array, ""]  # fraction of the batch in [0, 1]; NaN where the labels are no classes
    prediction_counts: Int[Array, " classes"]  # images of the batch predicted as each class
    label_counts: Int[Array, " classes"]
    probes: dict[str, Any]  # what each probe returned
    taps: Readings | None = None  # of the layers; None: they are not read, or the model has none that can be


Probe: TypeAlias = Callable[[Observation], PyTree[Array]]
TrainStep: TypeAlias = Callable[[TrainState, Images, Labels], tuple[TrainState, Report]]


def init_state(problem: Problem, key: Key, images: Images) -> TrainState:
    """The state before the first update: `problem.model.init(key, ...)` with one batch out of `images`.

    Every array in it is a copy, since a step consumes the state that it is given.

    Raises:
      ValueError: the model does not return `(params, state)`, or a parameter is not real or complex, so that it has no
        gradient.
    """
    params, model_state = _pair(problem.model, problem.model.init(key, images[: problem.batch_size]))
    _check_trainable(params)
    opt_state = problem.optimizer.init(params)
    step_key = jax.random.fold_in(key, STEP_STREAM)
    return jax.tree.map(_copy, TrainState(params, model_state, opt_state, jnp.zeros((), jnp.int32), step_key))


def make_train_step(
    model: Model,
    loss: Callable[[Outputs, Labels], Float[Array, ""]],
    optimizer: optax.GradientTransformation,
    *,
    num_classes: int,
    predict: Callable[[Outputs], Any] | None = None,
    probes: Mapping[str, Probe] | Iterable[tuple[str, Probe]] | None = None,
    tap_every: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> TrainStep:
    """Builds `step(state, images, labels) -> (state, report)`, compiled once for each batch shape.

    The same parts give the same step, so that they are compiled once however often they are asked for. A step takes
    over the memory of the state that it is given: use the one that it returns. The model is run in training mode, with
    a key of its own for each step; the optimizer is given the value of the loss where it asks for it.

    Steps whose number is a multiple of `tap_every` read the layers; in the others their readings are those of an empty
    batch. With `mesh` the new state and the report are whole on each of its devices.

    Raises:
      ValueError: when first called, if the model does not return `(outputs, state)` or the loss no real scalar.
    """
    named = tuple(dict(probes or ()).items())
    return _compiled_step(model, loss, optimizer, num_classes, predict, named, tap_every, mesh)


def run_model(
    model: Model, params: Params, state: State, images: Images, *, key: Key, train: bool
) -> tuple[Outputs, State]:
    """`model.apply`, checked to return a pair.

    Raises:
      ValueError: it returns anything else, an array of two rows among it, which would unpack without a word, or
        outputs without an array.
    """
    result = model.apply(params, state, images, key=key, train=train)
    if not isinstance(result, tuple) or len(result) != 2:
        place = place_of(model.apply)
        raise ValueError(f"model.apply must return (outputs, state), got {_describe(result)}{place}.")
    if not jax.tree.leaves(result[0]):
        place = place_of(model.apply)
        raise ValueError(f"model.apply must return outputs that hold an array, got {result[0]!r:.200}{place}.")
    return result


def check_loss(value: Any, loss: Callable | None = None) -> Float[Array, ""]:
    """The value of a loss as an array; raises `ValueError`, with the place of `loss`, unless it is one real number."""
    is_number = isinstance(value, float | jax.Array) or hasattr(value, "dtype")
    if not is_number or jnp.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise ValueError(f"loss must return a real scalar, got {_describe(value)}{place_of(loss)}.")
    return jnp.asarray(value)


@cached
def _compiled_step(
    model: Model,
    loss: Callable,
    optimizer: optax.GradientTransformation,
    num_classes: int,
    predict: Callable | None,
    probes: tuple[tuple[str, Probe], ...],
    tap_every: int | None,
    mesh: jax.sharding.Mesh | None,
) -> TrainStep:
    """The jitted step of hashable parts."""
    update = optax.with_extra_args_support(optimizer).update

    def step(state: TrainState, images: Images, labels: Labels) -> tuple[TrainState, Report]:
        """Loss, gradients, update, report."""
        key = jax.random.fold_in(state.key, state.step)

        def loss_fn(params: Params) -> tuple[Float[Array, ""], tuple[Outputs, State]]:
            """The user's loss of the batch."""
            outputs, model_state = run_model(model, params, state.model_state, images, key=key, train=True)
            return check_loss(loss(outputs, labels), loss), (outputs, model_state)

        (value, (outputs, model_state)), grads, taps = _differentiate(loss_fn, state, tap_every)
        updates, opt_state = update(
            grads, state.opt_state, state.params, value=value, grad=grads, value_fn=lambda params: loss_fn(params)[0]
        )
        seen = Observation(state.params, grads, updates, outputs, labels, value, images)
        params = optax.apply_updates(state.params, updates)
        report = _report(seen, num_classes, predict, probes)._replace(taps=taps)
        return TrainState(params, model_state, opt_state, state.step + 1, state.key), report

    return jax.jit(step, donate_argnums=0, out_shardings=None if mesh is None else whole(mesh))


def _differentiate(
    loss_fn: Callable[[Params], Any], state: TrainState, tap_every: int | None
) -> tuple[Any, PyTree[Array], Readings | None]:
    """Value and gradients, and the readings of the layers where there are any."""
    if tap_every is None:
        return *_bare(loss_fn, state.params), None
    when = None if tap_every == 1 else state.step % tap_every == 0
    try:
        return value_and_grad(loss_fn, has_aux=True, when=when)(state.params)
    except Exception as error:  # a model that cannot be read trains all the same
        read = _bare(loss_fn, state.params)  # what is wrong with the loss itself is raised here
        warnings.warn(f"the layers of the model are not read: {error!r:.200}", stacklevel=2)
        return *read, None


def _bare(loss_fn: Callable[[Params], Any], params: Params) -> tuple[Any, PyTree[Array]]:
    """Value and gradients, without readings."""
    try:
        return jax.value_and_grad(quick_pools(loss_fn), has_aux=True)(params)
    except Exception:  # a model that cannot be read trains all the same; what is wrong with it is raised here
        return jax.value_and_grad(loss_fn, has_aux=True)(params)


def _report(
    seen: Observation, num_classes: int, predict: Callable | None, probes: tuple[tuple[str, Probe], ...]
) -> Report:
    """Readings of one step."""
    predictions = predict_classes(seen.outputs, jnp.shape(seen.labels)[0], predict=predict)
    classes = label_classes(seen.labels)
    return Report(
        loss=seen.loss.astype(jnp.float32),
        accuracy=jnp.float32(jnp.nan) if classes is None else jnp.mean(predictions == classes, dtype=jnp.float32),
        prediction_counts=count_ids(predictions, num_classes),
        label_counts=jnp.zeros(num_classes, jnp.int32) if classes is None else count_ids(classes, num_classes),
        probes={name: probe(seen) for name, probe in probes},
    )


def _pair(model: Model, made: Any) -> tuple[Params, State]:
    """What a model's init returned; raises `ValueError` unless it is a pair."""
    if not isinstance(made, tuple | list) or len(made) != 2:
        raise ValueError(f"model.init must return (params, state), got {_describe(made)}{place_of(model.init)}.")
    return made[0], made[1]


def _check_trainable(params: Params) -> None:
    """Raises `ValueError` for a parameter without a gradient."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            raise ValueError(
                f"params must be floating-point arrays to be trained, got {jnp.result_type(leaf)} at {leaf_name(path)}."
            )


def _copy(leaf: Any) -> Array:
    """The leaf as an array of its own, of a strong type: a weak one would be traced again at the second step."""
    return jnp.array(leaf, dtype=jnp.result_type(leaf), copy=True)


def _describe(value: Any) -> str:
    """A value by its type, and an array also by its shape."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} of shape {value.shape}"
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else f"{type(value).__name__}"
