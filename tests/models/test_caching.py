import pytest

from cnnprobe.models.caching import MAX_PROGRAMS, cached


def counting():
    calls = []
    return calls, cached(lambda *args, **kwargs: calls.append((args, kwargs)))


def test_same_arguments_are_built_once():
    calls, build = counting()
    for _ in range(3):
        build(1, option="a")
    assert len(calls) == 1


def test_equal_arguments_of_other_types_are_built_apart():
    calls, build = counting()
    build(1)
    build(True)
    assert len(calls) == 2


def test_arguments_that_cannot_be_hashed_are_built_anew():
    calls, build = counting()
    build([1], option=2)
    build(1, option=[2])
    build(1, option=[2])
    assert len(calls) == 3


def test_few_are_kept():
    calls, build = counting()
    for number in (*range(MAX_PROGRAMS + 1), 0):
        build(number)
    assert len(calls) == MAX_PROGRAMS + 2


def test_a_type_error_of_the_builder_comes_through_once():
    calls = []

    @cached
    def build(x):
        calls.append(x)
        raise TypeError

    with pytest.raises(TypeError):
        build(1)
    assert calls == [1]
