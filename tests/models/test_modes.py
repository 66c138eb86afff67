import inspect

import pytest

from cnnprobe.models.modes import MEANS_EVALUATION, MEANS_TRAINING, mode_arguments


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", [*MEANS_TRAINING, *MEANS_EVALUATION])
def test_every_name_is_understood(name, train):
    def call(x, **options): ...

    call.__signature__ = inspect.Signature([inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)])
    assert mode_arguments(call, train=train) == {name: train == (name in MEANS_TRAINING)}


def test_all_of_several_names_are_told():
    def call(x, train, deterministic=None): ...

    assert mode_arguments(call, train=True) == {"train": True, "deterministic": False}


def test_no_name_is_none():
    assert mode_arguments(lambda x, *rest, **options: x, train=True) == {}
