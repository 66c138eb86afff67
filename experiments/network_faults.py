"""Faults of the network, its loss and its optimizer, beside those of `faults`; each is a function of the problem."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from cnnprobe.models.plain import dropout
from cnnprobe.trees import leaf_name, per_layer
from cnnprobe.types import Images, Key, Labels, Model, Params, Problem, Remedy, State
from experiments.planting import MOMENTUM, count_classes, map_features, map_outputs

# --- loss ---


def softmax_over_batch(problem: Problem) -> Problem:
    """A cross-entropy whose softmax runs over the images of a batch of eight."""

    def loss(logits: Float[Array, "batch classes"], labels: Labels) -> Float[Array, ""]:
        """The faulty loss."""
        log_p = jax.nn.log_softmax(logits, axis=0)
        return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))

    return problem._replace(loss=loss, batch_size=8)


def labels_broadcast(problem: Problem) -> Problem:
    """A mean over the table of all pairs of images and labels."""

    def loss(logits: Float[Array, "batch classes"], labels: Labels) -> Float[Array, ""]:
        """The faulty loss."""
        return -jnp.mean(jnp.take(jax.nn.log_softmax(logits), labels, axis=1))

    return problem._replace(loss=loss)


def squared_error(problem: Problem) -> Problem:
    """The mean squared error of probabilities, with momentum."""
    num_classes = count_classes(problem)

    def loss(logits: Float[Array, "batch classes"], labels: Labels) -> Float[Array, ""]:
        """The slow loss."""
        return jnp.mean(jnp.square(jax.nn.softmax(logits) - jax.nn.one_hot(labels, num_classes)))

    return problem._replace(loss=loss, optimizer=MOMENTUM)


# --- optimizer ---


def optimizer_state_lost(problem: Problem) -> Problem:
    """Adam that is initialised anew in every step."""
    adam = optax.adam(1e-3)

    def update(grads: Params, state: Any, params: Params | None = None) -> tuple[Params, Any]:
        """The first step, over and over."""
        return adam.update(grads, adam.init(grads), params)[0], state

    return problem._replace(optimizer=optax.GradientTransformation(adam.init, update))


def growing_weights(problem: Problem) -> Problem:
    """Weight decay that is added behind the turn of the sign, so that it makes the parameters grow."""
    return problem._replace(optimizer=optax.chain(problem.optimizer, optax.add_decayed_weights(0.02)))


# --- model ---


def trunk_in_state(problem: Problem) -> Problem:
    """All kernels but the head's held in the state, as a framework's frozen layers are, and never trained before."""
    (init, apply), num_classes = problem.model, count_classes(problem)

    def is_held(leaf: Array) -> bool:
        """Whether a parameter is one of those kernels."""
        return leaf.ndim > 1 and leaf.shape[-1] != num_classes

    def divided(key: Key, images: Images) -> tuple[Params, State]:
        """The head and all vectors as parameters, the rest in the state."""
        params, state = init(key, images)
        params = per_layer(jnp.asarray, params)
        held = {name: leaf for name, leaf in params.items() if is_held(leaf)}
        return {name: leaf for name, leaf in params.items() if name not in held}, (held, state)

    def joined(params: Params, states: State, images: Images, *, key: Key, train: bool) -> tuple[Array, State]:
        """The model with both."""
        held, state = states
        known = {**params, **held}
        shapes = jax.eval_shape(init, key, images)[0]
        whole = jax.tree_util.tree_map_with_path(lambda path, _: known[leaf_name(path)], shapes)
        outputs, state = apply(whole, state, images, key=key, train=train)
        return outputs, (held, state)

    return problem._replace(model=Model(divided, joined))


def _drawn_times(problem: Problem, factor: float) -> Problem:
    """Kernels that start at so many times their size."""
    init, apply = problem.model

    def scaled(key: Key, images: Images) -> tuple[Params, State]:
        """The larger or smaller parameters."""
        params, state = init(key, images)
        return jax.tree.map(lambda leaf: leaf * factor if leaf.ndim > 1 else leaf, params), state

    return problem._replace(model=Model(scaled, apply))


def loud_init(problem: Problem) -> Problem:
    """Kernels that start at ten times their size."""
    return _drawn_times(problem, 10.0)


def quiet_init(problem: Problem) -> Problem:
    """Kernels that start at a tenth of their size, as where a variance is taken for a standard deviation; momentum."""
    return _drawn_times(problem, 0.1)._replace(optimizer=MOMENTUM)


def class_without_unit(problem: Problem) -> Problem:
    """A model that has no score for the last class."""
    return map_outputs(problem, lambda outputs: outputs[..., :-1])


def norm_of_zeros(problem: Problem) -> Problem:
    """A penalty on the length of each parameter, which has no gradient where a bias starts at zero."""
    (init, apply), loss = problem.model, problem.loss

    def penalised(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Any, State]:
        """Logits, and the sum of the lengths."""
        outputs, state = apply(params, state, images, key=key, train=train)
        return (outputs, sum(map(jnp.linalg.norm, map(jnp.ravel, jax.tree.leaves(params))))), state

    return problem._replace(
        model=Model(init, penalised),
        loss=lambda outputs, labels: loss(outputs[0], labels) + 1e-4 * outputs[1],
        predict=lambda outputs: jnp.argmax(outputs[0], axis=-1),
    )


def parameters_in_float16(problem: Problem) -> Problem:
    """Parameters in float16, and so the averages of Adam, whose epsilon is zero there; all else is float32."""
    init, apply = problem.model

    def cast(params: Params, dtype: Any) -> Params:
        """All arrays in one precision."""
        return jax.tree.map(lambda leaf: leaf.astype(dtype), params)

    def init_half(key: Key, images: Images) -> tuple[Params, State]:
        """The same start in fewer bits."""
        params, state = init(key, images)
        return cast(params, jnp.float16), state

    def apply_whole(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Any, State]:
        """The user's model in float32."""
        return apply(cast(params, jnp.float32), state, images, key=key, train=train)

    return problem._replace(model=Model(init_half, apply_whole))


def biases_below_zero(problem: Problem) -> Problem:
    """Biases that start so low that no ReLU is ever on."""
    init, apply = problem.model

    def lowered(key: Key, images: Images) -> tuple[Params, State]:
        """The parameters with every vector of zeros at -20."""
        params, state = init(key, images)
        biases = jax.tree.map(lambda leaf: leaf.ndim == 1 and not np.any(leaf), params)
        return jax.tree.map(lambda leaf, low: leaf - 20.0 * low, params, biases), state

    return problem._replace(model=Model(lowered, apply))


def images_mixed(problem: Problem) -> Problem:
    """A reshape that cuts the images of a batch to strips and puts strips of many images together."""
    init, apply = problem.model

    def mixed(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Array, State]:
        """The model, after the reshape."""
        return apply(params, state, jnp.swapaxes(images, 0, 1).reshape(images.shape), key=key, train=train)

    return problem._replace(model=Model(init, mixed))


# --- dropout ---


def dropout_on_logits(problem: Problem) -> Problem:
    """Four scores in five dropped in training."""
    init, apply = problem.model

    def dropped(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Array, State]:
        """The model, and dropout of its scores."""
        outputs, state = apply(params, state, images, key=key, train=train)
        return dropout(jax.random.fold_in(key, 1), outputs, rate=0.8, train=train), state

    return problem._replace(model=Model(init, dropped))


def dropout_too_strong(problem: Problem) -> Problem:
    """The dropout rate taken for the share to keep: 95 % of the features are dropped."""
    return map_features(problem, lambda features, key, train: dropout(key, features, rate=0.95, train=train))


def dropout_in_evaluation(problem: Problem) -> Problem:
    """Dropout of features that does not ask for the mode."""
    return map_features(problem, lambda features, key, _: dropout(key, features, rate=0.8, train=True))


def dropout_mask_shared(problem: Problem) -> Problem:
    """One mask for all images, which then lose the same nine features in ten."""

    def shared(features: Array, key: Key, train: bool) -> Array:
        """The features that the mask leaves."""
        return features * dropout(key, jnp.ones(features.shape[1:]), rate=0.9, train=train)

    return map_features(problem, shared)


NETWORK_FAULTS: tuple[Remedy, ...] = (
    softmax_over_batch,
    labels_broadcast,
    squared_error,
    optimizer_state_lost,
    growing_weights,
    trunk_in_state,
    loud_init,
    quiet_init,
    class_without_unit,
    norm_of_zeros,
    parameters_in_float16,
    biases_below_zero,
    images_mixed,
    dropout_on_logits,
    dropout_too_strong,
    dropout_in_evaluation,
    dropout_mask_shared,
)
