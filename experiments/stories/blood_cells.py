"""Every image of one batch gets the same class: which of eight programs does that, and what each really does."""

from collections.abc import Mapping

from cnnprobe.data.cells import CELL_CLASSES
from cnnprobe.probes.collapse import BatchCollapse
from cnnprobe.reporting.page import Grid, Picture, Section
from cnnprobe.reporting.story_plots import Answers, answers_figure
from experiments.stories.record import (
    AS_IT_IS,
    MENDED,
    Reproduction,
    Story,
    answer,
    collapse_of,
    diagnosis_section,
    fact_text,
    run_section,
    shared_numbers,
)

TITLE = "Every image of one batch gets the same class, and the next batch another"
QUESTION = (
    "A network for four kinds of white blood cells stays at 25 to 27 % for a hundred epochs, whatever the optimiser,"
    " the step size or the augmentation. It does not name one class for everything: it names one class for a whole"
    " batch, and some other class for the whole of the next. (Cells here are rendered, not photographed.)"
)
HYPOTHESES: Mapping[str | None, str] = {
    None: "Nothing is planted: the network as it learns.",
    "linear_dense": "Hypothesis 1: there is nothing between the two dense layers, as the report lists nothing.",
    "dropped_for_kept": "Hypothesis 2: the shares of units to keep are taken for the shares to drop.",
    "softmax_twice": "Hypothesis 3: the loss takes the softmax of what a softmax has made.",
    "no_softmax": "Hypothesis 3, the other way: a loss that wants probabilities is given raw scores.",
    "metric_of_scores": "Hypothesis 4: the metric compares labels with scores as if they were class ids.",
    "sorted_batches": "Hypothesis 5: files are read folder by folder and never shuffled.",
    "raw_pixels": "Hypothesis 6: pixels stay between 0 and 255, with plain gradient descent.",
    "mispaired": "Hypothesis 6, the other half: images and labels are shuffled apart.",
}
CAUSES: Mapping[str, str] = {  # what the diagnosis must name for each planted fault
    "linear_dense": "no-nonlinearity",
    "dropped_for_kept": "dropout-too-strong",
    "softmax_twice": "softmax-applied-twice",
    "no_softmax": "missing-softmax",
    "metric_of_scores": "metric-bug",
    "sorted_batches": "batches-not-shuffled",
    "raw_pixels": "inputs-not-scaled",
    "mispaired": "labels-unrelated-to-images",
}


def tell(made: Reproduction) -> Story:
    """The page of one hypothesis."""
    num_classes = made.problem.num_classes or len(CELL_CLASSES)
    runs = {AS_IT_IS: made.before.answers}
    if made.after is not None:
        runs[MENDED] = made.after.answers
    collapse = {name: collapse_of(run, num_classes) for name, run in runs.items()}
    first = collapse[AS_IT_IS]
    mechanism = fact_text(made, "collapse mechanism")
    index = f"Predictions follow the batch with a collapse index of {first.index:.2f} (mechanism: {mechanism})."
    sections = (
        Section("The hypothesis", (HYPOTHESES[made.choices.get("fault")],)),
        _batches(runs, num_classes),
        _split(made, collapse),
        run_section(made),
        diagnosis_section(made),
    )
    numbers = {"collapse index": first.index, "collapse mechanism": mechanism, "top prediction share": first.top_share}
    if made.after is not None:
        numbers["collapse index after"] = collapse[MENDED].index
    return Story(TITLE, QUESTION, f"{answer(made)} {index}", sections, shared_numbers(made) | numbers)


def _batches(runs: Mapping[str, Answers], num_classes: int) -> Section:
    """The picture of all answers."""
    names = CELL_CLASSES if len(CELL_CLASSES) == num_classes else tuple(map(str, range(num_classes)))
    caption = (
        "The class that every image was taken for in training, one column a batch; the images of a batch are sorted by"
        " their label. A network that tells them apart shows four bands, one that answers by the batch shows columns of"
        " one colour."
    )
    return Section(
        "Batch after batch", pictures=(Picture("blood_cells-batches", answers_figure(runs, names), caption),)
    )


def _split(made: Reproduction, collapse: Mapping[str, BatchCollapse]) -> Section:
    """The collapse index and what drives it."""
    rows = [
        (name, f"{read.index:.2f}", f"{read.z:.1f}", f"{read.top_share:.0%}", f"{read.own_agreement:.0%}")
        for name, read in collapse.items()
    ]
    header = ("run", "collapse index", "z", "share of the top class in a batch", "top class is the batch's own label")
    frozen = {
        "on the loader's own batches": fact_text(made, "collapse index, frozen loader"),
        "on batches drawn at random": fact_text(made, "collapse index, frozen random"),
        "on those in evaluation mode": fact_text(made, "collapse index, frozen eval"),
    }
    text = (
        "The index is 0 where predictions vary inside batches as chance deals them, and also for a network that always"
        " names one class; it is 1 for one class a batch that changes from batch to batch.",
        f"Mechanism: {fact_text(made, 'collapse mechanism')}. With parameters frozen the index is "
        + ", ".join(f"{value} {where}" for where, value in frozen.items())
        + " (a dash: the run did not collapse, so that was not measured).",
    )
    return Section("The collapse index and its split", text, Grid(header, tuple(rows)))
