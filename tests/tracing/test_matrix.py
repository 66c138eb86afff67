"""Every library and feature passes every check, and the documentation shows it."""

from pathlib import Path

import pytest

from .matrix.cases import CHECKS, FEATURES, results
from .matrix.table import LIBRARIES, all_passed, markdown

PAIRS = list(all_passed())
DOCS = Path(__file__).parents[2] / "docs" / "taps.md"


@pytest.mark.parametrize(("library", "feature"), PAIRS, ids=[f"{library}-{feature}" for library, feature in PAIRS])
def test_case(library, feature):
    case = LIBRARIES[library][feature]()
    got = results(case)
    for check in CHECKS.values():
        check(case, got)


def test_every_case_has_a_title():
    assert {feature for _, feature in PAIRS} == set(FEATURES)


def test_the_documentation_shows_the_matrix():
    assert markdown(all_passed()) in DOCS.read_text()
