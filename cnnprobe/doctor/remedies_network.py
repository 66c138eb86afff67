"""Remedies for faults of the network, its loss and its optimizer; see `remedies` for those of the data.

Each factory takes what was measured and returns a `Remedy`; what needs no number is a remedy itself.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from cnnprobe.doctor.remedies import (
    cross_entropy,
    log_of,
    logit_of,
    map_outputs,
    operate,
    use_batch_statistics,
    use_cross_entropy,
)
from cnnprobe.tracing.sides import see_other_side, square_kernels
from cnnprobe.tracing.surgery import (
    drop_output_activation,
    feed_first_layer,
    first_layer_inputs,
    insert_activation,
    replace_activation,
    set_dropout_rate,
)
from cnnprobe.trees import is_floating, leaf_name, per_layer
from cnnprobe.types import Images, Key, Labels, Model, Outputs, Params, Problem, Remedy, State

MOMENTUM = 0.9  # of the gradient descent that carries its state, where the user's own is not known
MARK = 0.5  # standard deviation of a pattern that tells places apart, in those of the images
SAME_RATE = 0.05  # between a dropout's rate and the share of zeros that it leaves in a sample


# --- loss ------------------------------------------------------------------------------------------------------------


def _binary_cross_entropy(scores: Float[Array, "batch units"], labels: Labels) -> Float[Array, ""]:
    """Cross-entropy of one score for each image: the logit of class 1."""
    column = scores.reshape(len(scores), 1)
    targets = jnp.asarray(labels)
    ids = targets[:, -1] if targets.shape == (len(scores), 2) else targets.reshape(len(scores))
    return cross_entropy(jnp.concatenate([jnp.zeros_like(column), column], axis=1), ids)


def reference_loss(outputs: str, width: int) -> Remedy:
    """Trains on cross-entropy, whatever the outputs are: "probabilities", "sigmoid", or scores of `width` units."""
    if width <= 1:
        undo = map_outputs(logit_of) if outputs == "sigmoid" else lambda problem: problem
        return lambda problem: undo(problem._replace(loss=_binary_cross_entropy))
    if outputs == "probabilities":
        return lambda problem: map_outputs(log_of)(use_cross_entropy(problem))
    return use_cross_entropy


def softmax_over_classes(*, is_probability_loss: bool) -> Remedy:
    """Takes the model's softmax off; a loss that reads probabilities gets those of each image."""

    def remedy(problem: Problem) -> Problem:
        """The problem with this one thing changed."""
        bare = operate(drop_output_activation)(problem)
        return map_outputs(jax.nn.softmax)(bare) if is_probability_loss else bare

    return remedy


# --- model -----------------------------------------------------------------------------------------------------------


def _merged(states: Array) -> Array:
    """One state out of those that each image left: their mean; counters and keys are the same in all."""
    return jnp.mean(states, axis=0) if is_floating(states) else states[0]


def each_image_alone(problem: Problem) -> Problem:
    """Runs the model on each image as a batch of one, with a key of its own: nothing crosses from image to image."""
    apply = problem.model.apply

    def alone(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Outputs, State]:
        """The user's model, image by image."""

        def one(image: Array, key: Key) -> tuple[Outputs, State]:
            """The outputs for one image, and the state after it."""
            outputs, moved = apply(params, state, image[None], key=key, train=train)
            return jax.tree.map(lambda rows: rows[0] if jnp.ndim(rows) else rows, outputs), moved

        outputs, states = jax.vmap(one)(jnp.asarray(images), jax.random.split(key, len(images)))
        return outputs, jax.tree.map(_merged, states)

    return problem._replace(model=Model(problem.model.init, alone))


def each_image_by_its_own_statistics(problem: Problem) -> Problem:
    """Runs the model on each image alone, and normalises by that image's statistics in evaluation as in training."""
    return each_image_alone(use_batch_statistics(problem))


def insert_relu(problem: Problem) -> Problem:
    """Puts a ReLU behind every layer but the last."""
    return operate(partial(insert_activation, new=jax.nn.relu))(problem)


def insert_relu_behind(*names: str) -> Remedy:
    """Puts a ReLU behind the layers of these names."""
    return operate(partial(insert_activation, new=jax.nn.relu, names=names))


def use_leaky(name: str) -> Remedy:
    """Puts a leaky ReLU of slope .01 in the place of the activation of that name, behind every layer."""
    return operate(partial(replace_activation, name=name, new=jax.nn.leaky_relu))


def lift_biases(problem: Problem) -> Problem:
    """Starts every bias at 0 or above."""
    init = problem.model.init

    def lifted(key: Key, images: Images) -> tuple[Params, State]:
        """The user's parameters without negative entries in vectors."""
        params, state = init(key, images)
        return jax.tree.map(lambda leaf: jnp.maximum(leaf, 0) if leaf.ndim < 2 else leaf, params), state

    return problem._replace(model=Model(lifted, problem.model.apply))


def feed_as_evaluated(problem: Problem) -> Problem:
    """Feeds the first layer in training what it is fed in evaluation; everything behind it stays as it is."""
    apply = problem.model.apply

    def plain(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Outputs, State]:
        """The user's model without what it does to its images in training alone."""

        def run(weights: tuple[Params, State], train: bool) -> tuple[Outputs, State]:
            """The model in one mode."""
            return apply(*weights, images, key=key, train=train)

        weights = params, state  # the kernel of the first layer may be held in the state
        if not train:
            return run(weights, train)
        fed = first_layer_inputs(lambda weights: run(weights, False)[0])(weights)
        return feed_first_layer(lambda weights: run(weights, True), fed)(weights)

    return problem._replace(model=Model(problem.model.init, plain))


def train_stored(names: Sequence[str], optimizer: optax.GradientTransformation) -> Remedy:
    """Makes parameters of these leaves of the state, which `optimizer` trains; the others keep their own."""

    def remedy(problem: Problem) -> Problem:
        """The problem with this one thing changed."""
        model, own = problem.model, optax.with_extra_args_support(problem.optimizer)

        def init(key: Key, images: Images) -> tuple[Params, State]:
            """The user's parameters, and those that were held."""
            params, state = model.init(key, images)
            held = {name: leaf for name, leaf in per_layer(lambda leaf: leaf, state).items() if name in names}
            return {"own": params, "held": held}, state

        def apply(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Outputs, State]:
            """The user's model, its state as it was but for those leaves."""

            def trained(path: tuple, leaf: Array) -> Array:
                """A leaf of the state, or the parameter in its place."""
                return params["held"].get(leaf_name(path), leaf)

            placed = jax.tree_util.tree_map_with_path(trained, state)
            return model.apply(params["own"], placed, images, key=key, train=train)

        def start(params: Params) -> tuple[Any, Any]:
            """The states of both optimizers."""
            return own.init(params["own"]), optimizer.init(params["held"])

        def update(grads: Params, states: Any, params: Params | None = None, **extra: Any) -> tuple[Params, Any]:
            """Each part from the optimizer that trains it."""
            mine, first = own.update(grads["own"], states[0], None if params is None else params["own"], **extra)
            others, second = optimizer.update(grads["held"], states[1])
            return {"own": mine, "held": others}, (first, second)

        trainer = optax.GradientTransformationExtraArgs(start, update)
        return problem._replace(model=Model(init, apply), optimizer=trainer)

    return remedy


def _train_beside(problem: Problem, name: str, draw: Callable[..., Params], run: Callable) -> Problem:
    """The problem with more parameters, which the user's optimizer trains beside the user's own.

    `draw(key, images, weights)` makes them, and `run(drawn, weights, images, key=, train=)` is the model with them.
    """
    model = problem.model

    def init(key: Key, images: Images) -> tuple[Params, State]:
        """The user's parameters, and those drawn for them."""
        params, state = model.init(key, images)
        return {"own": params, name: draw(key, images, (params, state))}, state

    def apply(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Outputs, State]:
        """The user's model with them."""
        return run(params[name], (params["own"], state), images, key=key, train=train)

    return problem._replace(model=Model(init, apply))


def mark_places(problem: Problem) -> Problem:
    """Adds a pattern of the size of an image to every image, which the same optimizer trains."""

    def draw(key: Key, images: Images, _: tuple[Params, State]) -> Params:
        """A pattern about half as strong as the images."""
        drawn = jax.random.normal(jax.random.fold_in(key, 1), jnp.shape(images)[1:])
        return MARK * jnp.std(jnp.asarray(images, jnp.float32)) * drawn

    def run(pattern: Params, weights: tuple[Params, State], images: Images, **mode: Any) -> tuple[Outputs, State]:
        """The user's model on images that tell where each place is."""
        return problem.model.apply(*weights, images + pattern, **mode)

    return _train_beside(problem, "places", draw, run)


def see_both_sides(problem: Problem) -> Problem:
    """Adds square kernels to layers that combine the places of one side alone; the same optimizer trains them."""

    def run_own(weights: tuple[Params, State], images: Images, **mode: Any) -> tuple[Outputs, State]:
        """The user's model."""
        return problem.model.apply(*weights, images, **mode)

    def draw(key: Key, images: Images, weights: tuple[Params, State]) -> Params:
        """Kernels for both sides."""
        shapes = square_kernels(partial(run_own, key=key, train=True), weights, images)
        kernel, keys = jax.nn.initializers.lecun_normal(), jax.random.split(key, max(len(shapes), 1))
        return {name: kernel(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=False)}

    def run(kernels: Params, weights: tuple[Params, State], images: Images, **mode: Any) -> tuple[Outputs, State]:
        """The user's model with what the square kernels add."""
        return see_other_side(partial(run_own, **mode), kernels, len(images))(weights, images)

    return _train_beside(problem, "square", draw, run)


# --- dropout ---------------------------------------------------------------------------------------------------------


def train_as_evaluated(problem: Problem) -> Problem:
    """Trains in evaluation mode, in which the network draws nothing; for one that keeps no statistics."""
    apply = problem.model.apply

    def steady(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Outputs, State]:
        """The user's model in one mode."""
        del train
        return apply(params, state, images, key=key, train=False)

    return problem._replace(model=Model(problem.model.init, steady))


def evaluate_without_dropout(problem: Problem) -> Problem:
    """Drops nothing in evaluation; training stays as it is."""
    apply = problem.model.apply

    def steady(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Outputs, State]:
        """The user's model, every unit kept in evaluation."""

        def run(params: Params, state: State, images: Images, key: Key) -> tuple[Outputs, State]:
            """The mode that was asked for."""
            return apply(params, state, images, key=key, train=train)

        return (run if train else set_dropout_rate(run, rate=0.0))(params, state, images, key)

    return problem._replace(model=Model(problem.model.init, steady))


def keep_outputs(share: float) -> Remedy:
    """Takes out the dropouts whose rate is about `share`, that of the zeros found among the outputs."""
    return operate(partial(set_dropout_rate, rate=lambda old: 0.0 if abs(old - share) < SAME_RATE else old))


# --- optimizer -------------------------------------------------------------------------------------------------------


def remove_decay(problem: Problem) -> Problem:
    """Shows the optimizer parameters of zero, on which no weight decay acts."""
    own = optax.with_extra_args_support(problem.optimizer)

    def update(grads: Params, state: Any, params: Params | None = None, **extra: Any) -> tuple[Params, Any]:
        """The user's update as it is for parameters of zero."""
        return own.update(grads, state, jax.tree.map(jnp.zeros_like, params), **extra)

    return problem._replace(optimizer=optax.GradientTransformationExtraArgs(own.init, update))


def same_rule(rule: str, step_size: float, *, has_memory: bool) -> optax.GradientTransformation | None:
    """An optimizer that carries its state, with the user's step size; None for a rule that is not known.

    `rule` is "sign" where a first step has one size for all parameters, as Adam's has, and "slope" where it is
    proportional to the gradient; then momentum is what memory it may have.
    """
    if rule == "sign":
        return optax.adam(step_size)
    return optax.sgd(step_size, momentum=MOMENTUM if has_memory else None) if rule == "slope" else None


def train_held(held: Sequence[bool], optimizer: optax.GradientTransformation) -> Remedy:
    """Gives the parameters that are `held` (one flag for each leaf) the updates of `optimizer`, the rest their own."""

    def remedy(problem: Problem) -> Problem:
        """The problem with this one thing changed."""
        own, other = optax.with_extra_args_support(problem.optimizer), optimizer

        def init(params: Params) -> tuple[Any, Any]:
            """The states of both."""
            return own.init(params), other.init(params)

        def update(grads: Params, state: Any, params: Params | None = None, **extra: Any) -> tuple[Params, Any]:
            """Each leaf from the one that trains it."""
            mine, first = own.update(grads, state[0], params, **extra)
            others, second = other.update(grads, state[1], params)
            leaves, structure = jax.tree.flatten(mine)
            pairs = zip(held, leaves, jax.tree.leaves(others), strict=True)
            return jax.tree.unflatten(structure, [new if is_held else old for is_held, old, new in pairs]), (
                first,
                second,
            )

        return problem._replace(optimizer=optax.GradientTransformationExtraArgs(init, update))

    return remedy
