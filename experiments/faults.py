"""Faults to plant in a healthy problem, one at a time: each is a pure function of the problem, as a remedy is.

The problem is expected as `problems.build_problem` makes it: images between 0 and 1 after `preprocess`, integer labels,
logits out of the model, the mean cross-entropy as the loss.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from cnnprobe.checks import check_one_of
from cnnprobe.data.sampling import num_examples, take, to_dataset
from cnnprobe.models.networks import small_cnn
from cnnprobe.models.plain import conv, init_conv, init_dense, max_pool
from cnnprobe.types import Dataset, Images, Key, Labels, Model, Params, Problem, Remedy, Source, State
from experiments.network_faults import NETWORK_FAULTS

# --- what the model is fed ---------------------------------------------------------------------------------------


def raw_pixels(problem: Problem) -> Problem:
    """Pixels from 0 to 255, trained with plain SGD."""
    return _feed(problem, lambda images: 255 * images)._replace(optimizer=optax.sgd(0.1))


def inputs_scaled_twice(problem: Problem) -> Problem:
    """Pixels divided by 255 a second time."""
    return _feed(problem, lambda images: images / 255)


def inputs_offset(problem: Problem) -> Problem:
    """A constant 10 added to every pixel."""
    return _feed(problem, lambda images: images + 10)


def blank_images(problem: Problem) -> Problem:
    """Every image black, as a wrong integer division leaves it."""
    return _feed(problem, lambda images: images // 2)


# --- labels and their order --------------------------------------------------------------------------------------


def shuffled_labels(problem: Problem) -> Problem:
    """Training labels that were permuted once, so that they belong to other images."""
    return _relabel(problem, lambda labels: np.random.default_rng(0).permutation(labels))


def labels_off_by_one(problem: Problem) -> Problem:
    """Training labels that count from 1."""
    return _relabel(problem, lambda labels: labels + 1)


def sorted_batches(problem: Problem) -> Problem:
    """Batches of four in the order of the classes, never shuffled."""
    kept = np.argsort(_labels(problem), kind="stable")
    return _keep(problem, kept)._replace(shuffle=False, batch_size=4)


def class_imbalance(problem: Problem) -> Problem:
    """One example in fifty of every class but the first."""
    labels = _labels(problem)
    rank = np.array([np.sum(labels[:index] == label) for index, label in enumerate(labels)])
    return _keep(problem, np.flatnonzero((labels == 0) | (rank % 50 == 0)))


def too_little_data(problem: Problem) -> Problem:
    """Forty training images, seen many times over."""
    return _keep(problem, np.arange(40))._replace(batch_size=20, num_epochs=100)


# --- loss and outputs --------------------------------------------------------------------------------------------


def softmax_twice(problem: Problem) -> Problem:
    """A model that ends in a softmax, and a loss that takes another."""
    return _map_outputs(problem, jax.nn.softmax)


def relu_on_logits(problem: Problem) -> Problem:
    """A ReLU behind the last layer."""
    return _map_outputs(problem, jax.nn.relu)


def sigmoid_on_logits(problem: Problem) -> Problem:
    """A sigmoid behind the last layer, and a loss that expects logits."""
    return _map_outputs(problem, jax.nn.sigmoid)


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
    return summed._replace(optimizer=optax.sgd(0.1))


# --- optimizer ---------------------------------------------------------------------------------------------------


def learning_rate_too_high(problem: Problem) -> Problem:
    """SGD with a step of 2."""
    return problem._replace(optimizer=optax.sgd(2.0))


def learning_rate_too_low(problem: Problem) -> Problem:
    """Adam with a step of a millionth."""
    return problem._replace(optimizer=optax.adam(1e-6))


def tiny_clip(problem: Problem) -> Problem:
    """SGD on gradients clipped to a norm of a ten-thousandth."""
    return problem._replace(optimizer=optax.chain(optax.clip_by_global_norm(1e-4), optax.sgd(0.1)))


def negated_update(problem: Problem) -> Problem:
    """Updates with the wrong sign."""
    return problem._replace(optimizer=optax.chain(problem.optimizer, optax.scale(-1.0)))


def frozen_trunk(problem: Problem) -> Problem:
    """Only parameters with one entry per class in their last axis are trained: the head, and no other layer."""
    num_classes = _num_classes(problem)

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


def dropout_too_strong(problem: Problem) -> Problem:
    """The dropout rate taken for the share to keep: 95 % of the features are dropped."""
    return problem._replace(model=small_cnn(_num_classes(problem), dropout_rate=0.95))


def statistics_never_updated(problem: Problem) -> Problem:
    """Batch normalisation whose running statistics stay as they were initialised."""
    init, apply = small_cnn(_num_classes(problem), batch_norm=True)

    def forgetful(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Array, State]:
        """The model with the state that it was given."""
        return apply(params, state, images, key=key, train=train)[0], state

    return problem._replace(model=Model(init, forgetful))


def no_nonlinearity(problem: Problem) -> Problem:
    """Layers with nothing between them."""
    return problem._replace(model=small_cnn(_num_classes(problem), activation=lambda x: x))


def missing_flatten(problem: Problem) -> Problem:
    """A dense layer on every place of the map: scores for each pixel, and a loss that takes the mean over them."""
    num_classes, loss = _num_classes(problem), problem.loss

    def init(key: Key, images: Images) -> tuple[Params, State]:
        """A convolution and a head."""
        first, second = jax.random.split(key)
        return {"conv": init_conv(first, images.shape[-1], 16), "head": init_dense(second, 16, num_classes)}, {}

    def apply(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Array, State]:
        """Scores of every place."""
        del key, train
        features = max_pool(jax.nn.relu(conv(params["conv"], jnp.asarray(images))))
        return features @ params["head"]["kernel"] + params["head"]["bias"], state

    def loss_of_places(outputs: Array, labels: Labels) -> Float[Array, ""]:
        """The loss averaged over places."""
        return loss(outputs, jnp.broadcast_to(labels[:, None, None], outputs.shape[:3]))

    return problem._replace(model=Model(init, apply), loss=loss_of_places)


# --- pairs, splits, augmentation, metric ---------------------------------------------------------------------------


def reshuffled_labels(problem: Problem) -> Problem:
    """A loader that shuffles images and labels apart, anew in every epoch."""
    return _loader(problem, lambda images, labels, rng: (images, rng.permutation(labels)))


def mispairing_loader(problem: Problem) -> Problem:
    """A loader that gives every image the label of the one stored after it."""
    return _loader(problem, lambda images, labels, _: (images, np.roll(labels, 1)))


def noisy_labels(problem: Problem) -> Problem:
    """Three in five training labels drawn at random."""
    rng, num_classes = np.random.default_rng(0), _num_classes(problem)
    return _relabel(
        problem,
        lambda labels: np.where(rng.random(len(labels)) < 0.6, rng.integers(0, num_classes, len(labels)), labels),
    )


def split_by_class(problem: Problem) -> Problem:
    """The last classes held out, a quarter of them and one at least, as a split of a sorted set does it."""
    splits = zip(to_dataset(problem.train), to_dataset(_valid(problem)), strict=True)
    images, labels = (np.concatenate(parts) for parts in splits)
    num_classes = _num_classes(problem)
    is_last = labels >= num_classes - max(1, num_classes // 4)
    return problem._replace(
        train=Dataset(images[~is_last], labels[~is_last]), valid=Dataset(images[is_last], labels[is_last])
    )


def leaked_validation(problem: Problem) -> Problem:
    """Nine in ten validation images are training images, of which there are few and which are learnt by heart."""
    small = _keep(problem, np.arange(num_examples(problem.train) // 5))._replace(num_epochs=40)
    valid = to_dataset(_valid(problem))
    num = min(len(valid.labels) * 9 // 10, num_examples(small.train))
    known = take(small.train, np.arange(num))
    images, labels = (np.concatenate(pair) for pair in zip(known, take(valid, np.arange(num // 9)), strict=True))
    return small._replace(valid=Dataset(images, labels))


def destroying_augmentation(problem: Problem) -> Problem:
    """Noise in the units of bytes on images between 0 and 1."""
    return problem._replace(augment=lambda key, images: images + 25 * jax.random.normal(key, images.shape))


def wrong_metric(problem: Problem) -> Problem:
    """Predictions that count the classes from 1."""
    return problem._replace(predict=lambda outputs: jnp.argmax(outputs, axis=-1) + 1)


def spatial_collapse(problem: Problem) -> Problem:
    """An average pool, written for larger images, that leaves one place for the last three of four convolutions."""
    num_classes = _num_classes(problem)
    window = min(np.shape(take(problem.train, [0]).images)[1:3])

    def init(key: Key, images: Images) -> tuple[Params, State]:
        """Four convolutions and a head."""
        *keys, last = jax.random.split(key, 5)
        sizes = zip(keys, (images.shape[-1], 16, 32, 32), (16, 32, 32, 32), strict=True)
        params = {f"conv{i}": init_conv(k, before, after) for i, (k, before, after) in enumerate(sizes)}
        num_places = (images.shape[1] // window) * (images.shape[2] // window)
        return {**params, "head": init_dense(last, 32 * num_places, num_classes)}, {}

    def apply(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Array, State]:
        """Logits of each image."""
        del key, train
        x = _average_pool(jax.nn.relu(conv(params["conv0"], jnp.asarray(images))), window)
        for i in range(1, 4):
            x = jax.nn.relu(conv(params[f"conv{i}"], x))
        return x.reshape(len(x), -1) @ params["head"]["kernel"] + params["head"]["bias"], state

    return problem._replace(model=Model(init, apply))


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
        negated_update,
        frozen_trunk,
        strong_weight_decay,
        constant_init,
        dropout_too_strong,
        statistics_never_updated,
        no_nonlinearity,
        missing_flatten,
        reshuffled_labels,
        mispairing_loader,
        noisy_labels,
        split_by_class,
        leaked_validation,
        destroying_augmentation,
        wrong_metric,
        spatial_collapse,
        *NETWORK_FAULTS,
    )
}


EXPECTED: dict[str, str] = {  # the cause that each fault is
    "raw_pixels": "inputs-not-scaled",
    "inputs_scaled_twice": "inputs-scaled-twice",
    "inputs_offset": "inputs-offset",
    "blank_images": "inputs-blank-or-corrupt",
    "shuffled_labels": "labels-unrelated-to-images",
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
    "negated_update": "update-goes-uphill",
    "frozen_trunk": "parameters-not-updated",
    "strong_weight_decay": "weight-decay-too-strong",
    "constant_init": "symmetric-init",
    "dropout_too_strong": "dropout-too-strong",
    "statistics_never_updated": "batch-statistics-mismatch",
    "no_nonlinearity": "no-nonlinearity",
    "missing_flatten": "missing-flatten",
    "reshuffled_labels": "labels-reshuffled-each-epoch",
    "mispairing_loader": "labels-unrelated-to-images",
    "noisy_labels": "label-noise",
    "split_by_class": "class-missing-from-split",
    "leaked_validation": "train-valid-overlap",
    "destroying_augmentation": "augmentation-destroys-signal",
    "wrong_metric": "metric-bug",
    "spatial_collapse": "spatial-collapse",
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
OWN_NETWORK = frozenset(  # faults that bring a network
    {
        "dropout_in_evaluation",
        "dropout_too_strong",
        "missing_flatten",
        "no_nonlinearity",
        "spatial_collapse",
        "statistics_never_updated",
    }
)


def plant(problem: Problem, fault: str | None) -> Problem:
    """The problem with the fault of that name; None leaves it as it is.

    Raises:
      ValueError: there is no such fault; the message lists them.
    """
    if fault is None:
        return problem
    check_one_of("fault", fault, FAULTS)
    return FAULTS[fault](problem)


def _feed(problem: Problem, fn: Callable[[Images], Images]) -> Problem:
    """`fn` after the problem's own preprocessing."""
    first = problem.preprocess or (lambda images: images)
    return problem._replace(preprocess=lambda images: fn(first(images)))


def _labels(problem: Problem) -> Int[np.ndarray, " n"]:
    """All training labels."""
    return np.asarray(take(problem.train, np.arange(num_examples(problem.train))).labels)


def _num_classes(problem: Problem) -> int:
    """Classes of the problem, counted if it does not say."""
    return problem.num_classes or int(_labels(problem).max()) + 1


def _relabel(problem: Problem, fn: Callable[[Int[np.ndarray, " n"]], Int[np.ndarray, " n"]]) -> Problem:
    """The training images with other labels."""
    batch = take(problem.train, np.arange(num_examples(problem.train)))
    return problem._replace(train=Dataset(batch.images, fn(np.asarray(batch.labels))))


def _keep(problem: Problem, kept: Int[np.ndarray, " kept"]) -> Problem:
    """The training examples `kept`, in that order."""
    return problem._replace(train=Dataset(*take(problem.train, kept)))


def _valid(problem: Problem) -> Dataset | Source:
    """The validation images, which the fault needs.

    Raises:
      ValueError: the problem has none.
    """
    if problem.valid is None:
        raise ValueError("problem.valid must be given for this fault, got None.")
    return problem.valid


def _loader(problem: Problem, deal: Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple]) -> Problem:
    """Batches from a loader that deals the images and labels of each epoch by `deal` before it shuffles them."""
    images, labels = take(problem.train, np.arange(num_examples(problem.train)))
    preprocess, size = problem.preprocess or (lambda images: images), problem.batch_size

    def batches(epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """One epoch."""
        rng = np.random.default_rng(epoch)
        dealt = deal(np.asarray(preprocess(images)), np.asarray(labels), rng)
        order = rng.permutation(len(labels))
        for start in range(0, len(order) - size + 1, size):
            yield tuple(part[order[start : start + size]] for part in dealt)

    return problem._replace(batches=batches)


def _average_pool(x: Float[Array, "batch height width channels"], size: int) -> Float[Array, "batch ..."]:
    """Mean of each window of `size` by `size` places; what does not fill a window is left out."""
    down, across = x.shape[1] // size, x.shape[2] // size
    cut = x[:, : down * size, : across * size]
    return cut.reshape(len(x), down, size, across, size, x.shape[-1]).mean(axis=(2, 4))


def _map_outputs(problem: Problem, fn: Callable[[Array], Array]) -> Problem:
    """The model with `fn` behind it."""
    init, apply = problem.model

    def mapped(params: Params, state: State, images: Images, *, key: Key, train: bool) -> tuple[Array, State]:
        """The outputs, changed."""
        outputs, state = apply(params, state, images, key=key, train=train)
        return fn(outputs), state

    return problem._replace(model=Model(init, mapped))
