import numpy as np
import pytest

from cnnprobe.training.stopping import best_epoch, is_over

NAN = float("nan")


@pytest.mark.parametrize(
    ("losses", "best"),
    [([], None), ([NAN], None), ([3.0, 1.0, 2.0], 1), ([1.0, 1.0], 0), ([NAN, 2.0], 1), ([-np.inf, 2.0], 1)],
)
def test_the_best_is_the_first_of_the_lowest_that_are_numbers(losses, best):
    assert best_epoch(losses) == best


@pytest.mark.parametrize(
    ("losses", "patience", "over"),
    [
        ([], 1, False),
        ([1.0], 1, False),
        ([1.0, 2.0], 1, True),
        ([1.0, 2.0], 2, False),
        ([2.0, 3.0, 1.0], 2, False),
        ([NAN, NAN], 2, True),
        ([1.0, 1.0], 1, True),
        ([1.0, 2.0, 3.0], None, False),
    ],
)
def test_it_is_over_when_patience_is(losses, patience, over):
    assert is_over(losses, patience) == over
