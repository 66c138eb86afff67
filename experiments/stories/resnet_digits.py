"""A residual network that oscillates near 0.2: overfitting or not, and which of four causes it is."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from cnnprobe.doctor.bands import healthy_band
from cnnprobe.reporting.formats import is_healthy, number_text, percent_text, range_text
from cnnprobe.reporting.page import Grid, Section
from cnnprobe.types import Reading
from experiments.stories.record import (
    Reproduction,
    Story,
    answer,
    diagnosis_section,
    fact_text,
    run_section,
    shared_numbers,
)

TITLE = "A residual network oscillates near 20 %: is it overfitting?"
QUESTION = (
    "10000 images of digits that were never scaled, a bottleneck residual network with batch normalisation, early"
    " stopping with a patience of two epochs. The accuracy stops near 0.2 and oscillates gently. Is it overfitting, or"
    " something else? (Clothes of Fashion-MNIST stand in for the digits.)"
)
CAUSES: Mapping[str, str] = {
    "unscaled": "inputs-not-scaled",
    "late_statistics": "batch-statistics-mismatch",
    "long_steps": "learning-rate-too-high",
}
READINGS: Mapping[str, tuple[str, ...]] = {  # what tells each hypothesis from the others
    "the inputs are not scaled": ("input standard deviation",),
    "evaluation uses statistics that have not arrived": (
        "batch minus running statistics accuracy",
        "train mode minus eval mode accuracy",
    ),
    "the steps are too long": ("largest loss ratio", "log10 of update over parameter"),
    "it overfits": ("generalisation gap",),
}
PATIENCE = 2  # epochs, as reported


def stopping_epoch(losses: Float[np.ndarray, " epochs"], patience: int = PATIENCE) -> int | None:
    """The epoch (from 1) after which early stopping ends a run: the first with `patience` epochs without a new best.

    NaN is no new best. None: it runs to its end.

    >>> stopping_epoch(np.array([3.0, 2.0, 2.5, 2.1, 1.0]))
    4
    """
    best, waited = np.inf, 0
    for epoch, loss in enumerate(losses, 1):
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == patience:
            return epoch
    return None


def tell(made: Reproduction) -> Story:
    """The page of one fault."""
    overfit = _overfits(made)
    stop = stopping_epoch(made.before.history.valid["loss"])
    marks = {"patience ends": stop} if stop else {}
    sections = (
        Section("Overfitting or not?", (overfit,)),
        _patience(made, stop),
        run_section(made, marks=marks),
        _hypotheses(made),
        diagnosis_section(made),
    )
    return Story(
        TITLE, QUESTION, f"{overfit} {answer(made)}", sections, shared_numbers(made) | {"stopping epoch": stop}
    )


def _overfits(made: Reproduction) -> str:
    """The answer to the question that was asked."""
    facts = made.diagnosis.facts
    train, valid = facts.get("training accuracy", np.nan), facts.get("validation accuracy", np.nan)
    words = (
        f"in evaluation it names {percent_text(train)} of its own training images and {percent_text(valid)} of others"
    )
    most = healthy_band("generalisation gap")[1] or 0.0
    if not np.isfinite(train - valid):
        return "Overfitting or not cannot be told: the run was not scored."
    if train - valid > most:
        return f"It overfits: {words}, a gap of {100 * (train - valid):.0f} points."
    return f"It does not overfit: {words}, a gap of {100 * (train - valid):.0f} points."


def _patience(made: Reproduction, stop: int | None) -> Section:
    """What early stopping with the reported patience does to this run."""
    scores = made.before.history.valid["accuracy"]
    if stop is None:
        return Section("Patience", (f"A patience of {PATIENCE} epochs does not end this run of {len(scores)} epochs.",))
    text = (
        f"A patience of {PATIENCE} epochs ends this run after epoch {stop}, at {percent_text(scores[stop - 1])} of the"
        f" validation images; left alone it reaches {percent_text(scores[-1])} after epoch {len(scores)}."
    )
    return Section("Patience", (text,))


def _hypotheses(made: Reproduction) -> Section:
    """Each hypothesis with the readings that would show it."""
    rows = []
    for hypothesis, names in READINGS.items():
        for name in names:
            if name in made.diagnosis.facts:
                reading = Reading(name, made.diagnosis.facts[name], healthy_band(name))
                speaks = "no" if is_healthy(reading) else "yes"
                rows.append((hypothesis, name, number_text(reading.value), range_text(reading.healthy), speaks))
    header = ("hypothesis", "reading", "measured", "healthy", "outside")
    text = (
        f"The running statistics keep {fact_text(made, 'statistics momentum', '{:.3g}')} of the old in a step, over"
        f" {fact_text(made, 'steps of the whole training', '{:.0f}')} steps of training.",
    )
    return Section("Four hypotheses and the readings that tell them apart", text, Grid(header, tuple(rows)))
