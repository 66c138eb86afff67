"""Whatever was measured: what speaks for a cause lies between 0 and 1, and its owner is told without a NaN."""

import math

from doctor.test_causes import SICK_FACTS
from hypothesis import given
from hypothesis import strategies as st

from cnnprobe.doctor.bands import _bands
from cnnprobe.doctor.causes import CAUSES
from cnnprobe.types import LayerRow
from experiments.calibrate import PLACES
from site_pages.examples import healthy_observation

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
    "classes numbered otherwise": "1 for 2",
    "image shape": "8x8x1",
    "output shape": "10",
}
SIZES = (0.0, 1.0, -1.0, 0.5, 2.0, 64.0, 400.0, 1e-9, 1e9, math.nan, math.inf, -math.inf)
VALUES = st.dictionaries(st.sampled_from(FACTS), st.sampled_from(SIZES), max_size=len(FACTS))
WORDS = st.fixed_dictionaries({}, optional={name: st.sampled_from(words) for name, words in NAMES.items()})


ROWS = tuple(LayerRow(name, "dense", "sigmoid", 0.1, 0.5, 1.0, 1e-4, 1e-4, -3.0) for name in ("first", "last"))


@given(facts=VALUES, names=WORDS, is_middle=st.booleans())
def test_evidence_is_a_share_and_says_numbers(facts, names, is_middle):
    healthy = healthy_observation()
    middle = healthy.facts if is_middle else {}
    places = dict.fromkeys(PLACES, 1.0)  # whole numbers: of a table, and of an image
    seen = healthy._replace(facts={**middle, **facts, **places}, names=ALWAYS | names, layers=ROWS)
    for cause in CAUSES:
        evidence = cause.evidence(seen)
        if evidence is not None:
            assert 0 <= evidence.strength <= 1, cause.id
            assert evidence.sentence, cause.id
            assert isinstance(cause.remedies(seen), tuple), cause.id
            assert cause.advice(seen).text, cause.id
