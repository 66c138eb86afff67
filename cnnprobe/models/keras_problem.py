"""A compiled Keras model and its data as a training problem."""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from cnnprobe.checks import check_integer, check_same_length, is_real
from cnnprobe.models.keras import WithPenalty, import_keras, is_built, made_by_keras, model_of, take_apart
from cnnprobe.models.keras_optimizer import to_optax
from cnnprobe.types import Dataset, Labels, Outputs, Problem

if TYPE_CHECKING:
    import keras

OVERRIDES = ("train_step", "compute_loss")  # of a model that trains in a way of its own


def problem_from_keras(
    model: "keras.Model | Callable[[], keras.Model]",
    x: Any,
    y: Any,
    *,
    validation_data: tuple | None = None,
    validation_split: float = 0.0,
    batch_size: int = 32,
    epochs: int = 1,
    shuffle: bool = True,
    class_weight: Mapping[int, float] | None = None,
    num_classes: int | None = None,
    seed: int = 0,
) -> Problem:
    """The training problem that `model.fit(x, y, ...)` would run, as it stands.

    Hand over a compiled model before `fit`, or a function that makes and compiles one. `x` and `y` are arrays, and the
    options are those of `fit`. Taken from the model:

    - the loss with its weights, and the sum of regularisers and `add_loss`;
    - the optimizer itself, schedules, clipping, weight decay, averages and loss scale included: each step runs its
      `stateless_apply`;
    - from the metrics the threshold of a binary accuracy, for models of one output unit;
    - which layers are frozen; weights and their new draws for other seeds (see `from_keras`).

    Left out: `sample_weight`, callbacks, the smaller batch at the end of an epoch, and what `fit` does once after
    the last step (the final overwrite of `use_ema`). `class_weight` counts in validation too. Gradients are computed
    before they meet the loss scale of `mixed_float16`.

    Raises:
      ValueError: the model is not compiled with loss and optimizer, overrides `train_step` or `compute_loss`, or runs
        on another backend; an argument is malformed.
      ImportError: keras is not installed.
    """
    made = made_by_keras(model)
    _check_compiled(made)
    check_integer("batch_size", batch_size, 1)
    check_integer("epochs", epochs, 1)
    train, valid = _split(_dataset("x", x, "y", y), validation_data, validation_split)
    if not is_built(made):
        made(train.images[:1])
    parts = take_apart(made)
    return Problem(
        model=model_of(lambda _: parts),
        loss=_loss(made, class_weight),
        optimizer=_optimizer(made, list(parts.params)),
        train=train,
        valid=valid,
        num_classes=num_classes or _num_classes(made, train.labels),
        batch_size=batch_size,
        num_epochs=epochs,
        shuffle=bool(shuffle),
        predict=_predict(made),
        seed=seed,
    )


def _check_compiled(model: "keras.Model") -> None:
    """Raises `ValueError` unless the model is compiled and trains as Keras trains."""
    keras = import_keras()
    if not model.compiled or model.optimizer is None or model._compile_loss is None:
        raise ValueError(
            f"model must be compiled with a loss and an optimizer, got {model.name!r}: call model.compile(...) first."
        )
    own = [name for name in OVERRIDES if getattr(type(model), name) is not getattr(keras.Model, name)]
    if own:
        raise ValueError(
            f"model must train by the train_step and compute_loss of keras.Model, got a {type(model).__name__} that "
            f"overrides {', '.join(own)}: make a cnnprobe.Problem with from_keras(model) and that loss."
        )


# --- data ----------------------------------------------------------------------------------------------------------


def _split(train: Dataset, validation_data: Any, validation_split: float) -> tuple[Dataset, Dataset | None]:
    """Training and validation examples; a share is cut off the end, as `fit` does before it shuffles."""
    if validation_data is not None:
        if not isinstance(validation_data, tuple | list) or len(validation_data) != 2:
            raise ValueError(f"validation_data must be a pair (x, y) of arrays, got {_describe(validation_data)}.")
        return train, _dataset("validation_data[0]", validation_data[0], "validation_data[1]", validation_data[1])
    if not 0 <= validation_split < 1:
        raise ValueError(f"validation_split must be in [0, 1), got {validation_split!r}.")
    if not validation_split:
        return train, None
    cut = math.floor(len(train.images) * (1 - validation_split))
    return Dataset(train.images[:cut], train.labels[:cut]), Dataset(train.images[cut:], train.labels[cut:])


def _dataset(x_name: str, x: Any, y_name: str, y: Any) -> Dataset:
    """Examples that are held as two arrays."""
    data = Dataset(_array(x_name, x), _array(y_name, y))
    check_same_length(x_name, data.images, y_name, data.labels)
    return data


def _array(name: str, value: Any) -> np.ndarray:
    """One numpy array; lists mean several inputs or outputs to Keras."""
    array = None if isinstance(value, list | tuple | Mapping) else np.asarray(value)
    if array is None or not is_real(array.dtype) or not array.ndim:
        raise ValueError(f"{name} must be one array of numbers, got {_describe(value)}.")
    return array


def _describe(value: Any) -> str:
    """A value by its type."""
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, tuple | list) else "")


def _num_classes(model: "keras.Model", labels: Labels) -> int | None:
    """The units of the model's output where the labels reach just as far, so that a class may lack examples."""
    shape = getattr(model, "output_shape", None)
    units = shape[-1] if isinstance(shape, tuple) and shape else None
    is_column = labels.size == len(labels)
    return units if units and units > 1 and is_column and np.max(labels) == units - 1 else None


# --- loss, optimizer, metric ---------------------------------------------------------------------------------------


def _loss(model: "keras.Model", class_weight: Mapping[int, float] | None) -> Callable[[Outputs, Labels], Array]:
    """The loss that the model is compiled with, plus the losses of its own that its outputs carry."""
    compiled = model._compile_loss

    def loss(outputs: Outputs, labels: Labels) -> Float[Array, ""]:
        """What `fit` reports as loss for one batch."""
        scores, penalty = outputs if isinstance(outputs, WithPenalty) else (outputs, None)
        weights = None if class_weight is None else _example_weights(class_weight, labels)
        value = compiled(jnp.asarray(labels), scores, weights)
        return value if penalty is None else value + penalty

    return loss


def _example_weights(class_weight: Mapping[int, float], labels: Labels) -> Float[Array, " batch"]:
    """The weight of each example's class; 1 for classes that are not named."""
    classes = jnp.asarray(labels)
    if classes.ndim > 1:
        classes = classes[:, 0] if classes.shape[1] == 1 else jnp.argmax(classes, axis=1)
    weights = jnp.ones(classes.shape, jnp.float32)
    for name, weight in class_weight.items():
        weights = jnp.where(jnp.round(classes) == name, weight, weights)
    return weights


def _optimizer(model: "keras.Model", names: list[str]) -> optax.GradientTransformation:
    """The model's optimizer, built for its trainable variables."""
    optimizer = model.optimizer
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    steps = int(np.asarray(optimizer.iterations))
    if steps:
        warnings.warn(
            f"model was trained for {steps} steps before: the problem starts from what they left. Hand over a function "
            "that makes and compiles the model to start anew.",
            stacklevel=3,
        )
    if len(optimizer._trainable_variables) != len(names):
        raise ValueError(
            f"model must be compiled again after layers were frozen or freed: it has {len(names)} trainable variables, "
            f"got an optimizer for {len(optimizer._trainable_variables)}."
        )
    return to_optax(optimizer, names)


def _predict(model: "keras.Model") -> Callable[[Outputs], Int[Array, " batch"]] | None:
    """Class ids by the threshold of the metric, for models of one unit; None where no metric names one."""
    thresholds = [threshold for metric in _metrics(model) if (threshold := _threshold(metric)) is not None]
    if not thresholds:
        return None

    def predict(outputs: Outputs) -> Int[Array, " batch"]:
        """The class of each image."""
        scores = outputs.outputs if isinstance(outputs, WithPenalty) else outputs
        if scores.shape[-1] == 1:
            return (scores.reshape(-1) > thresholds[0]).astype(jnp.int32)
        return jnp.argmax(scores, axis=-1).astype(jnp.int32)

    return predict


def _metrics(model: "keras.Model") -> list[Any]:
    """The metrics as they were handed to `compile`."""
    compiled = model._compile_metrics
    return [] if compiled is None else jax.tree.leaves((compiled._user_metrics, compiled._user_weighted_metrics))


def _threshold(metric: Any) -> float | None:
    """The score from which a metric counts the second class."""
    if isinstance(metric, import_keras().metrics.BinaryAccuracy):
        return metric.threshold
    return 0.5 if str(metric).lower() in ("accuracy", "acc", "binary_accuracy") else None
