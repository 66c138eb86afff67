"""Causes of data, labels and splits: evidence from readings and from small problems, and one whole diagnosis each."""

import jax
import numpy as np
import pytest

import cnnprobe as cp
from cnnprobe.doctor.causes import CAUSES
from cnnprobe.doctor.causes.noise import is_limited_by_noise
from cnnprobe.doctor.harm import DECISIVE
from cnnprobe.doctor.looks.maps import look_at_maps
from cnnprobe.doctor.remedies_data import train_as_stored
from experiments.brought_networks import windows_of_one_side

BY_ID = {cause.id: cause for cause in CAUSES}

SICK = {
    "labels-reshuffled-each-epoch": {"label conflict share": 0.9, "images seen twice": 920.0},
    "label-noise": {
        "contradicted label share": 0.5,
        "random features z": 20.0,
        "random features accuracy": 0.45,
        "training accuracy": 0.55,
    },
    "class-missing-from-split": {"classes missing from training": 2.0, "validation share in missing classes": 0.8},
    "train-valid-overlap": {
        "validation overlap share": 0.6,
        "accuracy on leaked images": 0.9,
        "accuracy on fresh images": 0.6,
        "accuracy owed to the leak": 0.18,
        "error of the accuracy owed to the leak": 0.02,
    },
    "augmentation-destroys-signal": {
        "augmented signal share": 0.01,
        "z of the signal lost": 60.0,
        "accuracy of features on clean images": 0.82,
        "accuracy of features on augmented images": 0.1,
        "augmented std ratio": 70.0,
        "training batch accuracy": 0.12,
    },
    "metric-bug": {
        "accuracy by your metric": 0.1,
        "accuracy of the outputs": 0.8,
        "accuracy lost by your metric": 0.7,
        "balanced accuracy lost by your metric": 0.7,
        "error of the accuracy lost by your metric": 0.03,
    },
    "spatial-collapse": {"convolutions on a single place": 3.0, "spatial convolutions": 4.0},
}


def with_facts(healthy, cause_id, **facts):
    names = {"classes missing from training": "8, 9", "first convolution on a single place": "conv1"}
    return healthy._replace(facts={**healthy.facts, **SICK[cause_id], **facts}, names={**healthy.names, **names})


@pytest.mark.parametrize("cause_id", SICK)
def test_sick_readings_speak(cause_id, healthy):
    assert 0.5 <= BY_ID[cause_id].evidence(with_facts(healthy, cause_id)).strength <= 1


@pytest.mark.parametrize("cause_id", SICK)
def test_advice_has_the_users_numbers(cause_id, healthy):
    advice = BY_ID[cause_id].advice(with_facts(healthy, cause_id))
    assert advice.snippet
    assert "nan" not in advice.text


# Readings that look alike, and the one that tells them from the cause.
LOOK_ALIKES = [
    ("labels-reshuffled-each-epoch", {"images seen twice": 2.0}),  # chance
    ("labels-reshuffled-each-epoch", {"label conflict share": 0.01}),  # a few bad labels
    ("label-noise", {"contradicted label share": 0.17}),  # one label in seven
    ("label-noise", {"random features z": 1.0, "pixel neighbours z": 0.0}),  # labels that belong to other images
    ("label-noise", {"label conflict share": 0.9}),  # labels that change from pass to pass
    ("label-noise", {"random features accuracy": 0.15}),  # images that are hard for simple features
    (
        "label-noise",
        {"training accuracy": 0.9, "validation accuracy": 0.85},
    ),  # a network that is right for more of them
    ("class-missing-from-split", {"label out of range share": 0.1}),  # labels that count from 1
    ("train-valid-overlap", {"validation overlap share": 0.01}),  # duplicates of the data set itself
    ("augmentation-destroys-signal", {"training batch accuracy": 0.75}),  # the network can read what features cannot
    ("augmentation-destroys-signal", {"augmented signal share": 0.6}),  # strong and useful
    ("metric-bug", {"balanced accuracy lost by your metric": -0.1}),  # a threshold moved for a rare class
    ("metric-bug", {"error of the accuracy lost by your metric": 0.3}),  # too few images
    ("spatial-collapse", {"convolutions on a single place": 0.0, "smallest map places": 1.0}),  # pooled at the end
]


@pytest.mark.parametrize(("cause_id", "facts"), LOOK_ALIKES)
def test_silent_on_look_alikes(cause_id, facts, healthy):
    assert BY_ID[cause_id].evidence(with_facts(healthy, cause_id, **facts)) is None


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({}, True),
        ({"validation accuracy": 0.75}, False),  # near what features reach: strong and useful
        ({"number of steps": 100.0}, False),  # too early to tell
        ({"augmented signal share": 0.85}, False),
    ],
)
def test_augmentation_that_leaves_half_of_the_signal_is_suspected_of_a_network_that_stays_behind(
    changed, named, healthy
):
    behind = {"augmented signal share": 0.6, "validation accuracy": 0.5, "random features accuracy": 0.9}
    behind |= {"number of steps": 350.0, "steps of the whole training": 400.0, "training batch accuracy": 0.45}
    found = BY_ID["augmentation-destroys-signal"].evidence(
        with_facts(healthy, "augmentation-destroys-signal", **{**behind, **changed})
    )
    assert (found is not None) == named
    assert found is None or found.strength < 0.5  # nothing without a gain that is beyond chance


NUMBERED = {"accuracy with classes renumbered": 0.9, "accuracy gained by other class numbers": 0.85}
NUMBERED |= {"training accuracy": 0.98, "validation accuracy": 0.05}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({}, True),
        ({"accuracy gained by other class numbers": 0.02}, False),
        ({"accuracy with classes renumbered": 0.4}, False),  # the best numbers for answers at random
        ({"training accuracy": 0.4}, False),
        ({"classes missing from training": 1.0}, False),  # images of a new class that all get one name
        ({"pixel neighbours z": 0.1, "random features z": 0.2}, False),  # labels of other images, learnt by heart
    ],
)
def test_splits_that_number_the_classes_differently(changed, named, healthy):
    seen = healthy._replace(
        facts={**healthy.facts, **NUMBERED, **changed}, names={**healthy.names, "classes numbered otherwise": "0 as 3"}
    )
    found = BY_ID["label-encoding"].evidence(seen)
    assert (found is not None) == named
    if found is not None:
        assert "0 as 3" in found.sentence
        assert "for both splits" in BY_ID["label-encoding"].advice(seen).text


def test_labels_dealt_anew_are_not_called_unrelated(healthy):
    facts = {"pixel neighbours z": 0.1, "random features z": -0.4, "validation accuracy": 0.1}
    seen = healthy._replace(facts={**healthy.facts, **facts})
    assert BY_ID["labels-unrelated-to-images"].evidence(seen).strength == 1
    reshuffled = seen._replace(facts={**seen.facts, **SICK["labels-reshuffled-each-epoch"]})
    assert BY_ID["labels-unrelated-to-images"].evidence(reshuffled) is None


def test_loader_that_yields_noise_is_told_by_the_stored_pairs(healthy):
    facts = {
        "pixel neighbours z": 0.1,
        "random features z": -0.4,
        "validation accuracy": 0.1,
        "stored pixel neighbours z": 40.0,
        "stored random features z": 50.0,
        "images seen twice": 0.0,
    }
    problem = healthy.bench.problem._replace(batches=lambda epoch: [])
    seen = healthy._replace(facts={**healthy.facts, **facts}, bench=healthy.bench._replace(problem=problem))
    assert BY_ID["augmentation-destroys-signal"].evidence(seen).strength == 1
    assert BY_ID["labels-unrelated-to-images"].evidence(seen) is None


def test_loader_that_breaks_the_pairs_is_mended_by_the_stored_ones(healthy):
    facts = {
        "pixel neighbours z": 0.1,
        "random features z": -0.4,
        "validation accuracy": 0.1,
        "stored random features z": 50.0,
        "stored pixel neighbours z": 40.0,
        "images seen twice": 90.0,
        "images read": 100.0,
    }
    seen, cause = healthy._replace(facts={**healthy.facts, **facts}), BY_ID["labels-unrelated-to-images"]
    assert cause.evidence(seen).strength == 1
    assert len(cause.remedies(seen)) == 1


@pytest.mark.parametrize(("reached", "stored", "is_shown"), [(0.1, 8.0, True), (0.9, 8.0, False), (0.1, 5.0, False)])
def test_what_preprocess_hides_is_shown_by_a_network_that_learns_nothing(reached, stored, is_shown, healthy):
    facts = {"pixel neighbours z": 0.1, "random features z": -0.4, "validation accuracy": reached}
    facts |= {"stored random features z": stored, "stored random features accuracy": 0.4}
    facts["stored pixel neighbours z"] = 0.0
    problem = healthy.bench.problem._replace(preprocess=lambda images: 0 * images)
    seen = healthy._replace(facts={**healthy.facts, **facts}, bench=healthy.bench._replace(problem=problem))
    assert BY_ID["inputs-blank-or-corrupt"].shows_harm(seen) is is_shown


@pytest.mark.parametrize(("stored", "num", "is_named"), [(0.9, 1000, True), (0.83, 1000, False), (0.9, 50, False)])
def test_a_preparation_that_takes_some_of_what_images_tell_is_suspected(stored, num, is_named, healthy):
    facts = {"random features accuracy": 0.8, "stored random features accuracy": stored, "images read": float(num)}
    stored_images = cp.Dataset(np.random.default_rng(0).random((num, 28, 28, 1)), np.arange(num) % 10)
    problem = healthy.bench.problem._replace(preprocess=lambda images: images // 1, train=stored_images)
    bench = healthy.bench._replace(problem=problem, train=healthy.bench.train._replace(images=stored_images.images))
    seen, cause = healthy._replace(facts={**healthy.facts, **facts}, bench=bench), BY_ID["inputs-blank-or-corrupt"]
    found = cause.evidence(seen)
    assert (found is not None) == is_named
    assert not is_named or found.strength < 0.5
    assert not is_named or "`preprocess`" in cause.advice(seen).text
    assert not is_named or len(cause.remedies(seen)) == 1


def test_small_leak_is_tried_and_a_harmful_one_is_not(healthy):
    small = with_facts(healthy, "train-valid-overlap", **{"accuracy owed to the leak": 0.01})
    arrays = small.bench.problem._replace(valid=cp.Dataset(np.zeros((30, 8, 8, 1)), np.zeros(30, int)))
    small = small._replace(bench=small.bench._replace(problem=arrays))
    assert len(BY_ID["train-valid-overlap"].remedies(small)) == 1
    harmful = small._replace(facts={**small.facts, **SICK["train-valid-overlap"]})
    assert BY_ID["train-valid-overlap"].remedies(harmful) == ()


IMBALANCE = {"label entropy": 0.1, "label majority share": 0.96, "accuracy lost to rare classes": 0.4}
IMBALANCE |= {"error of the accuracy lost to rare classes": 0.02, "training accuracy": 1.0, "generalisation gap": 0.5}
SHUNNED = {"recall of rare classes": 0.05, "error of the recall of rare classes": 0.01}
IMBALANCE |= {"gain from doubling the images": 0.15, "error of the gain from doubling": 0.03}


@pytest.mark.parametrize(
    ("changed", "is_harmful"),
    [
        ({}, True),
        ({"accuracy lost to rare classes": 0.04, "error of the accuracy lost to rare classes": 0.01}, False),
        ({"error of the accuracy lost to rare classes": 0.25}, False),
        ({"accuracy lost to rare classes": -0.1}, False),
        ({"gain from doubling the images": 0.01}, False),  # rare classes that are but harder
        ({"gain from doubling the images": 0.01, **SHUNNED}, True),  # too few even to gain
        ({"gain from doubling the images": 0.01, **SHUNNED, "recall of rare classes": 0.09}, False),
        ({"training accuracy": 0.5, **SHUNNED}, False),  # a run that has not fitted its images yet
    ],
)
def test_imbalance_shows_harm_where_rare_classes_lack_images(changed, is_harmful, healthy):
    seen, cause = healthy._replace(facts={**healthy.facts, **IMBALANCE, **changed}), BY_ID["class-imbalance"]
    assert cause.shows_harm(seen) == is_harmful


@pytest.mark.parametrize(("lost", "is_said"), [(0.4, True), (0.03, False), (-0.1, False)])
def test_what_rare_classes_cost_is_said_where_it_is_beyond_chance(lost, is_said, healthy):
    facts = {**healthy.facts, **IMBALANCE, "accuracy lost to rare classes": lost}
    sentence = BY_ID["class-imbalance"].evidence(healthy._replace(facts=facts)).sentence
    assert ("40 points higher" in sentence) == is_said


FAR_OUT_OF_BALANCE = {"label entropy": 0.2, "accuracy lost to rare classes": 0.3}


@pytest.mark.parametrize(
    ("facts", "names", "is_offered"),
    [
        ({}, {}, True),
        ({"label entropy": 0.8}, {}, False),  # what rare classes gain, common ones that overlap with them lose
        ({"accuracy lost to rare classes": 0.01}, {}, False),
        ({"number of outputs": 2.0}, {}, False),
        ({}, {"loss of logits": "squared-error"}, False),
        ({}, {"outputs": "probabilities"}, False),
    ],
)
def test_shares_are_expected_where_classes_are_far_out_of_balance(facts, names, is_offered, healthy):
    seen = healthy._replace(facts={**healthy.facts, **FAR_OUT_OF_BALANCE, **facts}, names={**healthy.names, **names})
    cause = BY_ID["class-imbalance"]
    changes_loss = [remedy(seen.bench.problem).loss is not seen.bench.problem.loss for remedy in cause.remedies(seen)]
    assert changes_loss == [True] * is_offered + [False]  # then rare images repeated
    assert ("log" in cause.advice(seen).snippet) == is_offered


@pytest.mark.parametrize(("reached", "is_shown"), [(0.15, True), (0.85, False)])
def test_collapsed_maps_do_harm_where_features_without_training_are_far_ahead(reached, is_shown, healthy):
    facts = {"validation accuracy": reached, "random features accuracy": 0.9}
    assert BY_ID["spatial-collapse"].shows_harm(with_facts(healthy, "spatial-collapse", **facts)) == is_shown


@pytest.mark.parametrize(("reached", "is_shown"), [(0.7, True), (0.85, False)])
def test_pool_over_the_wrong_axes_does_harm_where_the_network_falls_short(reached, is_shown, healthy):
    facts = {"pools over features and one side": 1.0, "validation accuracy": reached, "random features accuracy": 0.9}
    seen, cause = healthy._replace(facts={**healthy.facts, **facts}), BY_ID["spatial-collapse"]
    seen = seen._replace(names={**healthy.names, "misplaced pool": "axes (2, 3) of a map of [batch, 8, 8, 16]"})
    assert "axes (2, 3)" in cause.evidence(seen).sentence
    assert "axis=(1, 2)" in cause.advice(seen).snippet
    assert cause.remedies(seen) == ()
    assert cause.shows_harm(seen) == is_shown


def test_windows_along_one_side_are_told_and_widened(tiny_bench, healthy):
    problem = windows_of_one_side(tiny_bench.problem)
    weights = problem.model.init(jax.random.key(0), tiny_bench.train.images[:2])
    facts, names = look_at_maps(tiny_bench._replace(problem=problem), weights)
    seen, cause = (
        healthy._replace(facts={**healthy.facts, **facts}, names={**healthy.names, **names}),
        BY_ID["spatial-collapse"],
    )
    assert "2 convolutions run along the width alone (the kernel of Conv_0 has the shape 3x1x16)" in (
        cause.evidence(seen).sentence
    )
    assert "kernel_size=(3, 3)" in cause.advice(seen).snippet
    assert cause.evidence(seen).strength >= DECISIVE
    meant = seen._replace(facts={**seen.facts, "convolutions with the height in the batch": 0.0})  # windows of 1 by 3
    assert cause.evidence(meant).strength < DECISIVE
    (remedy,) = cause.remedies(seen)
    mended = remedy(problem)
    params, state = mended.model.init(jax.random.key(0), tiny_bench.train.images[:2])
    assert {kernel.shape for kernel in params["square"].values()} == {(3, 3, 1, 16), (3, 3, 16, 32)}
    outputs, _ = mended.model.apply(params, state, tiny_bench.train.images[:5], key=jax.random.key(1), train=False)
    assert outputs.shape == (5, problem.num_classes)


def test_small_leak_of_a_source_makes_no_finding(healthy):
    small = with_facts(healthy, "train-valid-overlap", **{"accuracy owed to the leak": 0.01})
    source = [{"image": np.zeros((8, 8, 1)), "label": 0}]
    small = small._replace(bench=small.bench._replace(problem=small.bench.problem._replace(valid=source)))
    assert BY_ID["train-valid-overlap"].evidence(small).strength < 0.5


def test_class_missing_from_validation_alone_is_weak_and_has_no_remedy(healthy):
    facts = {"classes missing from validation": 3.0, "classes missing from training": 0.0}
    seen = healthy._replace(
        facts={**healthy.facts, **facts}, names={**healthy.names, "classes missing from validation": "7, 8, 9"}
    )
    cause = BY_ID["class-missing-from-split"]
    assert cause.evidence(seen).strength == 0.5
    assert cause.remedies(seen) == ()


@pytest.mark.parametrize(("share", "fitted", "loss", "limited"), [
    (0.4, 0.62, 0.8, True),
    (0.4, 0.95, 0.1, False),  # learnt by heart
    (0.4, 0.62, 0.2, False),  # the loss says otherwise
    (0.1, 0.9, 0.4, False),  # as in healthy data
])  # fmt: skip
def test_noise_limits_what_noise_leaves(share, fitted, loss, limited, healthy):
    facts = {"contradicted label share": share, "training accuracy": fitted, "end loss ratio": loss}
    assert is_limited_by_noise(healthy._replace(facts={**healthy.facts, **facts})) == limited


# --- whole diagnoses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_blank", "num_left"), [(850, 150), (950, None)])
def test_blank_images_are_left_out_where_enough_others_are_left(num_blank, num_left, healthy):
    images = np.random.default_rng(0).random((1000, 4, 4, 1), np.float32)
    images[:num_blank] = 0.5
    problem = healthy.bench.problem._replace(train=cp.Dataset(images, np.arange(1000) % 10))
    facts = {**healthy.facts, "input blank share": num_blank / 1000}
    seen = healthy._replace(bench=healthy.bench._replace(problem=problem), facts=facts)
    remedies = BY_ID["inputs-blank-or-corrupt"].remedies(seen)
    assert [len(remedy(problem).train.images) for remedy in remedies] == ([] if num_left is None else [num_left])


def test_a_metric_that_cannot_name_a_class_is_named_whatever_the_outputs_are(healthy):
    facts = {"share of images your metric cannot name": 0.2, "class your metric never gives": 4.0}
    mute = healthy._replace(facts={**healthy.facts, **facts})
    found, advice = BY_ID["metric-bug"].evidence(mute), BY_ID["metric-bug"].advice(mute)
    assert found.strength == 1.0
    assert "class 4" in found.sentence
    assert "class 4" in advice.text
    ordinal = mute._replace(facts={**mute.facts, "output width": 9.0, "number of outputs": 1.0})
    own = ordinal._replace(
        bench=mute.bench._replace(problem=mute.bench.problem._replace(predict=lambda outputs: outputs))
    )
    assert BY_ID["output-units-not-classes"].evidence(ordinal) is not None
    assert BY_ID["output-units-not-classes"].evidence(own) is None


@pytest.mark.parametrize(("served", "stored", "named"), [(91, 1000, True), (632, 1000, False), (91, 100, False)])
def test_loader_that_hands_out_a_few_of_many_images(served, stored, named, healthy):
    facts = {"different images served": served, "different images stored": stored}
    seen, cause = healthy._replace(facts={**healthy.facts, **facts}), BY_ID["too-little-data"]
    evidence = cause.evidence(seen)
    assert (evidence is not None) == named
    if evidence is not None:
        assert evidence.strength < DECISIVE
        assert cause.remedies(seen) == (train_as_stored,)
        assert f"{served} images of 20" in cause.advice(seen).text
