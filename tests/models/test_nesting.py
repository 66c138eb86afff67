import pytest

from cnnprobe.models.nesting import distinct_names, flatten_names, nest


def test_flattening_undoes_nesting():
    named = {"block/conv/kernel": 1, "block/conv/bias": 2, "head": 3}
    assert nest(named) == {"block": {"conv": {"kernel": 1, "bias": 2}}, "head": 3}
    assert flatten_names(nest(named)) == named


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "a", "a"], ["a", "a_1", "a_2"]),
        (["a/w", "a"], ["a/w", "a_1"]),
        (["a", "a/w"], ["a", "a_1/w"]),
    ],
)
def test_names_are_made_distinct(names, expected):
    assert distinct_names(names) == expected
