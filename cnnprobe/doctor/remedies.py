"""Remedies: pure functions from a problem to the problem with one thing mended.

Each factory takes what was measured and returns a `Remedy`, so that the user can apply exactly what was tried.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from cnnprobe.tracing.fans import fan_ins
from cnnprobe.tracing.surgery import (
    drop_output_activation,
    keep_gradients,
    last_layer_inputs,
    replace_activation,
    set_dropout_rate,
)
from cnnprobe.trees import is_floating, leaf_name
from cnnprobe.types import Images, Key, Labels, Model, Outputs, Params, Problem, Remedy, State

SCALES = frozenset({"scale", "gamma"})  # by the custom of Flax, Haiku and Keras
SMALLEST_PROBABILITY = 1e-7  # the clip that probability losses use by custom


# --- loss and outputs ----------------------------------------------------------------------------------------------


def map_outputs(fn: Callable[[Outputs], Outputs]) -> Remedy:
    """Applies `fn` to the model's outputs, but for single numbers, before the user's loss sees them."""

    def changed(outputs: Outputs) -> Outputs:
        """What the loss is given: a penalty that comes with the scores is no score."""
        return jax.tree.map(lambda leaf: fn(leaf) if jnp.ndim(leaf) else leaf, outputs)

    def remedy(problem: Problem) -> Problem:
        """The problem with this one thing changed."""
        loss = problem.loss
        return problem._replace(loss=lambda outputs, labels: loss(changed(outputs), labels))

    return remedy


def expect_shares(shares: Float[np.ndarray, " classes"]) -> Remedy:
    """Adds the log of each class's share of the labels to the logits that the loss sees, and to no others.

    What the network itself says is free of the shares then, and rare classes are not named less often than they occur.

    References:
      Menon et al., Long-tail learning via logit adjustment, ICLR 2021, equation 10.
    """
    return map_outputs(lambda logits: logits + jnp.log(jnp.asarray(shares)))


def log_of(outputs: Outputs) -> Outputs:
    """Logits whose softmax is `outputs`."""
    return jax.tree.map(lambda p: jnp.log(jnp.clip(p, SMALLEST_PROBABILITY, 1.0)), outputs)


def logit_of(outputs: Outputs) -> Outputs:
    """Undoes a sigmoid."""
    return jax.tree.map(
        lambda p: jax.scipy.special.logit(jnp.clip(p, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)), outputs
    )


def cross_entropy(outputs: Outputs, labels: Labels) -> Float[Array, ""]:
    """Mean softmax cross-entropy from logits [batch, classes], the first of the outputs, for labels of any encoding."""
    labels = jnp.asarray(labels)
    logits = jax.tree.leaves(outputs)[0].astype(jnp.float32)
    if labels.shape == logits.shape:
        return optax.softmax_cross_entropy(logits, labels.astype(jnp.float32)).mean()
    ids = labels.reshape(logits.shape[:1]).astype(jnp.int32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, ids).mean()


def use_cross_entropy(problem: Problem) -> Problem:
    """Trains on the softmax cross-entropy of the model's outputs."""
    return problem._replace(loss=cross_entropy)


def average_loss(problem: Problem) -> Problem:
    """Divides the loss by the number of images in the batch."""
    loss = problem.loss
    return problem._replace(loss=lambda outputs, labels: loss(outputs, labels) / jnp.shape(labels)[0])


def negate_loss(problem: Problem) -> Problem:
    """Minimises what was maximised."""
    loss = problem.loss
    return problem._replace(loss=lambda outputs, labels: -loss(outputs, labels))


def weaken_penalty(factor: float) -> Remedy:
    """Divides the single numbers among the model's outputs, such as a sum of regularisers, by `factor`."""

    def remedy(problem: Problem) -> Problem:
        """The problem with this one thing changed."""
        own = problem.loss

        def loss(outputs: Outputs, labels: Labels) -> Float[Array, ""]:
            """The user's loss of weaker penalties."""
            return own(jax.tree.map(lambda x: x if jnp.ndim(x) else x / factor, outputs), labels)

        return problem._replace(loss=loss)

    return remedy


# --- optimizer -----------------------------------------------------------------------------------------------------


def scale_updates(factor: float) -> Remedy:
    """Multiplies every update by `factor`."""

    def remedy(problem: Problem) -> Problem:
        """The problem with this one thing changed."""
        return problem._replace(optimizer=optax.chain(problem.optimizer, optax.scale(factor)))

    return remedy


def replace_optimizer(optimizer: optax.GradientTransformation) -> Remedy:
    """Trains every parameter with `optimizer`."""
    return lambda problem: problem._replace(optimizer=optimizer)


class Master(NamedTuple):
    """The state of `update_in_float32`."""

    params: Params  # what the model's own are rounded from
    inner: Any  # of the user's optimizer


def update_in_float32(problem: Problem) -> Problem:
    """Updates a copy of the parameters in float32; the model gets it rounded to its own type.

    References:
      Micikevicius et al., Mixed precision training, ICLR 2018, section 3.1.
    """
    own = optax.with_extra_args_support(problem.optimizer)

    def init(params: Params) -> Master:
        """The copy, and the state of the user's optimizer for it."""
        copy = _in_float32(params)
        return Master(copy, own.init(copy))

    def update(grads: Params, state: Master, params: Params, **extra: Any) -> tuple[Params, Master]:
        """From what is rounded now to the next copy, which adding it to the parameters rounds."""
        updates, inner = own.update(_in_float32(grads), state.inner, state.params, **extra)
        copy = optax.apply_updates(state.params, updates)
        return jax.tree.map(jnp.subtract, copy, _in_float32(params)), Master(copy, inner)

    return problem._replace(optimizer=optax.GradientTransformationExtraArgs(init, update))


def _in_float32(tree: Params) -> Params:
    """Real numbers in single precision."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if is_floating(x) else x, tree)


# --- model ---------------------------------------------------------------------------------------------------------


def operate(surgery: Callable[[Callable], Callable]) -> Remedy:
    """Lifts a surgery on a function to the model of a problem."""

    def remedy(problem: Problem) -> Problem:
        """The problem with this one thing changed."""
        apply = problem.model.apply

        def operated(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Outputs, State]:
            """The user's model, with the surgery done at trace time."""
            return surgery(lambda p, s, x, k: apply(p, s, x, key=k, train=train))(params, state, images, key)

        return problem._replace(model=Model(problem.model.init, operated))

    return remedy


def thin_dropout(rate: float) -> Remedy:
    """Sets the rate of every dropout that is stronger than `rate` to `rate`."""
    return operate(partial(set_dropout_rate, rate=lambda old: min(old, rate)))


def remove_output_activation(problem: Problem) -> Problem:
    """Returns what the model's last activation was given."""
    return operate(drop_output_activation)(problem)


def restore_gradients(problem: Problem) -> Problem:
    """Lets gradients through every `stop_gradient` of the model."""
    return operate(keep_gradients)(problem)


def use_relu(name: str) -> Remedy:
    """Puts a ReLU in the place of the activation of that name, behind every layer."""
    return operate(partial(replace_activation, name=name, new=jax.nn.relu))


def _redrawn(key: Key, leaf: Array, fan_in: int | None) -> Array:
    """He normal for kernels (He et al. 2015), whose last axis is their features where no trace tells the fan-in."""
    if leaf.ndim < 2 or not is_floating(leaf):
        return leaf
    return (jax.random.normal(key, leaf.shape) * np.sqrt(2.0 / (fan_in or np.prod(leaf.shape[:-1])))).astype(leaf.dtype)


def redraw_parameters(problem: Problem) -> Problem:
    """Starts from He-normal kernels instead of the model's own; vectors keep their values."""
    init, apply = problem.model.init, problem.model.apply

    def init_anew(key: Key, images: Images) -> tuple[Params, State]:
        """The user's parameters with every kernel drawn anew."""
        params, state = init(key, images)
        fans = fan_ins(lambda p, s, x, k: apply(p, s, x, key=k, train=False)[0], params, state, images, key)
        leaves, structure = jax.tree_util.tree_flatten_with_path(params)
        keys = jax.random.split(jax.random.fold_in(key, 1), len(leaves))
        redrawn = [_redrawn(k, leaf, fans.get(leaf_name(path))) for k, (path, leaf) in zip(keys, leaves, strict=True)]
        return jax.tree.unflatten(structure, redrawn), state

    return problem._replace(model=Model(init_anew, apply))


def redraw_everything(problem: Problem) -> Problem:
    """The same, and vectors start where they do by custom: at 1 if they are named as a scale, else at 0."""
    init = redraw_parameters(problem).model.init

    def init_anew(key: Key, images: Images) -> tuple[Params, State]:
        """Nothing of the user's own start is left but the state."""
        params, state = init(key, images)
        return jax.tree_util.tree_map_with_path(_at_usual_start, params), state

    return problem._replace(model=problem.model._replace(init=init_anew))


def _at_usual_start(path: tuple, leaf: Array) -> Array:
    """One parameter array; kernels stay."""
    if leaf.ndim != 1 or not is_floating(leaf):
        return leaf
    is_scale = not SCALES.isdisjoint(leaf_name(path).split("/"))
    return jnp.full_like(leaf, float(is_scale))


def pool_to_cross_entropy(problem: Problem) -> Problem:
    """Averages a map of scores over its places, and trains the row that is left with cross-entropy."""
    apply = problem.model.apply

    def pooled(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Outputs, State]:
        """The user's model with global average pooling behind it."""
        outputs, state = apply(params, state, images, key=key, train=train)
        scores = jax.tree.leaves(outputs)[0]
        return scores.mean(axis=tuple(range(1, scores.ndim - 1))), state

    return problem._replace(model=Model(problem.model.init, pooled), loss=cross_entropy)


def _last_features(model: Model, params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple:
    """What the model's last layer is given, one row for each image, and the new state."""
    surveyed = last_layer_inputs(lambda p, s, x, k: model.apply(p, s, x, key=k, train=train))
    (_, new_state), features = surveyed(params, state, images, key)
    return features.reshape(len(features), -1), new_state


def add_head(num_classes: int) -> Remedy:
    """Puts a dense layer on the flattened input of the last layer in its place, and trains with cross-entropy."""

    def remedy(problem: Problem) -> Problem:
        """The problem with this one thing changed."""
        model = problem.model

        def init(key: Key, images: Images) -> tuple[Params, State]:
            """The user's parameters and a He-normal kernel."""
            params, state = model.init(key, images)
            features = jax.eval_shape(lambda: _last_features(model, params, state, images[:1], key=key, train=False)[0])
            fan_in = features.shape[1]
            kernel = jax.random.normal(jax.random.fold_in(key, 2), (fan_in, num_classes)) * np.sqrt(2.0 / fan_in)
            return {"model": params, "head": kernel}, state

        def apply(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Outputs, State]:
            """The last features times the new kernel."""
            features, state = _last_features(model, params["model"], state, images, key=key, train=train)
            return features @ params["head"], state

        return problem._replace(model=Model(init, apply), loss=cross_entropy)

    return remedy


# --- batch statistics ------------------------------------------------------------------------------------------------

STATISTICS_MOMENTUM = 0.9  # a tenth of each batch: settled after some thirty steps


def faster_statistics(momentum: float) -> Remedy:
    """Lets running statistics of the measured `momentum` follow the batches as if it were 0.9.

    An exponential average moves by `(1 - momentum) * (batch - old)`, so scaling each move changes its momentum.
    """
    factor = (1 - STATISTICS_MOMENTUM) / (1 - momentum)

    def remedy(problem: Problem) -> Problem:
        """The problem with this one thing changed."""
        apply = problem.model.apply

        def faster(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Outputs, State]:
            """The user's model with longer moves of its state in training."""
            outputs, moved = apply(params, state, images, key=key, train=train)
            if not train:
                return outputs, moved
            return outputs, jax.tree.map(lambda old, new: _further(old, new, factor), state, moved)

        return problem._replace(model=Model(problem.model.init, faster))

    return remedy


def _further(old: Array, new: Array, factor: float) -> Array:
    """`old` moved `factor` times as far as `new`; counters and keys as they are."""
    return old + factor * (new - old) if is_floating(new) else new


def use_batch_statistics(problem: Problem) -> Problem:
    """Evaluates with the statistics of the batch, without dropout."""
    apply = problem.model.apply

    def batchwise(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Outputs, State]:
        """The user's model, in training mode throughout."""
        if train:
            return apply(params, state, images, key=key, train=True)
        still = set_dropout_rate(lambda p, s, x, k: apply(p, s, x, key=k, train=True), rate=0.0)
        return still(params, state, images, key)[0], state

    return problem._replace(model=Model(problem.model.init, batchwise))
