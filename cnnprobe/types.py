"""The nouns of cnnprobe: every record that crosses a folder's border.

A problem is a value and a remedy is a function of it, so a diagnosis is something that one can hold, compare and apply:
nothing here has state, and nothing in the package changes a record in place.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree, Shaped

AnyArray: TypeAlias = Array | np.ndarray
Images: TypeAlias = Shaped[AnyArray, " batch *image"]  # channels last: [batch, height, width, channels]
Labels: TypeAlias = Shaped[AnyArray, " batch *label"]  # whatever the user's loss takes
Key: TypeAlias = Array  # a `jax.random.key`
Params: TypeAlias = PyTree[Array]  # what the optimizer trains
State: TypeAlias = PyTree[Array]  # what the model carries untrained: batch statistics, counters
Outputs: TypeAlias = Any  # what the user's model returns: logits [batch, classes] as a rule


# --- the user's training problem ---------------------------------------------------------------------------------


class Model(NamedTuple):
    """A network as two pure functions, whatever library wrote it."""

    init: Callable[[Key, Images], tuple[Params, State]]
    apply: Callable[..., tuple[Outputs, State]]  # (params, state, images, *, key, train) -> (outputs, state)


class Dataset(NamedTuple):
    """Images and their labels, held as arrays (memory-mapped ones stay on the disk)."""

    images: Images
    labels: Labels


class Batch(NamedTuple):
    """What one training step sees."""

    images: Images
    labels: Labels


@runtime_checkable
class Source(Protocol):
    """Random access to examples that need not fit in memory: `tfds.data_source`, a grain source, a list."""

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        """One example, `{"image": [height, width, channels], "label": ...}`."""
        ...


class Problem(NamedTuple):
    """A training problem as its owner runs it; nothing is corrected on the way in.

    Arguments of the user's functions are left open: they may be written for numpy or for jax arrays.
    """

    model: Model
    loss: Callable[[Any, Any], Float[Array, ""]]  # (outputs, labels) -> scalar, exactly as the user trains it
    optimizer: optax.GradientTransformation
    train: Dataset | Source
    valid: Dataset | Source | None = None
    num_classes: int | None = None  # None: the number of distinct labels
    batch_size: int = 64
    num_epochs: int = 5
    shuffle: bool = True  # a fresh order every epoch
    augment: Callable[[Key, Any], Images] | None = None  # (key, images): training batches only, after `preprocess`
    preprocess: Callable[[Any], Images] | None = None  # what the user does to images before the model
    preprocess_valid: Callable[[Any], Images] | None = None  # None: `preprocess` serves validation too
    batches: Callable[[int], Iterable[tuple[Images, Labels]]] | None = None  # (epoch) -> the user's own loader
    predict: Callable[[Any], Int[AnyArray, " batch"]] | None = None  # the user's own metric; None: `argmax`
    seed: int = 0


Remedy: TypeAlias = Callable[[Problem], Problem]


# --- what a doctor says ------------------------------------------------------------------------------------------


class Reading(NamedTuple):
    """One measured number beside the range that healthy models keep."""

    name: str  # in words, with its unit: "standard deviation of the inputs"
    value: float
    healthy: tuple[float | None, float | None]  # lowest and highest; None: open


class Evidence(NamedTuple):
    """Why a cause is suspected."""

    sentence: str  # with the measured numbers in it
    readings: tuple[Reading, ...]
    strength: float  # 0 (none) to 1 (decisive)


class Curve(NamedTuple):
    """One training run, step by step; averaged over nothing, thinned never."""

    loss: Float[np.ndarray, " steps"]  # the user's own loss on the training batch, before the update
    accuracy: Float[np.ndarray, " steps"]  # fraction of the training batch predicted right
    prediction_counts: Int[np.ndarray, "steps classes"]  # images of the batch per predicted class
    label_counts: Int[np.ndarray, "steps classes"]


class Trial(NamedTuple):
    """A problem and its remedied twin, trained from the same keys for the same steps."""

    metric: str  # what `control` and `remedied` hold: "balanced accuracy on 500 held-out images"
    control: Float[np.ndarray, " seeds"]  # in [0, 1]
    remedied: Float[np.ndarray, " seeds"]  # in [0, 1], the same seeds
    num_steps: int
    control_curve: Curve  # of the first seed
    remedied_curve: Curve  # of the first seed

    @property
    def gain(self) -> float:
        """Mean over seeds of `remedied - control`, in points of [0, 1]."""
        return float(np.mean(self.remedied - self.control))

    @property
    def spread(self) -> float:
        """Standard deviation over seeds of the paired differences; NaN for a single seed."""
        differences = self.remedied - self.control
        return float(np.std(differences, ddof=1)) if len(differences) > 1 else float("nan")


class Finding(NamedTuple):
    """One named cause, with what was measured and what to do."""

    cause: str  # an id of the public vocabulary: "inputs-not-scaled"
    title: str  # the same in a few words
    severity: str  # "cause": it costs accuracy here; "warning": a textbook fault that was measured to be benign
    confidence: float  # in [0, 1]
    evidence: Evidence
    remedy: Remedy | None
    advice: str  # what to change, with the user's own numbers
    snippet: str  # the same as code; may be empty
    trial: Trial | None
    explanation: str  # why this stops a network from learning
    references: tuple[str, ...]
    look_alikes: str = ""  # which faults end alike, and what tells this one from them


class LayerRow(NamedTuple):
    """What flowed through one layer on the probe images, after the probed run and before it."""

    name: str  # the path of the layer's parameters
    kind: str  # "conv", "dense", ...
    activation: str  # what follows: "relu", "tanh", ..., "" for none
    activation_std: float
    zero_share: float  # exact zeros among the activations, in [0, 1]
    dead_share: float  # units that no probe image switches on, in [0, 1]
    activation_gradient_rms: float
    gradient_rms: float
    log10_update_ratio: float  # log10 of |update| / |parameters|; -inf: the layer does not move


class GraphRow(NamedTuple):
    """One layer of the network as it is drawn; the first row is the input."""

    name: str  # the path of the layer's parameters
    kind: str  # "input", "conv", "dense", ...
    window: str  # "3x3/2 same", or "" for none
    output: str  # shape of one example's output: "28x28x16"
    field: str  # receptive field and stride: "7x7/2", or "" for none
    num_params: int  # of its kernel and bias
    multiply_adds: int  # for one example
    steps: tuple[str, ...]  # what follows: "batch norm", "relu", "max pool 2x2"
    branches: tuple[int, ...]  # rows whose outputs join behind this layer


class Diagnosis(NamedTuple):
    """The doctor's answer, whole: print it, store it, or apply its remedies."""

    verdict: str  # "faulty", "healthy", "untrained", "under-trained", "noise-limited", "cannot-tell"
    summary: str  # the verdict in one sentence
    findings: tuple[Finding, ...]  # best first; those of severity "cause" stand before the warnings
    curve: Curve | None  # the probed run of the user's own configuration; None: it could not run
    layers: tuple[LayerRow, ...]  # in order of depth, at the end of the probed run
    class_names: tuple[str, ...]
    facts: Mapping[str, Any]  # every reading taken, by name: numbers, strings and flat lists only
    untried: tuple[str, ...]  # what the budget or a failure left out, in words
    seconds: float
    graph: tuple[GraphRow, ...] = ()  # the network in training mode, in order of depth; () if it could not be traced


class History(NamedTuple):
    """What `fit` did."""

    params: Params
    state: State
    train: Mapping[str, Float[np.ndarray, " epochs"]]  # "loss", "accuracy", means over the epoch
    valid: Mapping[str, Float[np.ndarray, " epochs"]]  # the same on validation images; empty without any
    num_steps: int


# --- what a run leaves -----------------------------------------------------------------------------------------------


class Writer(NamedTuple):
    """Where the numbers of a run go while it runs. Each function raises, in words, what keeps it from writing.

    A run says `begin` once with the number of its first step, which is not 0 where it goes on from a checkpoint. What
    the place holds of that step and of later ones is forgotten, since the same steps will write it anew.
    """

    name: str  # what a message calls it
    begin: Callable[[int], None]  # (step)
    write_scalars: Callable[[int, Mapping[str, Any]], None]  # (step, {name: number})
    close: Callable[[], None]  # of one that never began, too; `begin` opens it again
    write_histograms: Callable[[int, Mapping[str, AnyArray]], None] | None = None  # (step, {name: numbers})
    write_images: Callable[[int, Mapping[str, AnyArray]], None] | None = None  # (step, {name: one image})
