"""750 images of sixteen classes: the shape that was lost, five baselines, error bars, and an honest verdict."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from cnnprobe.cases.sixteen_classes import sixteen_classes
from cnnprobe.data.augment import compose, random_flip, random_shift, random_zoom
from cnnprobe.data.sampling import num_examples
from cnnprobe.doctor.bands import healthy_band
from cnnprobe.doctor.baselines import baselines
from cnnprobe.models.cases import sixteen_cnn
from cnnprobe.probes.scaling import expected_accuracy
from cnnprobe.reporting.formats import percent_text
from cnnprobe.reporting.page import Grid, Picture, Section
from cnnprobe.reporting.story_plots import bars_figure, scaling_figure
from cnnprobe.training.folds import Scores, fold_splits, keep_share, train_folds
from cnnprobe.types import Problem
from experiments.stories.record import (
    Reproduction,
    Story,
    answer,
    chance_of,
    diagnosis_section,
    run_section,
    shared_numbers,
)

TITLE = "750 images, sixteen classes, 43 % at best"
QUESTION = (
    "750 training images of 224x224x3, sixteen classes, batches of four, twenty epochs. The training accuracy is high,"
    " the validation accuracy stays low; as printed, the network has no flatten and no pool before its dense layer."
    " (Clothes and textures stand in for the images.)"
)
REPORTED_SIZE = 224
NUM_FOLDS = 5
NUM_EPOCHS = 8  # of these runs, by when the training images are fitted
SHARES = (0.25, 0.5, 1.0)  # of the training images, for the learning curve
LARGER = 4  # times the batch size
AUGMENT = compose(random_flip(), random_shift(0.1), random_zoom(0.1))
OWN = "the network"


def tell(made: Reproduction, *, num_epochs: int | None = None) -> Story:
    """The page; the network as printed has the shape finding alone, since there is nothing else to measure on it."""
    shape, shape_text = _shape()
    if made.choices.get("flat") is False:
        sections = (shape, run_section(made), diagnosis_section(made))
        return Story(TITLE, QUESTION, f"{shape_text} {answer(made)}", sections, shared_numbers(made))
    epochs = num_epochs or NUM_EPOCHS
    runs = _variants(made, epochs)
    sizes, accuracy = _learning_curve(made.problem, runs[OWN], epochs)
    expected = expected_accuracy(sizes, accuracy)
    simple = {name: score.accuracy for name, score in baselines(made.problem).items()}
    verdict = _verdict(made.problem, runs[OWN], simple, expected)
    told = (
        shape,
        _baselines(made, runs[OWN], simple),
        _effects(runs),
        _scaling(sizes, accuracy, expected),
        run_section(made),
        diagnosis_section(made),
    )
    numbers = {"baselines": simple, "expected accuracy at twice the images": float(expected.mean())}
    numbers |= {"accuracy": {name: float(scores.valid.mean()) for name, scores in runs.items()}}
    return Story(TITLE, QUESTION, verdict, told, shared_numbers(made) | numbers)


def _shape() -> tuple[Section, str]:
    """What the network as printed returns, at the size of the report: read from the shapes, before any training."""
    images = jax.ShapeDtypeStruct((4, REPORTED_SIZE, REPORTED_SIZE, 3), jnp.float32)
    model = sixteen_cnn()
    params, state = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
    outputs, _ = jax.eval_shape(
        lambda p, s, x: model.apply(p, s, x, key=jax.random.key(0), train=True), params, state, images
    )
    shape = "x".join(map(str, outputs.shape[1:]))
    text = (
        f"As printed the network returns {shape} for each image of {REPORTED_SIZE}x{REPORTED_SIZE}x3: scores for every"
        " place, where one row of scores for each image is wanted."
    )
    advice = "A flatten before the dense layer was lost; below, the network has it."
    return Section("The shape, before any training", (f"{text} {advice}",)), text


# --- runs with error bars --------------------------------------------------------------------------------------------


def _smaller(problem: Problem, made: Reproduction) -> Problem:
    """Half as many channels everywhere."""
    own = made.choices.get("width") or 8
    return sixteen_classes(**{**made.choices, "width": max(own // 2, 1)})._replace(train=problem.train)


def _variants(made: Reproduction, num_epochs: int) -> dict[str, Scores]:
    """Each change and the network as it is, on the same folds for as many images seen."""
    problem = made.problem
    splits = fold_splits(num_examples(problem.train), num_folds=NUM_FOLDS, seed=problem.seed)
    steps = max(num_epochs * splits.train.shape[1] // problem.batch_size, 1)
    changes: Mapping[str, Callable[[], tuple[Problem, int]]] = {
        OWN: lambda: (problem, steps),
        "with augmentation": lambda: (problem._replace(augment=AUGMENT), steps),
        f"with batches of {LARGER * problem.batch_size}": lambda: (
            problem._replace(batch_size=LARGER * problem.batch_size),
            max(steps // LARGER, 1),
        ),
        "with half the channels": lambda: (_smaller(problem, made), steps),
    }
    runs = {}
    for name, change in changes.items():
        changed, num_steps = change()
        runs[name] = train_folds(changed, splits, num_steps=num_steps)
    return runs


def _learning_curve(
    problem: Problem, whole: Scores, num_epochs: int
) -> tuple[np.ndarray, Float[np.ndarray, "runs sizes"]]:
    """Accuracy on the held-out fold by the number of training images, for as many steps each."""
    splits = fold_splits(num_examples(problem.train), num_folds=NUM_FOLDS, seed=problem.seed)
    steps = max(num_epochs * splits.train.shape[1] // problem.batch_size, 1)
    parts = [keep_share(splits, share) for share in SHARES[:-1]]
    scores = [train_folds(problem, part, num_steps=steps).valid for part in parts]
    sizes = np.array([part.train.shape[1] for part in (*parts, splits)])
    return sizes, np.stack([*scores, whole.valid], axis=1)


def _spread(values: Float[np.ndarray, " runs"]) -> float:
    """Standard deviation over runs."""
    return float(np.std(values, ddof=1))


def _with_spread(values: Float[np.ndarray, " runs"], *, signed: bool = False) -> str:
    """Mean and standard deviation in points."""
    form = "{:+.0f} \u00b1 {:.0f}" if signed else "{:.0f} \u00b1 {:.0f}"
    return form.format(100 * float(np.mean(values)), 100 * _spread(values))


# --- what they say ---------------------------------------------------------------------------------------------------


def _baselines(made: Reproduction, own: Scores, simple: Mapping[str, float]) -> Section:
    """Rules without a network beside it."""
    bars = {name: (100 * accuracy, float("nan")) for name, accuracy in simple.items()}
    bars[OWN] = (100 * float(own.valid.mean()), 100 * _spread(own.valid))
    rows = tuple((name, f"{value:.0f} %") for name, (value, _) in bars.items())
    caption = f"Accuracy on images that were not trained on; the network with its spread over {NUM_FOLDS} folds."
    return Section(
        "Beside five rules without a network",
        (f"A blind guess is right for {100 * chance_of(made.problem):.2f} %.",),
        Grid(("rule", "accuracy"), rows),
        (Picture("sixteen_classes-baselines", bars_figure(bars, unit="accuracy in %", own=(OWN,)), caption),),
    )


def _effects(runs: Mapping[str, Scores]) -> Section:
    """Each change against the network as it is, fold by fold."""
    own = runs[OWN]
    rows, bars = [], {}
    for name, scores in runs.items():
        gain = scores.valid - own.valid
        effect = "" if name == OWN else _with_spread(gain, signed=True)
        gap = _with_spread(scores.train - scores.valid)
        rows.append((name, _with_spread(scores.train), _with_spread(scores.valid), gap, effect))
        if name != OWN:
            bars[name] = (100 * float(gain.mean()), 100 * _spread(gain))
    header = ("run", "training accuracy, %", "held-out accuracy, %", "gap, points", "effect, points")
    text = (
        f"Every row is {NUM_FOLDS} runs, each with another fifth of the training images held out;"
        " \u00b1 is the standard deviation over the folds. All rows see as many images.",
    )
    picture = Picture(
        "sixteen_classes-effects",
        bars_figure(bars, unit="points of held-out accuracy gained"),
        "What each change gains over the network as it is, on the same folds.",
    )
    return Section("The gap with error bars, and what changes it", text, Grid(header, tuple(rows)), (picture,))


def _scaling(
    sizes: np.ndarray, accuracy: Float[np.ndarray, "runs sizes"], expected: Float[np.ndarray, " runs"]
) -> Section:
    """The learning curve and where it leads."""
    text = (
        f"From {', '.join(map(str, sizes))} images, as many steps each, the power law of learning curves expects"
        f" {_with_spread(expected)} % from {2 * int(sizes.max())} images.",
    )
    caption = "Accuracy on the held-out fold by the number of training images, and what twice as many should give."
    picture = Picture("sixteen_classes-scaling", scaling_figure(sizes, accuracy, expected), caption)
    return Section("Twice the images", text, pictures=(picture,))


def _verdict(problem: Problem, own: Scores, simple: Mapping[str, float], expected: Float[np.ndarray, " runs"]) -> str:
    """The honest answer."""
    best = max(simple, key=lambda name: simple[name])
    gap = float((own.train - own.valid).mean())
    is_short = gap > (healthy_band("generalisation gap")[1] or 0.0)
    standing = "above" if own.valid.mean() > simple[best] else "below"
    words = [
        "Too little data for this network" if is_short else "Not too little data",
        f": {_with_spread(own.valid)} % where a blind guess has {100 * chance_of(problem):.2f} % is learning, but the"
        f" training images are {100 * gap:.0f} points better. Twice the images should bring {_with_spread(expected)} %."
        f" It stands {standing} the best rule without a network ({best}, {percent_text(simple[best])})",
        ": features that are not learnt from these images are worth more than twice as many of them."
        if simple[best] > float(expected.mean())
        else ".",
    ]
    return "".join(words)
