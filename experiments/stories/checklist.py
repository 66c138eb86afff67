"""Everything that an experienced engineer goes through, each line with its measured effect on this very problem."""

from collections.abc import Mapping

import numpy as np

from cnnprobe.doctor.checklist import Line, checklist
from cnnprobe.reporting.effects import effects_figure
from cnnprobe.reporting.formats import percent_text
from cnnprobe.reporting.page import Grid, Picture, Section
from experiments.stories.record import (
    Reproduction,
    Story,
    answer,
    diagnosis_section,
    run_section,
    shared_numbers,
)

TITLE = "The checklist of an experienced engineer, every line of it tested"
QUESTION = (
    "Why is the accuracy of my CNN unacceptable? The answer was a long list: look at the labels, the balance, the"
    " augmentation, the depth, the activation, the pools, the step size, the optimiser, the loss, the batch size ..."
    " Its own snippet holds a trap: the model ends in a softmax, which is right with a loss on probabilities alone."
)
CAUSES: Mapping[str, str] = {"softmax_twice": "softmax-applied-twice"}
BUDGET_SECONDS = 100.0


def tell(made: Reproduction, *, budget_seconds: float = BUDGET_SECONDS) -> Story:
    """The page: the diagnosis, and the list with what each line would bring."""
    lines = (*checklist(made.problem, budget_seconds=budget_seconds), _early_stopping(made))
    tested = [line for line in lines if len(line.before)]
    best = max(tested, key=lambda line: line.effect, default=None)
    most = "" if best is None else f" Of {len(tested)} changes that were run, the one that gains most: {_say(best)}."
    grid = Grid(("question", "measured"), tuple((line.question, line.answer) for line in lines))
    caption = "What each change does to the balanced accuracy of this problem, in points, with its spread over seeds."
    sections = (
        Section("The list", grid=grid, pictures=(Picture("checklist-effects", effects_figure(lines), caption),)),
        diagnosis_section(made),
        run_section(made),
    )
    numbers = {"effects": {line.question: line.effect for line in tested}, "spreads": _spreads(tested)}
    return Story(TITLE, QUESTION, f"{answer(made)}{most}", sections, shared_numbers(made) | numbers)


def _say(line: Line) -> str:
    """A line in a sentence."""
    return f"\u201c{line.question}\u201d with {100 * line.effect:+.0f} points"


def _spreads(lines: list[Line]) -> dict[str, float]:
    """Standard deviation of each effect over seeds."""
    return {line.question: line.spread for line in lines}


def _early_stopping(made: Reproduction) -> Line:
    """What stopping at the best epoch would have kept."""
    scores = made.before.history.valid["accuracy"]
    best, none = int(np.argmax(scores)), np.zeros(0)
    words = (
        f"after epoch {best + 1} of {len(scores)} it had {percent_text(scores[best])} of the validation images, at the"
        f" end {percent_text(scores[-1])}"
    )
    return Line("Would early stopping keep more?", words, none, none)
