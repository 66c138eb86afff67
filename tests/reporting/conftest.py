"""Synthetic diagnoses: nothing here was measured, so that a page can be tested without a training run."""

import numpy as np
import pytest

from cnnprobe.types import Curve, Diagnosis, Evidence, Finding, GraphRow, LayerRow, Reading, Trial

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
LAYERS = (
    ("Conv_0", "conv", "relu"),
    ("Conv_1", "conv", "relu"),
    ("Dense_0", "dense", "relu"),
    ("Dense_1", "dense", ""),
)


def make_curve(*, final_accuracy, num_steps=150, start_loss=2.4, seed=0):
    """A run that comes down from `start_loss`; at chance it names one class a batch, and another one for the next."""
    random = np.random.default_rng(seed)
    progress = 1 - np.exp(-np.arange(num_steps) / 25)
    accuracy = np.clip(0.1 + (final_accuracy - 0.1) * progress + 0.03 * random.normal(size=num_steps), 0, 1)
    loss = start_loss * (1 - final_accuracy * progress) * np.exp(0.06 * random.normal(size=num_steps))
    labels = random.multinomial(64, np.full(10, 0.1), size=num_steps)
    single = 64 * np.eye(10, dtype=int)[random.integers(10, size=num_steps)]
    counts = labels if final_accuracy > 0.3 else single
    return Curve(loss.astype(np.float32), accuracy.astype(np.float32), counts, labels)


def make_trial(*, control=(0.10, 0.12, 0.11), remedied=(0.78, 0.81, 0.80)):
    sick = make_curve(final_accuracy=np.mean(control), start_loss=240.0)
    cured = make_curve(final_accuracy=np.mean(remedied), seed=1)
    metric = "balanced accuracy on 500 held-out images"
    return Trial(metric, np.array(control), np.array(remedied), 150, sick, cured)


def make_layers(value=None):
    """Four layers; every number is `value` if given."""
    rows = []
    for depth, (name, kind, activation) in enumerate(LAYERS):
        numbers = (1.9 / (depth + 1), 0.41 + 0.1 * depth, 0.3 * (depth == 2), 0.003 * 2**depth, 0.02 / 2**depth, -2.8)
        rows.append(LayerRow(name, kind, activation, *(numbers if value is None else (value,) * 6)))
    return tuple(rows)


def make_graph():
    """The input and the four layers; a branch around the second convolution."""
    rows = [GraphRow("input", "input", "", "28x28x1", "", 0, 0, (), ())]
    for depth, (name, kind, activation) in enumerate(LAYERS, 1):
        window = "3x3 same" if kind == "conv" else ""
        steps = ("add", activation) if depth == 2 else (activation,) * bool(activation)
        branches = (1,) if depth == 2 else ()
        rows.append(GraphRow(name, kind, window, "28x28x8", "3x3", 1234 * depth, 5678, steps, branches))
    return tuple(rows)


def unscaled_inputs():
    readings = (
        Reading("standard deviation of the inputs", 90.4, (0.05, 5.0)),
        Reading("largest absolute input", 255.0, (None, 20.0)),
        Reading("first loss over the loss of a uniform guess", 104.2, (0.8, 3.0)),
        Reading("share of gradients that are exactly zero", 0.31, (0.0, 0.5)),
    )
    return Finding(
        cause="inputs-not-scaled",
        title="The inputs are not scaled",
        severity="cause",
        confidence=0.97,
        evidence=Evidence(
            "Images reach the model with a standard deviation of 90.4 and a maximum of 255.", readings, 0.98
        ),
        remedy=lambda problem: problem,
        advice="Divide the images by 255 before the model sees them, in training and in validation.",
        snippet="def preprocess(images):\n    return images.astype(np.float32) / 255",
        trial=make_trial(),
        explanation="Gradients of the first layer grow with the inputs, so one step of plain SGD overshoots.",
        references=("LeCun, Bottou, Orr & Müller, Efficient BackProp, 1998.",),
    )


def weak_decay():
    return Finding(
        cause="weight-decay-too-strong",
        title="Weight decay is strong",
        severity="warning",
        confidence=0.41,
        evidence=Evidence("The penalty's gradient is 2.4 times that of the data.", (), 0.4),
        remedy=None,
        advice="Lower the weight decay to 1e-4.",
        snippet="",
        trial=None,
        explanation="A strong penalty pulls every weight to zero.",
        references=(),
    )


def make_diagnosis(**changes):
    base = Diagnosis(
        verdict="faulty",
        summary="It does not learn because the inputs are not scaled; the remedy was tried and gains 69 points.",
        findings=(unscaled_inputs(), weak_decay()),
        curve=make_curve(final_accuracy=0.11, start_loss=240.0),
        layers=make_layers(),
        class_names=CLASSES,
        facts={
            "input standard deviation": 90.4,
            "optimizer": "sgd",
            "labels per class": [200] * 10,
            "has dropout": False,
        },
        untried=("label noise: 20 s of the budget were left, the check needs 35 s",),
        seconds=24.6,
        graph=make_graph(),
    )
    return base._replace(**changes)


@pytest.fixture
def trial_of():
    """Builds a trial: `trial_of(control=(0.1, 0.2), remedied=(0.6, 0.5))`."""
    return make_trial


@pytest.fixture
def curve_of():
    """Builds a curve: `curve_of(final_accuracy=0.8, num_steps=100)`."""
    return make_curve


@pytest.fixture
def faulty():
    return make_diagnosis()


@pytest.fixture
def healthy():
    summary = "Nothing is wrong: the network reaches 84 % on held-out images in 150 steps."
    return make_diagnosis(
        verdict="healthy", summary=summary, findings=(), curve=make_curve(final_accuracy=0.84), untried=()
    )


@pytest.fixture
def not_running():
    evidence = Evidence(
        "The model raises TypeError: dot_general requires equal contracting sizes, 3136 and 1568.", (), 1.0
    )
    finding = weak_decay()._replace(
        cause="missing-flatten", title="The model cannot run", severity="cause", evidence=evidence
    )
    return make_diagnosis(findings=(finding,), curve=None, layers=(), class_names=(), facts={}, graph=())


@pytest.fixture
def all_nan():
    """Every number that can be NaN is NaN."""
    nan = float("nan")
    curve = make_curve(final_accuracy=0.1)
    curve = curve._replace(
        loss=curve.loss * nan, accuracy=curve.accuracy * nan, prediction_counts=curve.label_counts * 0
    )
    evidence = Evidence("The loss is NaN from the first step.", (Reading("first loss", nan, (None, 10.0)),), 1.0)
    trial = make_trial(control=(nan,), remedied=(nan,))._replace(control_curve=curve, remedied_curve=curve)
    finding = unscaled_inputs()._replace(cause="non-finite-loss", confidence=nan, evidence=evidence, trial=trial)
    return make_diagnosis(findings=(finding,), curve=curve, layers=make_layers(nan), facts={"loss": nan}, seconds=nan)


@pytest.fixture(params=["faulty", "healthy", "not_running", "all_nan"])
def any_diagnosis(request):
    return request.getfixturevalue(request.param)
