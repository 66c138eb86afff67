"""Whatever was measured: what speaks for a cause lies between 0 and 1, and its owner is told without a NaN."""

import math

import numpy as np
import pytest
from doctor.test_causes import SICK_FACTS
from hypothesis import given
from hypothesis import strategies as st

from cnnprobe.doctor.bands import _bands
from cnnprobe.doctor.bench import Bench, Sample
from cnnprobe.doctor.causes import CAUSES
from cnnprobe.doctor.looks.loss import LossLook
from cnnprobe.doctor.observation import Observation
from cnnprobe.models.networks import small_cnn
from cnnprobe.probes.fingerprint import loss_fingerprint
from cnnprobe.types import Dataset, LayerRow, Problem
from experiments.problems import cross_entropy

FACTS = sorted(set(_bands()) | {name for facts in SICK_FACTS.values() for name in facts})
NAMES = {
    "outputs": ("logits", "probabilities", "log-probabilities", "sigmoid", "relu", "constant"),
    "loss of logits": (
        "cross-entropy",
        "summed",
        "softmax-twice",
        "squared-error",
        "raw-nll",
        "unknown",
        "no-gradient",
    ),
    "loss of probabilities": ("cross-entropy", "unknown", "softmax-twice"),
    "loss wants": ("logits", "probabilities", "either", "neither"),
    "update rule": ("slope", "sign", ""),
    "label format": ("integer", "one-hot", "soft"),
}
ALWAYS = {  # what is named wherever the fact beside it was measured
    "classes missing from training": "1, 2",
    "classes missing from validation": "3",
    "idle dense layers": "Dense_0",
    "symmetric layer": "Dense_0",
    "image shape": "8x8x1",
    "output shape": "10",
}
SIZES = (0.0, 1.0, -1.0, 0.5, 2.0, 64.0, 400.0, 1e-9, 1e9, math.nan, math.inf, -math.inf)
VALUES = st.dictionaries(st.sampled_from(FACTS), st.sampled_from(SIZES), max_size=len(FACTS))
WORDS = st.fixed_dictionaries({}, optional={name: st.sampled_from(words) for name, words in NAMES.items()})


@pytest.fixture(scope="module")
def blank():
    """An observation of which nothing is known."""
    import optax

    images, labels = np.zeros((20, 8, 8, 1), np.float32), np.arange(20) % 10
    problem = Problem(small_cnn(10), cross_entropy, optax.adam(1e-3), Dataset(images, labels), num_classes=10)
    sample, loss = Sample(images, labels, labels), loss_fingerprint(cross_entropy, 10)
    rows = tuple(LayerRow(name, "dense", "sigmoid", 0.1, 0.5, 1.0, 1e-4, 1e-4, -3.0) for name in ("first", "last"))
    bench = Bench(problem, 10, sample, sample, True, 20)
    return Observation(bench, {}, {}, LossLook(loss, "cross-entropy", loss, "softmax-twice"), None, rows, {})


@given(facts=VALUES, names=WORDS, is_middle=st.booleans())
def test_evidence_is_a_share_and_says_numbers(blank, facts, names, is_middle):
    middle = {name: (low + high) / 2 for name, (low, high) in _bands().items()} if is_middle else {}
    seen = blank._replace(facts={**middle, **facts}, names=ALWAYS | names)
    for cause in CAUSES:
        evidence = cause.evidence(seen)
        if evidence is not None:
            assert 0 <= evidence.strength <= 1, cause.id
            assert evidence.sentence, cause.id
            assert isinstance(cause.remedies(seen), tuple), cause.id
            assert cause.advice(seen).text, cause.id
