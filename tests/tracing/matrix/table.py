"""The matrix as a table for the documentation."""

from collections.abc import Callable, Mapping

from . import equinox, haiku, keras, linen, nnx, plain
from .cases import CHECKS, FEATURES, Case, Results, results

LIBRARIES = {
    "plain functions": plain.CASES,
    "Flax Linen": linen.CASES,
    "Flax NNX": nnx.CASES,
    "Haiku": haiku.CASES,
    "Equinox": equinox.CASES,
    "Keras 3": keras.CASES,
}
ABSENT = {("Keras 3", feature): reason for feature, reason in keras.ABSENT.items()}

LETTERS = "abcde"  # one for each check

Outcomes = Mapping[tuple[str, str], str]  # (library, feature) -> the checks that passed, a letter each


def all_passed() -> Outcomes:
    """What the matrix is when every check of every case passes."""
    return {(library, feature): LETTERS for library, cases in LIBRARIES.items() for feature in cases}


def run() -> Outcomes:
    """Runs every check of every case."""
    return {pair: _passed(LIBRARIES[pair[0]][pair[1]]()) for pair in all_passed()}


def _passed(case: Case) -> str:
    """The letters of the checks that pass."""
    got = results(case)
    return "".join(
        letter if _passes(check, case, got) else "-" for letter, check in zip(LETTERS, CHECKS.values(), strict=True)
    )


def _passes(check: Callable, case: Case, got: Results) -> bool:
    try:
        check(case, got)
    except AssertionError:
        return False
    return True


def markdown(outcomes: Outcomes) -> str:
    """A row for each feature and a column for each library; a dash and the reason where a library has no such thing."""
    cells = {pair: f"`{letters}`" for pair, letters in outcomes.items()}
    cells |= {pair: f"- ({reason})" for pair, reason in ABSENT.items()}
    lines = [f"| feature | {' | '.join(LIBRARIES)} |", f"|---|{'---|' * len(LIBRARIES)}"]
    for feature, title in FEATURES.items():
        lines.append(f"| {title} | {' | '.join(cells[library, feature] for library in LIBRARIES)} |")
    return "\n".join(lines)
