import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnprobe.doctor.bands import healthy_band
from cnnprobe.doctor.causes import CAUSES
from cnnprobe.doctor.causes.record import STAGES, graded, graded_log
from cnnprobe.doctor.harm import DECISIVE
from cnnprobe.doctor.remedies import update_in_float32
from cnnprobe.types import LayerRow

BY_ID = {cause.id: cause for cause in CAUSES}

SICK_FACTS = {
    "inputs-not-scaled": {
        "first training loss ratio": 104.0,
        "input standard deviation": 72.0,
        "first layer input standard deviation": 72.0,
        "input largest absolute value": 255.0,
        "initial loss ratio": 104.0,
    },
    "inputs-scaled-twice": {"input standard deviation": 0.0011, "first layer input standard deviation": 0.0011},
    "train-valid-mismatch": {"validation input std ratio": 0.0039, "validation input mean shift": 0.8},
    "inputs-offset": {"input mean over standard deviation": 36.0},
    "inputs-blank-or-corrupt": {"input blank share": 1.0, "input distinct share": 0.001},
    "labels-unrelated-to-images": {"pixel neighbours z": 0.1, "random features z": -0.4, "validation accuracy": 0.1},
    "label-encoding": {"label out of range share": 0.1, "label max": 10.0},
    "class-imbalance": {"label entropy": 0.1, "label majority share": 0.96},
    "batches-not-shuffled": {"batch label entropy ratio": 0.05, "batch label entropy z": -80.0},
    "missing-flatten": {"output places": 169.0},
    "output-units-not-classes": {"output width": 1.0},
    "loss-summed-not-averaged": {"loss duplication": 2.0},
    "softmax-over-wrong-axis": {"loss cross example": 0.06, "loss duplication": 1.15, "loss uniform": 4.16},
    "loss-broadcast-bug": {"label reach": 0.98},
    "wrong-loss-family": {"loss gradient at zero": 0.019},
    "dead-units": {
        "initial dead unit share": 1.0,
        "dead unit share": 1.0,
        "initial input sensitivity": 1e-9,
        "end input sensitivity": 1e-9,
    },
    "cross-example-leak": {"cross example share": 0.865},
    "no-nonlinearity": {"hidden nonlinearities": 0.0, "max pools": 0.0, "number of layers": 4.0},
    "optimizer-state-not-carried": {
        "optimizer state numbers": 2e5,
        "optimizer memory": 0.0,
        "sign update share": 1.0,
        "step size": 1e-3,
    },
    "weight-decay-too-strong": {
        "decay share of a step": 0.95,
        "decay a step": 0.1,
        "parameter growth": 0.37,
        "step size": 1e-3,
    },
    "dropout-on-logits": {"dropped output share": 0.5, "strongest dropout rate": 0.5},
    "vanishing-signal": {"initial input sensitivity": 2e-7, "end input sensitivity": 1.6e-6},
    "init-scale-wrong": {"initial loss ratio": 900.0},
    "symmetric-init": {"initial unit likeness": 1.0, "last unit likeness": 1.0},
    "update-goes-uphill": {"update cosine": -0.49},
    "learning-rate-too-high": {"largest loss ratio": 32.0},
    "updates-too-small": {"log10 of update over parameter": -5.9},
    "parameters-not-updated": {"frozen parameter share": 1.0, "cut gradient share": 0.0},
    "non-finite-loss": {"non finite loss share": 0.5, "first non finite step": 3.0},
    "dropout-too-strong": {"strongest dropout rate": 0.95, "mask variance ratio": 3.4},
    "dropout-mask-shared": {"mask sharing": 0.9, "strongest dropout rate": 0.5},
    "batch-statistics-mismatch": {"batch minus running statistics accuracy": 0.18, "statistics momentum": 1.0},
    "too-little-data": {
        "generalisation gap": 0.6,
        "training accuracy": 1.0,
        "validation accuracy": 0.4,
        "gain from doubling the images": 0.08,
    },
}
SIGMOID = LayerRow("dense1", "dense", "sigmoid", 0.1, 0.0, 0.0, 1e-4, 1e-4, -3.0)
SICK_NAMES = {
    "softmax-applied-twice": {"outputs": "probabilities"},
    "wrong-output-activation": {"outputs": "relu"},
    "missing-softmax": {"loss of logits": "raw-nll"},
    "softmax-over-wrong-axis": {"loss of logits": "wrong-axis"},
    "wrong-loss-family": {"loss of logits": "squared-error"},
    "optimizer-state-not-carried": {"update rule": "sign"},
}


def sick(healthy, cause_id):
    facts = {**healthy.facts, **SICK_FACTS.get(cause_id, {})}
    names = {**healthy.names, **SICK_NAMES.get(cause_id, {})}
    layers = (SIGMOID, SIGMOID._replace(name="dense2", activation="")) if cause_id == "vanishing-signal" else ()
    loss = healthy.loss and healthy.loss._replace(name_of_logits=names["loss of logits"])
    return healthy._replace(facts=facts, names=names, loss=loss, layers=layers)


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.id)
def test_silent_on_healthy_readings(cause, healthy):
    assert cause.evidence(healthy) is None


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.id)
def test_silent_where_nothing_was_measured(cause, healthy):
    assert cause.evidence(healthy._replace(facts={}, names={}, loss=None)) is None


@pytest.mark.parametrize("cause_id", SICK_FACTS | SICK_NAMES)
def test_sick_readings_speak(cause_id, healthy):
    evidence = BY_ID[cause_id].evidence(sick(healthy, cause_id))
    assert evidence is not None
    assert 0.5 <= evidence.strength <= 1


@pytest.mark.parametrize(
    ("cause_id", "unknown"),
    [
        ("batch-statistics-mismatch", "statistics momentum"),
        ("update-goes-uphill", "end loss ratio"),
        ("dropout-too-strong", "mask variance ratio"),
    ],
)
def test_what_was_not_measured_is_not_said(cause_id, unknown, healthy):
    seen = sick(healthy, cause_id)
    assert "nan" not in BY_ID[cause_id].evidence(seen._replace(facts={**seen.facts, unknown: math.nan})).sentence


@pytest.mark.parametrize("cause_id", SICK_FACTS | SICK_NAMES)
def test_advice_has_the_users_numbers(cause_id, healthy):
    advice = BY_ID[cause_id].advice(sick(healthy, cause_id))
    assert advice.text
    assert "nan" not in advice.text


def test_parameters_in_float16_are_updated_in_float32(healthy):
    seen, cause = sick(healthy, "non-finite-loss"), BY_ID["non-finite-loss"]
    half = seen._replace(facts={**seen.facts, "float16 parameter share": 1.0})
    assert update_in_float32 not in cause.remedies(seen)
    assert cause.remedies(half)[0] is update_in_float32
    assert "100% of the parameters are float16" in cause.evidence(half).sentence
    assert "param_dtype" in cause.advice(half).snippet
    assert "param_dtype" not in cause.advice(seen).snippet


def test_parameters_that_climb_alone_are_named(healthy):
    cause = BY_ID["update-goes-uphill"]
    facts = {**healthy.facts, "uphill parameter share": 0.03, "update cosine of the others": 0.3}
    seen = healthy._replace(facts=facts, names={**healthy.names, "uphill": "bank/w"})
    assert cause.evidence(seen).strength == DECISIVE
    assert "bank/w" in cause.evidence(seen).sentence
    assert "bank/w" in cause.advice(seen).text


def test_statistics_that_parameters_outrun_are_not_blamed(healthy):
    seen, cause = sick(healthy, "batch-statistics-mismatch"), BY_ID["batch-statistics-mismatch"]
    assert cause.evidence(seen._replace(facts={**seen.facts, "uphill parameter share": 0.0}))
    assert cause.evidence(seen._replace(facts={**seen.facts, "uphill parameter share": 0.03})) is None


@pytest.mark.parametrize(
    ("reached", "first", "is_named"),
    [(0.1, 1e-7, True), (0.6, 1e-7, False), (0.1, 0.1, False)],  # outputs that wander; that come to tell; that told
)
def test_outputs_that_wander_in_the_end_do_not_hide_a_flattened_signal(reached, first, is_named, healthy):
    facts = {"initial input sensitivity": first, "end input sensitivity": 0.005, "validation accuracy": reached}
    seen = sick(healthy, "vanishing-signal")
    found = BY_ID["vanishing-signal"].evidence(seen._replace(facts={**seen.facts, **facts}))
    assert (found is not None) == is_named


ERASED = {"initial input sensitivity": 0.0, "end input sensitivity": 0.0, "output min": -1.0, "output max": 1.0}
ERASED |= {"number of updates": 500.0, "initial dead unit share": float("nan")}


@pytest.mark.parametrize(
    ("changed", "is_named"),
    [
        ({}, True),
        ({"initial dead unit share": 1.0}, False),
        ({"initial input sensitivity": 0.9}, False),  # it learnt to say the same of all
        ({"initial input sensitivity": 0.9, "output min": -1e-9, "output max": 1e-8}, True),  # of rounding errors
        ({"end input sensitivity": 0.3}, False),
        ({"last unit likeness": 1.0}, False),
    ],
)
def test_a_signal_that_is_erased_behind_a_layer_is_said_to_be_lost_there(changed, is_named, healthy):
    cause = BY_ID["vanishing-signal"]
    layers = (
        SIGMOID._replace(name="conv4", activation="", gradient_rms=0.0),
        SIGMOID._replace(name="head", activation=""),
    )
    seen = healthy._replace(facts={**healthy.facts, "last unit likeness": 0.2, **ERASED, **changed}, layers=layers)
    found = cause.evidence(seen)
    assert (found is not None) == is_named
    assert not is_named or (
        "conv4" in found.sentence and "conv4" in cause.advice(seen).text and not cause.remedies(seen)
    )


@pytest.mark.parametrize(("felt", "cause_id"), [(0.0, "vanishing-signal"), (0.4, "dead-units")])
def test_units_that_are_given_zeros_alone_are_not_to_blame_for_them(felt, cause_id, healthy):
    conv = SIGMOID._replace(name="conv4", activation="relu", gradient_rms=0.0)
    dense = conv._replace(name="dense1", dead_share=1.0, activation_std=felt)
    head = SIGMOID._replace(name="head", activation="", gradient_rms=0.0)
    facts = {"last unit likeness": 0.2, **ERASED, "initial dead unit share": 1.0, "dead unit share": 1.0}
    seen = healthy._replace(facts={**healthy.facts, **facts}, layers=(conv, dense, head))
    named = [cause for cause in ("vanishing-signal", "dead-units") if BY_ID[cause].evidence(seen)]
    assert named == [cause_id]
    assert "conv4 tells" in BY_ID[cause_id].evidence(seen).sentence or felt


@pytest.mark.parametrize(("reached", "is_named"), [(0.0, True), (1e-7, True), (0.3, False)])
def test_where_gradients_reach_the_layers_a_head_that_starts_at_zero_erases_nothing(reached, is_named, healthy):
    layers = (
        SIGMOID._replace(name="conv4", activation="", gradient_rms=reached),
        SIGMOID._replace(name="head", activation="", gradient_rms=1.0),
    )
    seen = healthy._replace(facts={**healthy.facts, "last unit likeness": 0.2, **ERASED}, layers=layers)
    assert (BY_ID["vanishing-signal"].evidence(seen) is not None) == is_named


@pytest.mark.parametrize(
    ("first", "last", "is_named"),
    [(1.0, 1.0, True), (1.0, 0.986, True), (1.0, 0.5, False), (0.5, 1.0, False)],  # a head of zeros parts its units
)
def test_units_that_start_as_copies_and_hardly_part_are_named(first, last, is_named, healthy):
    facts = {**healthy.facts, "initial unit likeness": first, "last unit likeness": last}
    found = BY_ID["symmetric-init"].evidence(healthy._replace(facts=facts))
    assert (found is not None) == is_named
    assert not is_named or ("copies" in found.sentence) == (last == 1.0)


def test_a_decay_of_the_wrong_sign_is_said_to_be_one(healthy):
    cause = BY_ID["weight-decay-too-strong"]
    grows = {"decay a step": -0.02, "number of updates": 300.0, "parameter growth": 400.0}
    seen = healthy._replace(facts={**healthy.facts, **grows})
    found = cause.evidence(seen)
    assert found.strength == 1.0
    assert "wrong sign" in found.sentence
    assert "Turn the sign" in cause.advice(seen).text
    assert [remedy.__name__ for remedy in cause.remedies(seen)] == ["remove_decay"]


def rescaled(healthy, *, given, inside):
    scales = {"input mean": given, "input standard deviation": given}
    return healthy._replace(
        facts={
            **healthy.facts,
            **SICK_FACTS["inputs-not-scaled"],
            **scales,
            "first layer input mean": inside,
            "first layer input standard deviation": inside,
        }
    )


@pytest.mark.parametrize(
    ("given", "inside", "named"),
    [(72.0, 0.3, []), (0.3, 72.0, ["inputs-not-scaled"]), (0.3, 0.001, ["inputs-scaled-twice"])],
)
def test_scale_is_read_where_the_first_layer_is_fed(given, inside, named, healthy):
    seen = rescaled(healthy, given=given, inside=inside)
    found = [name for name in ("inputs-not-scaled", "inputs-scaled-twice") if BY_ID[name].evidence(seen)]
    assert found == named


def test_the_remedy_undoes_what_the_model_does_to_its_images(healthy, tiny_bench):
    seen = rescaled(healthy, given=0.5, inside=0.002)  # the model divides by 250
    (remedy,) = BY_ID["inputs-scaled-twice"].remedies(seen)
    images = np.asarray([0.0, 1.0]).reshape(2, 1, 1, 1)
    fed = remedy(tiny_bench.problem._replace(preprocess=None)).preprocess(images) / 250
    np.testing.assert_allclose(fed.ravel(), [-1, 1], atol=1e-6)


def test_steps_are_brought_to_the_middle_of_the_healthy_sizes(healthy, tiny_bench):
    name = "log10 of update over parameter"
    seen = healthy._replace(facts={**healthy.facts, name: sum(healthy_band(name)) / 2 - 4.2})
    first = BY_ID["updates-too-small"].remedies(seen)[0](tiny_bench.problem._replace(optimizer=optax.sgd(1.0)))
    updates, _ = first.optimizer.update(jnp.ones(2), first.optimizer.init(jnp.ones(2)), jnp.ones(2))
    np.testing.assert_allclose(updates, -1e4, rtol=1e-5)


def test_noise_of_masks_alone_is_not_decisive(healthy):
    facts = {**healthy.facts, "strongest dropout rate": 0.25, "mask variance ratio": 100.0}
    assert BY_ID["dropout-too-strong"].evidence(healthy._replace(facts=facts)).strength < DECISIVE


def test_every_cause_is_tested():
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*causes.py"))
    assert [cause.id for cause in CAUSES if f'"{cause.id}"' not in tests] == []


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.id)
def test_record_is_complete(cause):
    assert cause.stage in STAGES
    assert all((cause.title, cause.explanation, cause.references))


def test_graded_runs_from_0_to_1_either_way():
    assert [graded(x, 1.0, 3.0) for x in (0.0, 2.0, 5.0)] == [0.0, 0.5, 1.0]
    assert [graded(x, 3.0, 1.0) for x in (4.0, 2.0, 0.0)] == [0.0, 0.5, 1.0]
    assert graded(math.nan, 1.0, 3.0) == 0.0
    assert graded_log(10.0, 1.0, 100.0) == pytest.approx(0.5)


def test_what_a_cause_explains_stands_no_earlier():
    stages = {cause.id: STAGES.index(cause.stage) for cause in CAUSES}
    pairs = [(cause.id, name) for cause in CAUSES for name in cause.explains]
    assert pairs
    assert all(stages[cause] <= stages[name] and (name, cause) not in pairs for cause, name in pairs)


@pytest.mark.parametrize(("reached", "is_sure"), [(0.8, False), (0.1, True)])
def test_fewer_scores_than_classes_may_be_meant_where_the_user_says_how_to_read_them(reached, is_sure, healthy):
    problem = healthy.bench.problem._replace(predict=lambda outputs: (outputs > 0).sum(axis=-1))
    facts = {**healthy.facts, "output width": 9.0, "validation accuracy": reached}
    seen = healthy._replace(bench=healthy.bench._replace(problem=problem), facts=facts)
    assert (BY_ID["output-units-not-classes"].evidence(seen).strength == 1.0) == is_sure


@pytest.mark.parametrize(
    ("cut", "reached", "speaks"), [(0.98, 0.1, True), (0.98, 0.4, True), (0.98, 0.8, False), (0.2, 0.1, False)]
)
def test_gradients_that_reach_next_to_nothing_are_harm_where_the_network_is_behind(cut, reached, speaks, healthy):
    cause = BY_ID["parameters-not-updated"]
    facts = {"frozen parameter share": cut, "cut gradient share": cut, "validation accuracy": reached}
    facts |= {"random features accuracy": 0.8}
    seen = healthy._replace(facts={**healthy.facts, **facts})
    assert cause.shows_harm(seen) == speaks
    assert (cause.evidence(seen).strength >= DECISIVE) == speaks
    assert "stop_gradient" in cause.advice(seen).snippet
