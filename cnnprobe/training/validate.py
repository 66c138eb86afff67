"""Whether a problem is well formed: the one place where a `Problem` is refused.

Sick problems pass: NaN images, labels out of range, one class only, a step size of zero. A diagnosis is for them.
"""

from typing import Any

import numpy as np

from cnnprobe.checks import check_callable, check_integer, check_optional, is_real
from cnnprobe.data.sampling import num_examples, take
from cnnprobe.types import Dataset, Model, Problem

OPTIONAL_FUNCTIONS = ("augment", "preprocess", "preprocess_valid", "batches", "predict")


def check_problem(problem: Problem) -> None:
    """Raises `ValueError` for a malformed problem, naming the field, the rule and the value received.

    Cheap: it reads settings, shapes and the first example, and runs neither the model nor the user's functions.
    """
    if not isinstance(problem, Problem):
        raise ValueError(f"problem must be a cnnprobe.Problem, got {type(problem).__name__}.")
    _check_model(problem.model)
    check_callable("loss", problem.loss)
    _check_optimizer(problem.optimizer)
    _check_examples("train", problem.train)
    check_optional(lambda name, valid: _check_examples(name, valid), "valid", problem.valid)
    _check_settings(problem)


def _check_settings(problem: Problem) -> None:
    """Numbers, the switch and the optional functions."""
    check_optional(check_integer, "num_classes", problem.num_classes, 2)
    check_integer("batch_size", problem.batch_size, 1)
    check_integer("num_epochs", problem.num_epochs, 1)
    check_integer("seed", problem.seed, 0)
    if not isinstance(problem.shuffle, bool | np.bool_):
        raise ValueError(f"shuffle must be True or False, got {problem.shuffle!r}.")
    for name in OPTIONAL_FUNCTIONS:
        check_optional(check_callable, name, getattr(problem, name))


def _check_model(model: Any) -> None:
    """Raises `ValueError` unless `model` is a `Model` of two functions."""
    if not isinstance(model, Model):
        raise ValueError(
            f"model must be a cnnprobe.Model, got {type(model).__name__}; from_linen and from_nnx make one of a module."
        )
    check_callable("model.init", model.init)
    check_callable("model.apply", model.apply)


def _check_optimizer(optimizer: Any) -> None:
    """Raises `ValueError` unless `optimizer` has the two functions of an optax optimizer."""
    is_optax = not isinstance(optimizer, type) and all(
        callable(getattr(optimizer, name, None)) for name in ("init", "update")
    )
    if not is_optax:
        raise ValueError(
            f"optimizer must be an optax optimizer with init and update, as optax.adam(1e-3) is, got {optimizer!r}."
        )


def _check_examples(name: str, data: Any) -> None:
    """Raises `ValueError` unless `data` is a data set or source of at least one example of numbers."""
    is_source = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    if not isinstance(data, Dataset) and (not is_source or isinstance(data, str | bytes | tuple)):
        raise ValueError(f"{name} must be a Dataset or a source with len() and [index], got {type(data).__name__}.")
    try:
        num = num_examples(data)
        first = take(data, [0]) if num else None
    except Exception as error:  # the source is the user's own
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{name} cannot be read: {kind}{str(error).rstrip('.')}.") from error
    if first is None:
        raise ValueError(f"{name} must have at least one example, got 0.")
    for field, array in first._asdict().items():
        if not is_real(array.dtype):
            raise ValueError(f"{name} must have {field} of numbers, got {array.dtype}.")
