"""Which argument of a model tells training from evaluation."""

import inspect
from collections.abc import Callable

MEANS_TRAINING = ("train", "training", "is_training")
MEANS_EVALUATION = ("deterministic", "use_running_average", "inference")


def mode_arguments(call: Callable, *, train: bool) -> dict[str, bool]:
    """The arguments that put a model's `__call__` into a mode, found by their names; none if it has no such name.

    >>> mode_arguments(lambda x, deterministic=True: x, train=True)
    {'deterministic': False}
    """
    names = inspect.signature(call).parameters
    return {name: train for name in MEANS_TRAINING if name in names} | {
        name: not train for name in MEANS_EVALUATION if name in names
    }
