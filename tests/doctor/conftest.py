import numpy as np
import pytest

from cnnprobe.doctor.bands import _bands
from cnnprobe.doctor.bench import Bench, Sample
from cnnprobe.doctor.looks.loss import LossLook
from cnnprobe.doctor.observation import Observation
from cnnprobe.models.networks import small_cnn
from cnnprobe.probes.fingerprint import loss_fingerprint
from cnnprobe.types import Dataset, Problem
from experiments.problems import cross_entropy


@pytest.fixture(scope="session")
def tiny_bench():
    import optax

    rng = np.random.default_rng(0)
    images, labels = rng.random((20, 8, 8, 1), dtype=np.float32), np.arange(20) % 10
    problem = Problem(small_cnn(10), cross_entropy, optax.adam(1e-3), Dataset(images, labels), num_classes=10)
    sample = Sample(images, labels, labels)
    return Bench(problem, 10, sample, sample, True, 20)


@pytest.fixture(scope="session")
def healthy_loss():
    look = loss_fingerprint(cross_entropy, 10)
    return LossLook(look, "cross-entropy", look, "softmax-twice")


@pytest.fixture
def healthy(tiny_bench, healthy_loss):
    """An observation whose every fact lies in the middle of its healthy band."""
    facts = {name: (low + high) / 2 for name, (low, high) in _bands().items()}
    facts |= {
        "input distinct share": 1.0,
        "output places": 1.0,
        "number of outputs": 1.0,
        "output width": 10.0,
        "loss duplication": 1.0,
    }
    facts |= {
        "input blank share": 0.0,
        "validation accuracy": 0.8,
        "training accuracy": 0.8,
        "update cosine": 0.5,
        "images read": 1000.0,
    }
    names = {"outputs": "logits", "loss of logits": "cross-entropy", "output shape": "10", "image shape": "8x8x1"}
    return Observation(tiny_bench, facts, names, healthy_loss, None, (), {})
