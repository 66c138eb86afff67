"""One sick network for each cause: readings as they were measured on small CNNs, for the pages of the causes."""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
import optax

from cnnprobe.doctor.bench import Bench, Sample
from cnnprobe.doctor.looks.loss import LossLook
from cnnprobe.doctor.observation import Observation
from cnnprobe.models.networks import small_cnn
from cnnprobe.probes.fingerprint import loss_fingerprint
from cnnprobe.types import Dataset, LayerRow, Problem
from experiments.problems import cross_entropy

NUM_IMAGES = 500
NUM_CLASSES = 10


class Example(NamedTuple):
    """What differs from a healthy network."""

    facts: Mapping[str, float]
    names: Mapping[str, str] = {}
    layers: tuple[LayerRow, ...] = ()


_SIGMOID = LayerRow("dense1", "dense", "sigmoid", 0.1, 0.0, 0.0, 1e-4, 1e-4, -3.0)
_DEAD = LayerRow("conv2", "conv", "relu", 0.0, 1.0, 1.0, 0.0, 0.0, -3.0)
_TOP = LayerRow("dense2", "dense", "", 0.3, 0.0, 0.0, 1e-3, 1e-3, -3.0)

_DATA = {
    "inputs-not-scaled": Example(
        {
            "input standard deviation": 72.0,
            "input mean": 33.0,
            "input largest absolute value": 255.0,
            "initial loss ratio": 104.0,
            "first training loss ratio": 104.0,
        }
    ),
    "inputs-scaled-twice": Example(
        {
            "input standard deviation": 0.0011,
            "input mean": 0.0005,
            "input largest absolute value": 0.0039,
            "initial input sensitivity": 0.0178,
        }
    ),
    "inputs-offset": Example(
        {
            "input mean over standard deviation": 36.0,
            "input mean": 10.1,
            "input standard deviation": 0.28,
            "initial input sensitivity": 5e-4,
        }
    ),
    "inputs-blank-or-corrupt": Example({"input blank share": 1.0, "input distinct share": 0.002}),
    "train-valid-mismatch": Example({"validation input std ratio": 0.0039, "validation input mean shift": 0.8}),
    "augmentation-destroys-signal": Example(
        {
            "augmented signal share": 0.01,
            "z of the signal lost": 60.0,
            "accuracy of features on clean images": 0.82,
            "accuracy of features on augmented images": 0.1,
            "augmented std ratio": 10.6,
            "training batch accuracy": 0.12,
        }
    ),
}
_LABELS = {
    "label-encoding": Example({"label out of range share": 0.1, "label min": 1.0, "label max": 10.0}),
    "labels-unrelated-to-images": Example(
        {
            "pixel neighbours z": 0.1,
            "random features z": -0.4,
            "pixel neighbours accuracy": 0.104,
            "validation accuracy": 0.12,
        }
    ),
    "class-imbalance": Example(
        {
            "label entropy": 0.1,
            "label majority share": 0.96,
            "validation accuracy": 0.36,
            "accuracy lost to rare classes": 0.6,
            "error of the accuracy lost to rare classes": 0.02,
        },
    ),
    "batches-not-shuffled": Example(
        {"batch label entropy ratio": 0.05, "batch label entropy z": -80.0, "collapse index": 0.69}
    ),
    "labels-reshuffled-each-epoch": Example(
        {
            "label conflict share": 0.9,
            "images seen twice": 920.0,
            "pixel neighbours z": 0.3,
            "stored pixel neighbours z": 62.0,
        }
    ),
    "class-missing-from-split": Example(
        {
            "classes missing from training": 2.0,
            "validation share in missing classes": 0.8,
            "validation accuracy": 0.05,
        },
        {"classes missing from training": "8, 9"},
    ),
    "train-valid-overlap": Example(
        {
            "validation overlap share": 0.6,
            "accuracy on leaked images": 0.9,
            "accuracy on fresh images": 0.6,
            "accuracy owed to the leak": 0.18,
            "error of the accuracy owed to the leak": 0.02,
            "number of steps": 200.0,
        }
    ),
    "label-noise": Example(
        {
            "contradicted label share": 0.5,
            "pixel neighbours z": 14.0,
            "random features z": 20.0,
            "random features accuracy": 0.45,
            "training accuracy": 0.55,
            "end loss ratio": 0.78,
        }
    ),
}
_LOSS = {
    "missing-flatten": Example(
        {"output places": 169.0, "output rank": 4.0}, {"output shape": "13x13x10", "image shape": "28x28x1"}
    ),
    "output-units-not-classes": Example({"output width": 1.0, "output zero share": 0.0}),
    "softmax-applied-twice": Example(
        {"output row sum": 1.0, "loss floor": 1.461, "loss wrong": 2.46, "loss gradient at zero": 0.0949},
        {"outputs": "probabilities"},
    ),
    "wrong-output-activation": Example(
        {"output min": 0.0, "output max": 4.1, "output zero share": 0.52}, {"outputs": "relu"}
    ),
    "missing-softmax": Example(
        {
            "output min": -2.3,
            "output max": 3.1,
            "output row sum": 0.4,
            "loss zero gradient share": 0.67,
            "loss uniform": 16.1,
            "loss wrong": 16.1,
            "loss gradient at zero": 0.0,
            "loss recovers": 0.234,
        },
        {"loss of logits": "log-of-logits"},
    ),
    "softmax-over-wrong-axis": Example(
        {"loss cross example": 0.062, "loss duplication": 1.15, "loss uniform": 4.16}, {"loss of logits": "wrong-axis"}
    ),
    "loss-broadcast-bug": Example(
        {
            "label reach": 0.98,
            "loss floor": 89.2,
            "loss wrong": 90.4,
            "loss gradient at zero": 0.0916,
            "loss recovers": 0.188,
        }
    ),
    "wrong-loss-family": Example(
        {"loss uniform": 0.09, "loss wrong": 0.2, "loss gradient at zero": 0.019}, {"loss of logits": "squared-error"}
    ),
    "loss-summed-not-averaged": Example({"loss duplication": 2.0, "loss uniform": 147.0, "largest loss ratio": 125.0}),
}
_NETWORK = {
    "vanishing-signal": Example(
        {"initial input sensitivity": 7e-10, "end input sensitivity": 9e-8}, {}, (_SIGMOID, _SIGMOID, _TOP)
    ),
    "init-scale-wrong": Example({"initial loss ratio": 995.0}),
    "symmetric-init": Example(
        {"initial unit likeness": 1.0, "last unit likeness": 1.0}, {"symmetric layer": "conv1/kernel"}
    ),
    "cross-example-leak": Example(
        {"cross example share": 0.865, "validation accuracy": 0.12}, {"image shape": "28x28x1"}
    ),
    "no-nonlinearity": Example({"hidden nonlinearities": 0.0, "max pools": 0.0, "number of layers": 4.0}),
    "dead-units": Example(
        {
            "initial dead unit share": 1.0,
            "dead unit share": 1.0,
            "initial input sensitivity": 1e-9,
            "end input sensitivity": 1e-9,
        },
        {},
        (_DEAD, _TOP),
    ),
    "spatial-collapse": Example(
        {
            "smallest map places": 1.0,
            "convolutions on a single place": 3.0,
            "spatial convolutions": 4.0,
        },
        {"first convolution on a single place": "conv2"},
    ),
    "dropout-too-strong": Example(
        {
            "strongest dropout rate": 0.95,
            "mask variance ratio": 3.4,
            "train mode minus eval mode accuracy": -0.36,
            "dropout rate in evaluation": 0.0,
            "dropped output share": 0.0,
        }
    ),
    "dropout-mask-shared": Example(
        {
            "mask sharing": 0.9,
            "strongest dropout rate": 0.9,
            "collapse index": 0.47,
            "collapse index, frozen random": 0.47,
        }
    ),
    "dropout-on-logits": Example(
        {
            "dropped output share": 0.5,
            "strongest dropout rate": 0.5,
            "train mode minus eval mode accuracy": -0.36,
            "dropout rate in evaluation": 0.0,
            "output zero share": 0.0,
        }
    ),
    "batch-statistics-mismatch": Example(
        {"batch minus running statistics accuracy": 0.18, "statistics momentum": 1.0, "mode gap": 1.3}
    ),
}
_TRAINING = {
    "update-goes-uphill": Example({"update cosine": -0.49, "largest loss ratio": 2e5, "end loss ratio": 2e5}),
    "learning-rate-too-high": Example(
        {
            "largest loss ratio": 13.0,
            "first zero gradient share": 0.18,
            "last zero gradient share": 1.0,
            "dead unit share": 1.0,
            "collapse index": 1.0,
            "log10 of update over parameter": -1.1,
            "non finite loss share": 0.0,
        }
    ),
    "updates-too-small": Example(
        {
            "log10 of update over parameter": -5.9,
            "end loss ratio": 1.06,
            "end input sensitivity": 0.16,
            "update over gradient": 1e-6,
            "first zero gradient share": 0.18,
            "last zero gradient share": 0.18,
        }
    ),
    "non-finite-loss": Example({"non finite loss share": 0.98, "first non finite step": 3.0}),
    "parameters-not-updated": Example(
        {"frozen parameter share": 0.978, "cut gradient share": 0.0, "number of updates": 250.0},
        {"frozen": "conv1/kernel, conv2/kernel, dense1/kernel"},
    ),
    "optimizer-state-not-carried": Example(
        {
            "optimizer state numbers": 2e5,
            "optimizer memory": 0.0,
            "sign update share": 0.83,
            "step size": 1e-3,
        },
        {"update rule": "sign"},
    ),
    "weight-decay-too-strong": Example(
        {
            "decay share of a step": 0.95,
            "decay a step": 0.01,
            "parameter growth": 0.37,
            "step size": 1e-3,
        },
        {"update rule": "sign"},
    ),
    "metric-bug": Example(
        {
            "accuracy by your metric": 0.1,
            "accuracy of the outputs": 0.8,
            "accuracy lost by your metric": 0.7,
            "balanced accuracy lost by your metric": 0.7,
            "error of the accuracy lost by your metric": 0.03,
            "metric agreement": 0.11,
        }
    ),
    "too-little-data": Example(
        {
            "generalisation gap": 0.6,
            "training accuracy": 1.0,
            "validation accuracy": 0.4,
            "gain from doubling the images": 0.08,
        }
    ),
}
EXAMPLES: Mapping[str, Example] = {**_DATA, **_LABELS, **_LOSS, **_NETWORK, **_TRAINING}


def observe_example(example: Example) -> Observation:
    """The example as the doctor would see it."""
    seen = healthy_observation()
    names = {**seen.names, **example.names}
    loss = seen.loss._replace(name_of_logits=names["loss of logits"]) if seen.loss else None
    return seen._replace(facts={**seen.facts, **example.facts}, names=names, loss=loss, layers=example.layers)


@cache
def healthy_observation() -> Observation:
    """Ten classes of small images, every reading in the middle of its healthy band; the model leaves their scale."""
    bands = json.loads((files("cnnprobe.doctor") / "bands.json").read_text())["bands"]
    facts = {name: (low + high) / 2 for name, (low, high) in bands.items() if not name.startswith("first layer")}
    facts |= {
        "output places": 1.0,
        "number of outputs": 1.0,
        "output width": float(NUM_CLASSES),
        "loss duplication": 1.0,
        "input distinct share": 1.0,
        "input blank share": 0.0,
        "validation accuracy": 0.8,
        "training accuracy": 0.8,
        "update cosine": 0.5,
        "images read": 1000.0,
    }
    names = {"outputs": "logits", "loss of logits": "cross-entropy", "output shape": "10", "image shape": "28x28x1"}
    fingerprint = loss_fingerprint(cross_entropy, NUM_CLASSES)
    loss = LossLook(fingerprint, "cross-entropy", fingerprint, "softmax-twice")
    return Observation(_bench(), facts, names, loss, None, (), {})


def _bench() -> Bench:
    """Images and labels that advice may count."""
    images, labels = np.zeros((NUM_IMAGES, 28, 28, 1), np.float32), np.arange(NUM_IMAGES) % NUM_CLASSES
    data, sample = Dataset(images, labels), Sample(images, labels, labels)
    problem = Problem(small_cnn(NUM_CLASSES), cross_entropy, optax.adam(1e-3), data, data, num_classes=NUM_CLASSES)
    return Bench(problem, NUM_CLASSES, sample, sample, True, None)
