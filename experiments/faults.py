"""Faults to plant in a healthy problem, one at a time: each is a pure function of the problem, as a remedy is.

The problem is expected as `problems.build_problem` makes it: images between 0 and 1 after `preprocess`, integer labels,
logits out of the model, the mean cross-entropy as the loss.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from cnnprobe.checks import check_one_of
from cnnprobe.data.sampling import take
from cnnprobe.doctor.remedies import operate
from cnnprobe.models.networks import small_cnn
from cnnprobe.tracing.surgery import replace_activation
from cnnprobe.types import Images, Key, Labels, Model, Params, Problem, Remedy, State
from experiments.brought_networks import BROUGHT_NETWORKS
from experiments.data_faults import DATA_FAULTS
from experiments.network_faults import NETWORK_FAULTS
from experiments.planting import MOMENTUM, count_classes, feed, keep, labels_of, map_outputs, relabel

# --- what the model is fed ---------------------------------------------------------------------------------------


def raw_pixels(problem: Problem) -> Problem:
    """Pixels from 0 to 255, trained with momentum."""
    return feed(problem, lambda images: 255 * images)._replace(optimizer=MOMENTUM)


def inputs_scaled_twice(problem: Problem) -> Problem:
    """Pixels divided by 255 a second time."""
    return feed(problem, lambda images: images / 255)


def inputs_offset(problem: Problem) -> Problem:
    """A constant 10 added to every pixel."""
    return feed(problem, lambda images: images + 10)


def blank_images(problem: Problem) -> Problem:
    """Every image black, as a wrong integer division leaves it."""
    return feed(problem, lambda images: images // 2)


# --- labels and their order --------------------------------------------------------------------------------------


def shuffled_labels(problem: Problem) -> Problem:
    """Training labels that were permuted once, so that they belong to other images."""
    return relabel(problem, lambda labels: np.random.default_rng(0).permutation(labels))


def labels_off_by_one(problem: Problem) -> Problem:
    """Training labels that count from 1."""
    return relabel(problem, lambda labels: labels + 1)


def sorted_batches(problem: Problem) -> Problem:
    """Batches of four in the order of the classes, never shuffled."""
    kept = np.argsort(labels_of(problem), kind="stable")
    return keep(problem, kept)._replace(shuffle=False, batch_size=4)


def class_imbalance(problem: Problem) -> Problem:
    """One example in fifty of every class but the first; trained as many steps as with all of them."""
    labels = labels_of(problem)
    rank = np.array([np.sum(labels[:index] == label) for index, label in enumerate(labels)])
    kept = np.flatnonzero((labels == 0) | (rank % 50 == 0))
    return keep(problem, kept)._replace(num_epochs=problem.num_epochs * len(labels) // len(kept))


def too_little_data(problem: Problem) -> Problem:
    """Forty training images, seen many times over."""
    return keep(problem, np.arange(40))._replace(batch_size=20, num_epochs=100)


# --- loss and outputs --------------------------------------------------------------------------------------------


def softmax_twice(problem: Problem) -> Problem:
    """A model that ends in a softmax, and a loss that takes another."""
    return map_outputs(problem, jax.nn.softmax)


def relu_on_logits(problem: Problem) -> Problem:
    """A ReLU behind the last layer."""
    return map_outputs(problem, jax.nn.relu)


def sigmoid_on_logits(problem: Problem) -> Problem:
    """A sigmoid behind the last layer, and a loss that expects logits."""
    return map_outputs(problem, jax.nn.sigmoid)


def missing_softmax(problem: Problem) -> Problem:
    """A loss for probabilities on a model that returns logits."""

    def loss(outputs: Float[Array, "batch classes"], labels: Labels) -> Float[Array, ""]:
        """The faulty loss."""
        probabilities = jnp.clip(outputs, 1e-7, 1.0)
        return -jnp.mean(jnp.log(jnp.take_along_axis(probabilities, labels[:, None], axis=1)))

    return problem._replace(loss=loss)


def sum_loss(problem: Problem) -> Problem:
    """The sum over the batch for a loss, with a step size meant for the mean."""
    loss = problem.loss
    summed = problem._replace(loss=lambda outputs, labels: loss(outputs, labels) * len(labels))
    return summed._replace(optimizer=MOMENTUM)


# --- optimizer ---------------------------------------------------------------------------------------------------


def learning_rate_too_high(problem: Problem) -> Problem:
    """SGD with a step of 2."""
    return problem._replace(optimizer=optax.sgd(2.0))


def learning_rate_too_low(problem: Problem) -> Problem:
    """Adam with a step of a millionth."""
    return problem._replace(optimizer=optax.adam(1e-6))


def tiny_clip(problem: Problem) -> Problem:
    """Momentum on gradients clipped to a norm of a ten-thousandth."""
    return problem._replace(optimizer=optax.chain(optax.clip_by_global_norm(1e-4), MOMENTUM))


def schedule_in_epochs(problem: Problem) -> Problem:
    """Adam whose step size decays over as many updates as the training has epochs."""
    return problem._replace(optimizer=optax.adam(optax.cosine_decay_schedule(1e-3, problem.num_epochs)))


def negated_update(problem: Problem) -> Problem:
    """Updates with the wrong sign."""
    return problem._replace(optimizer=optax.chain(problem.optimizer, optax.scale(-1.0)))


def masked_out(problem: Problem) -> Problem:
    """An optimizer that masks one convolution out, to hold it: its gradients are then added as they are."""

    def is_trained(params: Params) -> Any:
        """Every parameter but the first kernel of a convolution."""
        leaves, structure = jax.tree.flatten(params)
        first = next(index for index, leaf in enumerate(leaves) if leaf.ndim == 4)
        return jax.tree.unflatten(structure, [index != first for index in range(len(leaves))])

    return problem._replace(optimizer=optax.masked(problem.optimizer, is_trained))


def frozen_trunk(problem: Problem) -> Problem:
    """Only parameters with one entry per class in their last axis are trained: the head, and no other layer."""
    num_classes = count_classes(problem)

    def is_trunk(params: Params) -> Any:
        """Which parameters the mask holds back."""
        return jax.tree.map(lambda leaf: leaf.shape[-1] != num_classes, params)

    return problem._replace(optimizer=optax.chain(problem.optimizer, optax.masked(optax.set_to_zero(), is_trunk)))


def strong_weight_decay(problem: Problem) -> Problem:
    """AdamW with a decay that outweighs the data."""
    return problem._replace(optimizer=optax.adamw(1e-3, weight_decay=100.0))


# --- model -------------------------------------------------------------------------------------------------------


def constant_init(problem: Problem) -> Problem:
    """Every parameter starts at 0.01."""
    init, apply = problem.model

    def constant(key: Key, images: Images) -> tuple[Params, State]:
        """The parameters with equal entries."""
        params, state = init(key, images)
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.01), params), state

    return problem._replace(model=Model(constant, apply))


def statistics_never_updated(problem: Problem) -> Problem:
    """Running statistics that stay as they were initialised; a network without any gets batch normalisation."""
    images = take(problem.train, [0]).images
    _, held = jax.eval_shape(problem.model.init, jax.random.key(0), jnp.asarray(images, jnp.float32))
    init, apply = problem.model if jax.tree.leaves(held) else small_cnn(count_classes(problem), batch_norm=True)

    def forgetful(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Array, State]:
        """The model with the state that it was given."""
        return apply(params, state, images, key=key, train=train)[0], state

    return problem._replace(model=Model(init, forgetful))


def no_nonlinearity(problem: Problem) -> Problem:
    """Layers with nothing between them but pools and normalisations."""
    return operate(partial(replace_activation, name=None, new=lambda x: x))(problem)


FAULTS: dict[str, Remedy] = {
    fault.__name__: fault
    for fault in (
        raw_pixels,
        inputs_scaled_twice,
        inputs_offset,
        blank_images,
        shuffled_labels,
        labels_off_by_one,
        sorted_batches,
        class_imbalance,
        too_little_data,
        softmax_twice,
        relu_on_logits,
        sigmoid_on_logits,
        missing_softmax,
        sum_loss,
        learning_rate_too_high,
        learning_rate_too_low,
        tiny_clip,
        schedule_in_epochs,
        negated_update,
        masked_out,
        frozen_trunk,
        strong_weight_decay,
        constant_init,
        statistics_never_updated,
        no_nonlinearity,
        *DATA_FAULTS,
        *NETWORK_FAULTS,
        *BROUGHT_NETWORKS,
    )
}


EXPECTED: dict[str, str] = {  # the cause that each fault is
    "raw_pixels": "inputs-not-scaled",
    "inputs_scaled_twice": "inputs-scaled-twice",
    "inputs_offset": "inputs-offset",
    "blank_images": "inputs-blank-or-corrupt",
    "shuffled_labels": "labels-unrelated-to-images",
    "class_numbers_differ": "label-encoding",
    "labels_off_by_one": "label-encoding",
    "sorted_batches": "batches-not-shuffled",
    "class_imbalance": "class-imbalance",
    "too_little_data": "too-little-data",
    "softmax_twice": "softmax-applied-twice",
    "relu_on_logits": "wrong-output-activation",
    "sigmoid_on_logits": "wrong-output-activation",
    "missing_softmax": "missing-softmax",
    "sum_loss": "loss-summed-not-averaged",
    "learning_rate_too_high": "learning-rate-too-high",
    "learning_rate_too_low": "updates-too-small",
    "tiny_clip": "updates-too-small",
    "schedule_in_epochs": "updates-too-small",
    "negated_update": "update-goes-uphill",
    "masked_out": "update-goes-uphill",
    "frozen_trunk": "parameters-not-updated",
    "strong_weight_decay": "weight-decay-too-strong",
    "constant_init": "symmetric-init",
    "dropout_too_strong": "dropout-too-strong",
    "statistics_never_updated": "batch-statistics-mismatch",
    "no_nonlinearity": "no-nonlinearity",
    "no_nonlinearity_nnx": "no-nonlinearity",
    "missing_flatten": "missing-flatten",
    "missing_flatten_linen": "missing-flatten",
    "missing_flatten_nnx": "missing-flatten",
    "reshuffled_labels": "labels-reshuffled-each-epoch",
    "mispairing_loader": "labels-unrelated-to-images",
    "labels_one_late": "labels-unrelated-to-images",
    "loader_of_few": "too-little-data",
    "noisy_labels": "label-noise",
    "split_by_class": "class-missing-from-split",
    "leaked_validation": "train-valid-overlap",
    "destroying_augmentation": "augmentation-destroys-signal",
    "wrong_metric": "metric-bug",
    "spatial_collapse": "spatial-collapse",
    "valid_upside_down": "train-valid-mismatch",
    "bytes_wrapped": "inputs-blank-or-corrupt",
    "augmented_inside": "augmentation-destroys-signal",
    "growing_weights": "weight-decay-too-strong",
    "trunk_in_state": "parameters-not-updated",
    "loud_init": "init-scale-wrong",
    "quiet_init": "init-scale-wrong",
    "sigmoid_tower": "vanishing-signal",
    "sigmoid_tower_linen": "vanishing-signal",
    "sigmoid_tower_nnx": "vanishing-signal",
    "pool_of_rows": "spatial-collapse",
    "windows_of_one_side": "spatial-collapse",
    "signs_cut_off": "parameters-not-updated",
    "class_without_unit": "output-units-not-classes",
    "norm_of_zeros": "non-finite-loss",
    "parameters_in_float16": "non-finite-loss",
    "softmax_over_batch": "softmax-over-wrong-axis",
    "labels_broadcast": "loss-broadcast-bug",
    "squared_error": "wrong-loss-family",
    "optimizer_state_lost": "optimizer-state-not-carried",
    "biases_below_zero": "dead-units",
    "images_mixed": "cross-example-leak",
    "dropout_on_logits": "dropout-on-logits",
    "dropout_in_evaluation": "dropout-on-logits",
    "dropout_mask_shared": "dropout-mask-shared",
}
OWN_NETWORK = frozenset(fault.__name__ for fault in BROUGHT_NETWORKS)
NOT_IN: dict[str, tuple[str, ...]] = {  # faults that networks have no place for, and these
    "no_nonlinearity": ("residual", "nnx"),  # activations behind sums of layers; a division by what each image has
    "statistics_never_updated": ("nnx",),  # it keeps none
}


TWINS: dict[str, str] = {  # the variant of `healthy` that has all of the fault but what is wrong; "adam" for the others
    "quiet_init": "momentum",
    "raw_pixels": "momentum",
    "sum_loss": "momentum",
    "squared_error": "momentum",
    "learning_rate_too_high": "momentum",
    "tiny_clip": "momentum",
    "sorted_batches": "batches of four",
    "softmax_over_batch": "batches of eight",
}


def plant(problem: Problem, fault: str | None) -> Problem:
    """The problem with the fault of that name; None leaves it as it is.

    Raises:
      ValueError: there is no such fault; the message lists them.
    """
    if fault is None:
        return problem
    check_one_of("fault", fault, FAULTS)
    return FAULTS[fault](problem)
