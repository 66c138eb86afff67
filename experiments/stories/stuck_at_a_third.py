"""A network written two ways, "the same" to its owner: what really differs, and why one answers with one class."""

import inspect
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnnprobe.cases.stuck_at_a_third import SUMMARIES, network, stuck_at_a_third
from cnnprobe.data.folders import image_folder
from cnnprobe.data.sampling import num_examples
from cnnprobe.models import plain
from cnnprobe.reporting.formats import percent_text
from cnnprobe.reporting.page import Grid, Picture, Section
from cnnprobe.reporting.story_plots import Answers, Flow, answers_figure, flow_figure, histories_figure
from cnnprobe.tracing.compare import Comparison, compare_models
from cnnprobe.tracing.graph import model_graph
from cnnprobe.tracing.nodes import ModelGraph
from cnnprobe.tracing.readings import layer_stats
from cnnprobe.tracing.taps import value_and_grad
from cnnprobe.training.evaluate import evaluate
from cnnprobe.training.folds import fold_splits, train_folds
from cnnprobe.training.pipeline import prepare
from cnnprobe.training.step import init_state
from cnnprobe.types import Batch, Dataset, Images, Model, Params, Problem, State
from experiments.stories.record import (
    Recording,
    Reproduction,
    Story,
    answer,
    chance_of,
    diagnosis_section,
    reached,
    record,
    run_section,
    shared_numbers,
)

TITLE = "\u201cThe same\u201d network written two ways: one is stuck at a third"
QUESTION = (
    "About 13000 images of three classes, a folder for each class; the training accuracy is pinned at 33.33 % and one"
    " class is the answer to everything. Written with activations as layers of their own instead of an argument of each"
    " layer, it trains. (Textures stand in for the photographs.)"
)
REPORTED_SIZE = 256
NUM_PROBED = 64  # images that the layers are read on
NUM_FILES = 30  # images that are written as files and read again
COLLAPSED = 0.9  # share of one class among the answers to validation images, from which a run has collapsed
NUM_SEEDS = 4  # runs of each network with other weights and other images
BARELY = 1.2  # times the accuracy of a guess: a run that stays below it on its own training images has collapsed


class Read(NamedTuple):
    """One of the two networks, trained and read."""

    recording: Recording
    first: Mapping[str, Flow]  # before any update
    last: Mapping[str, Flow]
    top_share: float  # of the most frequent answer to the validation images, in [0, 1]


def tell(made: Reproduction) -> Story:
    """The page of both networks, whichever of them was asked for."""
    own = made.choices.get("summary") or "A"
    recordings = {own: made.before}
    for other in SUMMARIES.keys() - {own}:
        recordings[other] = record(stuck_at_a_third(**{**made.choices, "summary": other}))
    reads = {name: _read(made, name, recordings[name]) for name in SUMMARIES}
    stuck = {name: _num_stuck(made, name) for name in SUMMARIES}
    graphs = {name: graph_of(network(name), size=REPORTED_SIZE) for name in SUMMARIES}
    sections = (
        _difference(graphs),
        _spellings(),
        *_runs(made, reads, stuck),
        _folders(made.problem),
        run_section(made),
        diagnosis_section(made),
    )
    numbers = {f"top share of {name}": read.top_share for name, read in reads.items()}
    numbers |= {f"validation accuracy of {name}": reached(read.recording.history) for name, read in reads.items()}
    numbers |= {f"stuck seeds of {name}": num for name, num in stuck.items()}
    numbers |= {f"parameters of {name}": graph.num_params for name, graph in graphs.items()}
    return Story(TITLE, QUESTION, f"{_verdict(reads, stuck)} {answer(made)}", sections, shared_numbers(made) | numbers)


def _verdict(reads: Mapping[str, Read], stuck: Mapping[str, int]) -> str:
    """Which of the two collapses, and how much of that is chance."""
    words = [
        f"{name} {'collapses to one class' if read.top_share > COLLAPSED else 'does not collapse'}"
        f" ({percent_text(read.top_share)} of the validation images get one class,"
        f" {percent_text(reached(read.recording.history))} the right one)"
        for name, read in reads.items()
    ]
    draws = " and ".join(f"{num} of {name}" for name, num in stuck.items())
    return (
        "The spelling of the activation changes nothing; a block of convolutions and a dense layer were lost."
        f" {'; '.join(words)}. Of {NUM_SEEDS} other draws of weights and images {draws} stay at a blind guess."
    )


# --- what differs ----------------------------------------------------------------------------------------------------


def graph_of(model: Model, *, size: int) -> ModelGraph:
    """The structure of a network for colour images of that size; nothing is computed."""
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    params, state = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)

    def outputs(params: Params, state: State, images: Images) -> Array:
        """Those of training."""
        return model.apply(params, state, images, key=jax.random.key(0), train=True)[0]

    return model_graph(outputs, params, state, images)


def _difference(graphs: Mapping[str, ModelGraph]) -> Section:
    """Both summaries at the size of the report, and what differs."""
    comparison = compare_models(graphs["A"], graphs["B"])
    text = (
        f"Read from the shapes alone, at {REPORTED_SIZE}x{REPORTED_SIZE}x3: summary A has"
        f" {graphs['A'].num_params:,} parameters, summary B {graphs['B'].num_params:,}. The first pool is 3x3 in both"
        " (252 becomes 84), though the code shown says 2x2.",
    )
    code = "\n\n".join(f"{name}\n{graph}" for name, graph in graphs.items())
    return Section("What really differs", text, code=f"{comparison}\n\n{code}")


def spelled_as_layer(params: Mapping[str, Any], images: Array) -> Array:
    """A convolution, and then a ReLU as a step of its own."""
    x = plain.conv(params["conv"], images)
    x = jax.nn.relu(x)
    return plain.dense(params["head"], plain.flatten(x))


def spelled_as_argument(params: Mapping[str, Any], images: Array) -> Array:
    """The same with the activation as an argument of the layer."""

    def conv(params: plain.Layer, x: Array, activation: Any) -> Array:
        """A convolution that applies its activation itself."""
        return activation(plain.conv(params, x))

    x = conv(params["conv"], images, activation=jax.nn.relu)
    return plain.dense(params["head"], plain.flatten(x))


def compare_spellings() -> tuple[Comparison, float]:
    """The comparison of both spellings, and the largest difference of outputs and gradients on random images."""
    keys = jax.random.split(jax.random.key(0), 3)
    images = jax.random.normal(keys[0], (4, 16, 16, 3))
    params = {"conv": plain.init_conv(keys[1], 3, 8), "head": plain.init_dense(keys[2], 16 * 16 * 8, 3)}
    spellings = (spelled_as_layer, spelled_as_argument)
    graphs = [model_graph(spelled, params, images) for spelled in spellings]
    results = [
        (spelled(params, images), jax.grad(lambda p, spelled=spelled: jnp.sum(spelled(p, images) ** 2))(params))
        for spelled in spellings
    ]
    gaps = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), *results)
    return compare_models(*graphs), max(jax.tree.leaves(gaps))


def _spellings() -> Section:
    """Proof that the spelling does not matter."""
    comparison, gap = compare_spellings()
    text = (
        "An activation as an argument of a layer, and as a layer of its own: the comparison of the two traces says"
        f" \u201c{comparison}\u201d, and outputs and gradients differ by {gap:g} at most.",
    )
    return Section("Two spellings of the activation", text)


# --- how they train --------------------------------------------------------------------------------------------------


def _read(made: Reproduction, name: str, recording: Recording) -> Read:
    """The layers of one network before and after its run, and its last answers."""
    problem = stuck_at_a_third(**{**made.choices, "summary": name})
    assert isinstance(problem.train, Dataset)
    first = Batch(problem.train.images[:NUM_PROBED], problem.train.labels[:NUM_PROBED])
    batch = prepare(problem, first, jax.random.key(0), train=False)
    start = init_state(problem, jax.random.key(problem.seed), batch.images)
    assert problem.valid is not None
    answers = evaluate(problem, recording.history.params, recording.history.state, problem.valid).predictions
    return Read(
        recording,
        read_layers(problem, start.params, start.model_state, batch),
        read_layers(problem, recording.history.params, recording.history.state, batch),
        float(np.bincount(answers).max() / len(answers)),
    )


def read_layers(problem: Problem, params: Params, state: State, batch: Batch) -> dict[str, Flow]:
    """What every layer passes on: the user's loss, traced with a tap on every layer."""

    def loss_fn(params: Params) -> Float[Array, ""]:
        """The loss of the batch in evaluation mode."""
        outputs, _ = problem.model.apply(params, state, jnp.asarray(batch.images), key=jax.random.key(0), train=False)
        return problem.loss(outputs, batch.labels)

    stats = layer_stats(jax.jit(lambda params: value_and_grad(loss_fn)(params)[2])(params))
    return {name: Flow(layer.gradient_rms, layer.dead_share) for name, layer in stats.items()}


def _runs(made: Reproduction, reads: Mapping[str, Read], stuck: Mapping[str, int]) -> tuple[Section, ...]:
    """The two runs: curves, answers, and what flows through their layers."""
    names = tuple(map(str, range(made.problem.num_classes or 3)))
    curves = histories_figure(
        {name: read.recording.history for name, read in reads.items()}, chance=chance_of(made.problem)
    )
    answers: dict[str, Answers] = {name: read.recording.answers for name, read in reads.items()}
    trained = Section(
        "Both trained with the same step size",
        (_edge(made, stuck),),
        pictures=(
            Picture("stuck_at_a_third-both", curves, "A and B: accuracy by epoch."),
            Picture(
                "stuck_at_a_third-answers", answers_figure(answers, names), "What every image of a batch was taken for."
            ),
        ),
    )
    rows = tuple(
        (
            name,
            str(len(read.first)),
            f"{_gradient(read.first):.2g}",
            f"{_gradient(read.last):.2g}",
            percent_text(_most_dead(read.first)),
            percent_text(_most_dead(read.last)),
        )
        for name, read in reads.items()
    )
    header = (
        "network",
        "layers",
        "first layer's gradient, before",
        "after",
        "dead units in the worst layer, before",
        "after",
    )
    figure = flow_figure({name: read.last for name, read in reads.items()})
    why = Section(
        "The readings that say why",
        grid=Grid(header, rows),
        pictures=(Picture("stuck_at_a_third-flow", figure, "Layer by layer after training, first layer on top."),),
    )
    return trained, why


def _num_stuck(made: Reproduction, name: str) -> int:
    """How many of some runs with other weights and other images stay at a blind guess."""
    problem = stuck_at_a_third(**{**made.choices, "summary": name})
    splits = fold_splits(num_examples(problem.train), num_folds=NUM_SEEDS)
    steps = max(problem.num_epochs * splits.train.shape[1] // problem.batch_size, 1)
    scores = train_folds(problem, splits, num_steps=steps)
    return int(np.sum(scores.train < BARELY * chance_of(problem)))


def _edge(made: Reproduction, stuck: Mapping[str, int]) -> str:
    """How the runs were made, and how much of the difference is chance."""
    counts = " and ".join(f"{num} of {name}" for name, num in stuck.items())
    return (
        f"Adam with a step of {_step_size(made):g}, from the same seed, on the same images. At this step size both"
        f" stand near the edge: of {NUM_SEEDS} other draws of weights and images {counts} stay at a blind guess."
    )


def _step_size(made: Reproduction) -> float:
    """Of Adam, as the case was built."""
    default = inspect.signature(stuck_at_a_third).parameters["learning_rate"].default
    return float(made.choices.get("learning_rate") or default)


def _gradient(flows: Mapping[str, Flow]) -> float:
    """Root mean square of the gradient by the first layer's activations."""
    return next(iter(flows.values())).gradient_rms


def _most_dead(flows: Mapping[str, Flow]) -> float:
    """Dead units of the worst layer."""
    return max((flow.dead_share for flow in flows.values() if not np.isnan(flow.dead_share)), default=float("nan"))


# --- image folders ---------------------------------------------------------------------------------------------------


def _folders(problem: Problem) -> Section:
    """Some of the images written as a folder for each class, read again, and held against what was written."""
    assert isinstance(problem.train, Dataset)
    with tempfile.TemporaryDirectory() as root:
        order = _write_folders(Path(root), problem.train)
        found = image_folder(root, valid_share=0.0, raw=True)
    same = np.array_equal(found.train.images, problem.train.images[order])
    text = (
        f"{NUM_FILES} of the images were written as files, in a folder for each class, and read with"
        f" cp.image_folder(root, raw=True): {len(found.train.images)} images of {len(found.class_names)} classes,"
        f" {'the same bytes as before' if same else 'other bytes than before'}. Your own folder takes their place"
        " with --images=ROOT.",
    )
    return Section("Image folders", text)


def _write_folders(root: Path, data: Dataset) -> list[int]:
    """Writes the first images as `root/class/number.png`; their places in the order in which they are read."""
    from PIL import Image

    places = sorted(range(min(NUM_FILES, len(data.labels))), key=lambda place: (int(data.labels[place]), place))
    for place in places:
        folder = root / f"class{int(data.labels[place])}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.asarray(data.images[place])).save(folder / f"{place:04d}.png")
    return places
