"""Causes of the network, its loss and its optimizer: what they need to speak, and what must keep them silent."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from cnnprobe.doctor import remedies_network
from cnnprobe.doctor.bands import _bands
from cnnprobe.doctor.causes import CAUSES
from cnnprobe.doctor.looks.loss import label_reach, look_at_loss
from cnnprobe.doctor.looks.modes import look_at_modes
from cnnprobe.doctor.looks.optimizer import look_at_optimizer
from cnnprobe.doctor.looks.structure import look_at_structure
from cnnprobe.doctor.observe import observe
from cnnprobe.doctor.run import train_run
from cnnprobe.models.networks import residual_cnn, small_cnn
from cnnprobe.models.plain import dropout
from cnnprobe.types import GraphRow, LayerRow, Model
from experiments.faults import plant
from experiments.problems import cross_entropy

BY_ID = {cause.id: cause for cause in CAUSES}
KEY = jax.random.key(0)
DEAD = LayerRow("dense1", "dense", "relu", 0.0, 1.0, 1.0, 0.0, 0.0, -3.0)


def evidence(cause_id, seen, **changes):
    """The evidence when some facts are changed; names are written with underscores."""
    facts = {name.replace("_", " "): value for name, value in changes.items()}
    return BY_ID[cause_id].evidence(seen._replace(facts={**seen.facts, **facts}))


def with_loss(seen, name, **names):
    return seen._replace(loss=seen.loss._replace(name_of_logits=name), names={**seen.names, **names})


# --- loss ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bench_with(tiny_bench):
    """The bench of the small problem with some fields changed."""
    return lambda **changes: tiny_bench._replace(problem=tiny_bench.problem._replace(**changes))


def over_batch(logits, labels):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits, axis=0), labels[:, None], axis=1))


def all_pairs(logits, labels):
    return -jnp.mean(jnp.take(jax.nn.log_softmax(logits), labels, axis=1))


def single_pairs(logits, labels):
    return jnp.mean(jnp.square(logits - labels))  # [batch, 1] against [batch]


@pytest.mark.parametrize(
    ("loss", "units", "lowest", "highest"),
    [(cross_entropy, 10, 0, 1e-6), (over_batch, 10, 0.3, 0.7), (all_pairs, 10, 0.95, 1), (single_pairs, 1, 0.95, 1)],
)
def test_label_reaches_others_where_all_pairs_are_compared(loss, units, lowest, highest, bench_with):
    assert lowest <= label_reach(bench_with(loss=loss), units, "logits") <= highest


def test_loss_that_looks_at_values_has_its_reach_too(bench_with):
    def loss(logits, labels):
        assert float(np.max(labels)) < 10
        return cross_entropy(logits, labels)

    assert label_reach(bench_with(loss=loss), 10, "logits") == pytest.approx(0, abs=1e-6)


def twice_and_summed(logits, labels):
    return cross_entropy(jax.nn.softmax(logits), labels) * len(labels)


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (over_batch, "wrong-axis"),
        (lambda z, y: cross_entropy(z, y) * len(y), "summed"),
        (twice_and_summed, "softmax-twice"),
    ],
)
def test_a_sum_does_not_hide_what_else_is_wrong(loss, name, bench_with):
    assert look_at_loss(bench_with(loss=loss), 10).name_of_logits == name


def test_softmax_twice_and_summed_loss_are_both_seen(healthy):
    seen = with_loss(healthy, "softmax-twice", **{"loss of logits": "softmax-twice"})
    assert evidence("softmax-applied-twice", seen).strength == 1.0
    assert evidence("loss-summed-not-averaged", seen, loss_duplication=2.0).strength == 0.9


@pytest.mark.parametrize(("width", "is_named"), [(10.0, True), (1.0, False)])
def test_a_number_that_stands_for_a_class_needs_no_softmax(width, is_named, healthy):
    seen = with_loss(healthy, "raw-nll", **{"loss of logits": "raw-nll"})
    assert (evidence("missing-softmax", seen, output_width=width) is not None) == is_named


def test_axis_of_the_loss_needs_examples_that_feel_each_other(healthy):
    seen = with_loss(healthy, "wrong-axis")
    found = evidence("softmax-over-wrong-axis", seen, loss_cross_example=0.06, loss_uniform=np.log(64))
    assert found.strength == 1.0
    assert evidence("softmax-over-wrong-axis", seen, loss_cross_example=0.0) is None


def test_axis_of_the_models_softmax_is_read_from_the_trace(healthy):
    seen = healthy._replace(names={**healthy.names, "output activation": "softmax[axes=(0,)]"})
    assert evidence("softmax-over-wrong-axis", seen, cross_example_share=0.9).strength == 1.0
    assert evidence("cross-example-leak", seen, cross_example_share=0.9) is None


def test_broadcast_is_told_from_a_softmax_over_the_batch(healthy):
    assert evidence("loss-broadcast-bug", healthy, label_reach=0.98).strength == 1.0
    assert evidence("loss-broadcast-bug", healthy, label_reach=0.5) is None
    assert evidence("loss-broadcast-bug", healthy, label_reach=0.98, loss_cross_example=0.1) is None


@pytest.mark.parametrize("name", ["cross-entropy", "smoothed cross-entropy", "focal", "one-vs-rest", "hinge"])
def test_healthy_losses_are_of_no_wrong_family(name, healthy):
    assert evidence("wrong-loss-family", with_loss(healthy, name)) is None


@pytest.mark.parametrize("name", ["squared-error", "negative-probability", "temperature", "no-gradient"])
def test_flat_losses_are_of_a_wrong_family(name, healthy):
    assert evidence("wrong-loss-family", with_loss(healthy, name)).strength >= 0.8


@pytest.mark.parametrize(
    ("name", "rest", "is_named"),
    [("hinge", 0.0, True), ("unknown", 1e-5, True), ("hinge", 0.3, False), ("negated", 0.0, False)],
)
def test_loss_that_rests_where_all_images_have_the_same_scores_is_of_a_wrong_family(name, rest, is_named, healthy):
    facts = {**healthy.facts, "loss blind gradient": rest, "loss gradient at zero": 0.9}
    found = evidence("wrong-loss-family", with_loss(healthy._replace(facts=facts), name))
    assert (found is not None) == is_named
    if found is not None:
        assert "the same scores" in found.sentence


GATHERED = {"number of updates": 6.0, "number of steps": 400.0, "steps of the whole training": 500.0}


@pytest.mark.parametrize(
    ("changed", "is_named"),
    [
        ({}, True),
        ({"steps of the whole training": 50_000.0}, False),  # updates enough in the end
        ({"number of updates": 100.0}, False),  # a batch in four
        ({"training accuracy": 0.99}, False),
        ({"last update": 10.0}, False),  # a schedule that ended
    ],
)
def test_gradients_gathered_over_too_many_batches_are_updates_too_small(changed, is_named, healthy):
    facts = {**GATHERED, "last update": 390.0, "training accuracy": 0.5, **changed}
    seen = healthy._replace(facts={**healthy.facts, **facts})
    found = BY_ID["updates-too-small"].evidence(seen)
    assert (found is not None) == is_named
    if found is not None:
        assert "once in 67 batches" in found.sentence
        assert "MultiSteps" in BY_ID["updates-too-small"].advice(seen).text
        assert len(BY_ID["updates-too-small"].remedies(seen)) > 0


# --- optimizer -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short_run(tiny_bench):
    return train_run(tiny_bench.problem, tiny_bench, num_steps=10, seconds=60.0, deadline=float("inf"))


def asked(bench, run, optimizer):
    facts, names = look_at_optimizer(bench._replace(problem=bench.problem._replace(optimizer=optimizer)), run)
    return facts, names["update rule"]


@pytest.mark.parametrize(
    ("optimizer", "rule", "size"),
    [(optax.adam(2e-3), "sign", 2e-3), (optax.adamw(2e-3), "sign", 2e-3), (optax.sgd(0.1, momentum=0.9), "slope", 0.1)],
)
def test_first_step_shows_rule_and_size(optimizer, rule, size, tiny_bench, short_run):
    facts, found = asked(tiny_bench, short_run, optimizer)
    assert (found, facts["step size"]) == (rule, pytest.approx(size, rel=1e-3))


@pytest.mark.parametrize("optimizer", [optax.lion(1e-4), optax.rmsprop(1e-3)])
def test_sound_optimizers_remember(optimizer, tiny_bench, short_run, healthy):
    facts, rule = asked(tiny_bench, short_run, optimizer)
    seen = healthy._replace(facts={**healthy.facts, **facts}, names={**healthy.names, "update rule": rule})
    assert facts["optimizer memory"] > 0
    assert evidence("optimizer-state-not-carried", seen) is None


SHRINKING = optax.exponential_decay(0.01, 100, 0.5)
KEEPERS = {
    "momentum of 1": (optax.chain(optax.trace(1.0), optax.scale(-0.01)), 1.0),
    "with steps that shrink": (optax.chain(optax.trace(1.0), optax.scale_by_learning_rate(SHRINKING)), 1.0),
    "momentum of .999": (optax.sgd(0.01, momentum=0.999), 0.999**320),
    "swapped betas": (optax.adam(1e-3, b1=0.999, b2=0.9), 1.0),
    "momentum of .9": (optax.sgd(0.01, momentum=0.9), 0.0),
    "adam": (optax.adam(1e-3), 0.0),
    "adagrad": (optax.adagrad(1e-2), 0.0),
    "decay": (optax.adamw(1e-3, weight_decay=0.1), 0.0),
}


@pytest.mark.parametrize("name", KEEPERS)
def test_what_keeps_every_gradient_adds_them_up(name, tiny_bench, short_run, healthy):
    optimizer, expected = KEEPERS[name]
    facts, rule = asked(tiny_bench, short_run, optimizer)
    assert facts["past gradients kept"] == pytest.approx(expected, abs=0.02)
    cause = BY_ID["learning-rate-too-high"]
    seen = healthy._replace(facts={**healthy.facts, **facts}, names={**healthy.names, "update rule": rule})
    found = cause.evidence(seen)
    assert (found is not None) == (expected > 0)
    assert found is None or "adds them" in found.sentence
    kind = "adam(0.001, b1=0.9" if name == "swapped betas" else "sgd("
    assert found is None or kind in cause.advice(seen).snippet


def add_noise():
    """Steps that come whatever the gradients are, each another one."""

    def update(grads, count, params=None):
        key = jax.random.fold_in(jax.random.key(0), count[0])
        return jax.tree.map(lambda g: g + jax.random.normal(key, g.shape), grads), count + 1

    return optax.chain(optax.GradientTransformation(lambda params: jnp.zeros(1, int), update), optax.sgd(0.1))


SOUND = {
    "lion": optax.lion(1e-4),
    "muon": optax.contrib.muon(1e-3),
    "signs of a momentum": optax.chain(optax.trace(0.9), optax.scale_by_sign(), optax.scale(-1e-3)),
    "steps of one length": optax.chain(optax.trace(0.9), optax.normalize_by_update_norm(), optax.scale(-0.1)),
    "prodigy": optax.contrib.prodigy(),
    "without a schedule": optax.contrib.schedule_free_sgd(0.1),
    "averaged updates": optax.chain(optax.adam(1e-3), optax.ema(0.99)),
    "momentum of .99": optax.sgd(0.01, momentum=0.99),
    "gathered": optax.MultiSteps(optax.adam(1e-3), 4),
    "noise": add_noise(),
}


@pytest.mark.parametrize("name", SOUND)
def test_no_sound_optimizer_keeps_every_gradient(name, tiny_bench, short_run):
    assert asked(tiny_bench, short_run, SOUND[name])[0]["past gradients kept"] < 0.2


def test_lost_state_is_seen_and_carried_with_the_users_step_size(tiny_bench, short_run, healthy):
    lost = plant(tiny_bench.problem, "optimizer_state_lost").optimizer
    facts, rule = asked(tiny_bench, short_run, lost)
    seen = healthy._replace(facts={**healthy.facts, **facts}, names={**healthy.names, "update rule": rule})
    (remedy,) = BY_ID["optimizer-state-not-carried"].remedies(seen)
    assert evidence("optimizer-state-not-carried", seen).strength == 1.0
    facts, _ = asked(tiny_bench, short_run, remedy(tiny_bench.problem).optimizer)
    assert (facts["optimizer memory"], facts["step size"]) == (1.0, pytest.approx(1e-3, rel=1e-3))


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [
        (optax.adamw(1e-3, weight_decay=100.0), 0.1),
        (optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1)), 0.05),
        (optax.chain(optax.adam(1e-3), optax.add_decayed_weights(0.02)), -0.02),  # behind the turn of the sign
        (optax.adam(1e-3), 0.0),
    ],
)
def test_decay_is_measured_and_removed(optimizer, rate, tiny_bench, short_run):
    problem = tiny_bench.problem._replace(optimizer=optimizer)
    assert asked(tiny_bench, short_run, optimizer)[0]["decay a step"] == pytest.approx(rate, rel=0.01, abs=1e-9)
    mended = remedies_network.remove_decay(problem).optimizer
    assert asked(tiny_bench, short_run, mended)[0]["decay a step"] == 0


@pytest.mark.parametrize("optimizer", [optax.contrib.schedule_free_adamw(1e-3), optax.lamb(1e-3)])
def test_what_only_looks_like_decay_is_none(optimizer, tiny_bench, short_run):
    assert asked(tiny_bench, short_run, optimizer)[0]["decay a step"] == 0


def test_decay_counts_beside_the_whole_step(healthy):
    found = evidence("weight-decay-too-strong", healthy, decay_a_step=0.1, decay_share_of_a_step=0.95)
    assert found.strength == 1.0
    assert "7 steps" in found.sentence
    assert evidence("weight-decay-too-strong", healthy, decay_a_step=1e-5, decay_share_of_a_step=0.004) is None


@pytest.mark.parametrize(
    ("growth", "decay", "is_named"), [(0.003, 1e-3, True), (0.003, 0.0, False), (0.9, 1e-3, False), (30.0, 1e-3, False)]
)
def test_decay_that_leaves_nothing_of_the_parameters_is_too_strong(growth, decay, is_named, healthy):
    facts = {"decay_a_step": decay, "decay_share_of_a_step": 0.08, "parameter_growth": growth}
    found = evidence("weight-decay-too-strong", healthy, **facts)
    assert (found is not None and found.strength == 1.0) == is_named


# --- network ---------------------------------------------------------------------------------------------------------


def structure_of(bench, model):
    weights = model.init(KEY, bench.train.images)
    return look_at_structure(bench._replace(problem=bench.problem._replace(model=model)), weights)[0]


@pytest.mark.parametrize(
    ("model", "bends", "pools"),
    [
        (small_cnn(10), True, 2),
        (small_cnn(10, activation=lambda x: x), False, 2),
        (small_cnn(10, activation=lambda x: x * jax.nn.sigmoid(2 * x)), True, 2),
        (small_cnn(10, activation=lambda x: jnp.where(x > 0, x, 0.2 * x)), True, 2),
        (small_cnn(10, batch_norm=True, activation=lambda x: x), False, 2),
        (residual_cnn(10), True, 0),
    ],
    ids=["relu", "linear", "gated", "leaky", "normalised linear", "residual"],
)
def test_what_bends_between_layers(model, bends, pools, tiny_bench):
    facts = structure_of(tiny_bench, model)
    assert (facts["hidden nonlinearities"] > 0, facts["max pools"]) == (bends, pools)


@pytest.mark.parametrize(("gain", "said"), [(0.1, "or smaller"), (0.5, ""), (1.0, ""), (2.0, ""), (14.0, "or more")])
def test_kernels_that_shrink_or_blow_up_signals_are_worth_a_trial(gain, said, healthy):
    found = evidence("init-scale-wrong", healthy, kernel_gain=gain)
    assert (found is not None) == bool(said)
    if found is not None:
        assert said in found.sentence
        assert found.strength < 0.9


def test_linear_network_is_named(healthy):
    assert evidence("no-nonlinearity", healthy, hidden_nonlinearities=0.0, max_pools=0.0).strength == 1.0
    assert evidence("no-nonlinearity", healthy, hidden_nonlinearities=1.0, max_pools=0.0) is None


def test_leak_is_a_share_that_no_batch_norm_reaches(healthy):
    assert evidence("cross-example-leak", healthy, cross_example_share=0.87).strength == 1.0
    assert evidence("cross-example-leak", healthy, cross_example_share=0.05) is None


DEAD_FACTS = {
    "initial_dead_unit_share": 1.0,
    "dead_unit_share": 1.0,
    "initial_input_sensitivity": 1e-9,
    "end_input_sensitivity": 1e-9,
}


def test_dead_units_are_named_where_nothing_explains_them(healthy):
    seen = healthy._replace(layers=(DEAD,))
    assert evidence("dead-units", seen, **DEAD_FACTS).strength >= 0.9
    assert "dense1" in evidence("dead-units", seen, **DEAD_FACTS).sentence


@pytest.mark.parametrize(
    "upstream",
    [
        {"largest_loss_ratio": 30.0},
        {"input_standard_deviation": 72.0, "first_layer_input_standard_deviation": 72.0},
        {"input_blank_share": 1.0},
    ],
)
def test_dead_units_with_a_cause_before_them_are_its_result(upstream, healthy):
    assert evidence("dead-units", healthy._replace(layers=(DEAD,)), **DEAD_FACTS, **upstream) is None


def test_units_that_are_dead_in_part_are_no_cause(healthy):
    half = {**DEAD_FACTS, "dead_unit_share": 0.8, "end_input_sensitivity": 0.9}
    assert evidence("dead-units", healthy, **half) is None


# --- dropout ---------------------------------------------------------------------------------------------------------


def modes_of(problem, bench, run):
    bench = bench._replace(problem=problem)
    return structure_of(bench, problem.model) | look_at_modes(bench, run, has_dropout=True, drops_in_evaluation=True)


@pytest.fixture(scope="module")
def dropping(tiny_bench):
    return tiny_bench.problem._replace(model=small_cnn(10, dropout_rate=0.5))


@pytest.mark.parametrize(
    ("fault", "fact", "least"),
    [("dropout_on_logits", "dropped output share", 0.7), ("dropout_in_evaluation", "evaluation noise", 0.1)],
)
def test_misplaced_dropout_shows_and_its_remedy_takes_it_away(fault, fact, least, tiny_bench, short_run, healthy):
    faulty = plant(tiny_bench.problem, fault)
    seen = healthy._replace(facts={**healthy.facts, **modes_of(faulty, tiny_bench, short_run)})
    (remedy,) = BY_ID["dropout-on-logits"].remedies(seen)
    assert evidence("dropout-on-logits", seen).strength > 0.9
    assert seen.facts[fact] > least
    assert modes_of(remedy(faulty), tiny_bench, short_run)[fact] == 0


@pytest.mark.parametrize(("outputs", "is_named"), [("logits", True), ("relu", False)])
def test_zeros_that_a_relu_makes_of_scores_are_not_dropouts(outputs, is_named, healthy):
    seen = healthy._replace(names={**healthy.names, "outputs": outputs})
    found = evidence("dropout-on-logits", seen, dropped_output_share=0.5, strongest_dropout_rate=0.3)
    assert (found is not None) == is_named


def noisy(problem, strength):
    """Features that training adds noise to, and evaluation does not."""
    init, apply = problem.model

    def drowned(params, state, images, *, key, train):
        outputs, state = apply(params, state, images, key=key, train=train)
        return outputs + train * strength * jax.random.normal(key, outputs.shape), state

    return problem._replace(model=Model(init, drowned))


@pytest.mark.parametrize(("strength", "is_named"), [(0.0, False), (0.01, False), (10.0, True)])
def test_noise_that_is_no_dropout_drowns_signals_too(strength, is_named, tiny_bench, short_run, healthy):
    problem = noisy(tiny_bench.problem, strength)
    facts = look_at_modes(tiny_bench._replace(problem=problem), short_run, has_dropout=False)
    seen = healthy._replace(facts={**healthy.facts, "strongest dropout rate": 0.0, **facts}, run=short_run)
    cause = BY_ID["dropout-too-strong"]
    assert ("mask variance ratio" in facts) == (strength > 0)
    assert (cause.evidence(seen) is not None) == is_named
    if is_named:
        (remedy,) = cause.remedies(seen)
        mended = tiny_bench._replace(problem=remedy(problem))
        assert look_at_modes(mended, short_run, has_dropout=False)["mode gap"] == 0
        with_state = short_run._replace(last=(short_run.last[0], {"mean": np.zeros(3, np.float32)}))
        assert cause.evidence(seen._replace(run=with_state)) is None


def test_noise_that_training_has_silenced_is_read_before_it(tiny_bench, short_run):
    model = tiny_bench.problem.model

    def multiplied(params, state, images, *, key, train):
        outputs, state = model.apply(params, state, images, key=key, train=train)
        return outputs * (1 + train * jax.random.normal(key, outputs.shape)) + train, state

    problem = tiny_bench.problem._replace(model=Model(model.init, multiplied))
    silent = short_run._replace(last=jax.tree.map(np.zeros_like, short_run.last))
    facts = look_at_modes(tiny_bench._replace(problem=problem), silent, has_dropout=False)
    assert facts["mask variance ratio"] > 0.5


def test_a_shared_mask_that_killed_every_unit_is_read_before_it_did(tiny_bench, short_run):
    faulty = plant(tiny_bench.problem, "dropout_mask_shared")
    bench = tiny_bench._replace(problem=faulty)
    run = train_run(faulty, bench, num_steps=2, seconds=60.0, deadline=float("inf"))
    dead = run._replace(last=jax.tree.map(np.zeros_like, run.last))
    facts = look_at_modes(bench, dead, has_dropout=True)
    assert facts["mode gap"] == 0
    assert facts["mask sharing"] > 0.9
    assert "mask variance ratio" not in facts


def test_a_network_without_statistics_has_none_that_are_stale(short_run, healthy):
    stale = {"batch_minus_running_statistics_accuracy": 0.3, "settling_passes": 0, "statistics_momentum": 0.9}
    stale |= {"steps_of_the_whole_training": 180.0, "number_of_steps": 180.0}
    with_state = short_run._replace(last=(short_run.last[0], {"mean": np.zeros(3, np.float32)}))
    for run, is_named in ((short_run, False), (with_state, True)):
        found = evidence("batch-statistics-mismatch", healthy._replace(run=run), **stale)
        assert (found is not None) == is_named


def test_dropout_that_is_on_in_evaluation_alone_is_misplaced(tiny_bench, healthy):
    model = small_cnn(10, dropout_rate=0.5)

    def inverted(params, state, images, *, key, train):
        return model.apply(params, state, images, key=key, train=not train)

    problem = tiny_bench.problem._replace(model=Model(model.init, inverted))
    seen = observe(tiny_bench._replace(problem=problem), seconds=5, deadline=float("inf"))
    assert seen.facts["strongest dropout rate"] == 0.0
    assert evidence("dropout-on-logits", seen).strength > 0.9


def test_dropout_in_evaluation_shows_though_training_killed_every_unit(tiny_bench, short_run, healthy):
    faulty = plant(tiny_bench.problem, "dropout_in_evaluation")
    dead = short_run._replace(last=jax.tree.map(np.zeros_like, short_run.last))
    seen = healthy._replace(facts={**healthy.facts, **modes_of(faulty, tiny_bench, dead)})
    assert seen.facts["mode gap"] == 0
    assert evidence("dropout-on-logits", seen).strength > 0.9


def test_dropout_of_features_is_where_it_belongs(dropping, tiny_bench, short_run, healthy):
    seen = healthy._replace(facts={**healthy.facts, **modes_of(dropping, tiny_bench, short_run)})
    assert seen.facts["strongest dropout rate"] == 0.5
    assert evidence("dropout-on-logits", seen) is None


def test_each_image_alone_draws_masks_of_its_own_at_the_users_rate(tiny_bench, short_run):
    init, apply = tiny_bench.problem.model

    def masked(params, state, images, *, key, train):
        mask = dropout(key, jnp.ones(images.shape[1:]), rate=0.5, train=train)
        return apply(params, state, images * mask, key=key, train=train)

    shared = tiny_bench.problem._replace(model=Model(init, masked))
    before = modes_of(shared, tiny_bench, short_run)
    after = modes_of(remedies_network.each_image_alone(shared), tiny_bench, short_run)
    assert before["mask sharing"] > 0.3 > 0.15 > after["mask sharing"]
    assert after["strongest dropout rate"] == before["strongest dropout rate"]


def test_constant_key_is_a_mask_shared_by_all_steps(dropping, tiny_bench, short_run, healthy):
    apply = dropping.model.apply
    constant = dropping._replace(
        model=Model(dropping.model.init, lambda p, s, x, *, key, train: apply(p, s, x, key=KEY, train=train))
    )
    seen = healthy._replace(facts={**healthy.facts, **modes_of(constant, tiny_bench, short_run)})
    assert "constant" in evidence("dropout-mask-shared", seen).sentence


@pytest.mark.parametrize(("momentum", "whole", "named"), [(0.9, 40.0, False), (0.9, 80.0, True), (0.99, 20.0, True)])
def test_usual_statistics_are_not_blamed_for_a_training_of_few_steps(momentum, whole, named, healthy):
    facts = {"steps_of_the_whole_training": whole, "number_of_steps": whole, "statistics_momentum": momentum}
    seen = evidence("batch-statistics-mismatch", healthy, batch_minus_running_statistics_accuracy=0.3, **facts)
    assert (seen is not None) == named


@pytest.mark.parametrize(("growth", "named"), [(1.2, True), (50.0, False), (math.nan, True), (math.inf, True)])
def test_steps_that_are_small_beside_parameters_that_blew_up_are_not_too_small(growth, named, healthy):
    low = _bands()["log10 of update over parameter"][0]
    facts = {"number_of_steps": 180.0, "steps_of_the_whole_training": 180.0, "parameter_growth": growth}
    assert (
        evidence("updates-too-small", healthy, log10_of_update_over_parameter=low - 1, **facts) is not None
    ) == named


NORMED = ("batch norm", "relu")
ADVICE = {  # momentum, what follows the layers, and what the advice must say
    "lost": (1.0, NORMED, "Carry the updated statistics"),
    "unknown": (float("nan"), NORMED, "Carry the updated statistics"),
    "slow": (0.999, (*NORMED, "dropout 0.5"), "from 0.999 to 0.9, or train longer."),
    "slow and dropped before": (0.999, ("dropout 0.5", *NORMED), "train longer. Dropout stands in front"),
    "dropped before": (0.8999, ("dropout 0.5", *NORMED), "Dropout stands in front"),
    "neither": (0.9, NORMED, "The average is quick"),
}


@pytest.mark.parametrize("case", ADVICE)
def test_advice_on_statistics_says_what_keeps_them_from_arriving(case, healthy):
    momentum, steps, said = ADVICE[case]
    row = GraphRow("conv", "conv", "3x3", "8x8x4", "3x3", 40, 40, steps, ())
    seen = healthy._replace(facts={**healthy.facts, "statistics momentum": momentum}, graph=(row,))
    assert said in BY_ID["batch-statistics-mismatch"].advice(seen).text


@pytest.mark.parametrize(("made", "named"), [(141.0, False), (180.0, True)])
def test_statistics_are_not_blamed_for_a_run_that_the_clock_cut(made, named, healthy):
    facts = {
        "steps_of_the_whole_training": 180.0,
        "number_of_steps": made,
        "statistics_momentum": 0.9,
        "settling_passes": 0,
    }
    seen = evidence("batch-statistics-mismatch", healthy, batch_minus_running_statistics_accuracy=0.3, **facts)
    assert (seen is not None) == named


@pytest.mark.parametrize(("rule", "strength"), [("slope", 0.0), ("sign", 1.0)])
def test_steps_that_are_small_because_the_loss_is_flat_are_the_losss_fault(rule, strength, healthy):
    low, flat = _bands()["log10 of update over parameter"][0], _bands()["loss gradient at zero"][0] / 100
    seen = healthy._replace(names={**healthy.names, "update rule": rule})
    facts = {"number_of_steps": 400.0, "steps_of_the_whole_training": 400.0, "loss_gradient_at_zero": flat}
    found = evidence("updates-too-small", seen, log10_of_update_over_parameter=low - 1.5, **facts)
    assert (0.0 if found is None else found.strength) == pytest.approx(strength)


@pytest.mark.parametrize(
    ("late", "fitted", "named"),
    [(-math.inf, 0.4, True), (-3.0, 0.4, True), (-0.1, 0.4, False), (math.nan, 0.4, False), (-math.inf, 0.97, False)],
)
def test_steps_that_end_before_the_images_are_fitted_are_too_small(late, fitted, named, healthy):
    facts = {"log10_of_late_over_early_step": late, "training_accuracy": fitted, "last_update": 10.0}
    assert (evidence("updates-too-small", healthy, number_of_steps=460.0, **facts) is not None) == named


def test_a_schedule_in_epochs_is_read_and_its_remedy_goes_on(tiny_bench):
    short = plant(tiny_bench.problem._replace(num_epochs=3), "schedule_in_epochs")
    seen = observe(tiny_bench._replace(problem=short), seconds=20, deadline=float("inf"))
    found = evidence("updates-too-small", seen)
    assert (found.strength, found.sentence) == (1.0, "No parameter moves after step 3 of 60.")
    steady = BY_ID["updates-too-small"].remedies(seen)[0](short)
    again = observe(tiny_bench._replace(problem=steady), seconds=20, deadline=float("inf"))
    assert again.facts["last update"] == 60
    assert again.facts["step size"] == pytest.approx(1e-3, rel=1e-3)
    assert "decay_steps=60" in BY_ID["updates-too-small"].advice(seen).snippet


@pytest.mark.parametrize(
    "transform", [optax.sgd(0.1), optax.adam(1e-3), optax.MultiSteps(optax.adam(1e-3), every_k_schedule=4)]
)
def test_steps_that_go_on_are_as_long_late_as_early(transform, tiny_bench):
    problem = tiny_bench.problem._replace(num_epochs=3, optimizer=transform)
    seen = observe(tiny_bench._replace(problem=problem), seconds=20, deadline=float("inf"))
    assert abs(seen.facts["log10 of late over early step"]) < 0.7


def test_masks_of_dead_units_tell_nothing(tiny_bench, short_run, healthy):
    most = np.sort(tiny_bench.train.images[:256].mean(axis=(1, 2, 3)))[-2]

    def dying(params, state, images, *, key, train):
        alive = jax.nn.relu(images.mean(axis=(1, 2, 3)) - most)[:, None]  # that of one image of all
        return dropout(KEY, alive, rate=0.5, train=train) + 0.1 * train + jnp.zeros(10), state

    dead = tiny_bench.problem._replace(model=Model(tiny_bench.problem.model.init, dying))
    seen = healthy._replace(facts={**healthy.facts, **modes_of(dead, tiny_bench, short_run)})
    assert seen.facts["strongest dropout rate"] == 0.5
    assert evidence("dropout-mask-shared", seen) is None


@pytest.mark.parametrize(("reached", "is_named"), [(0.1, True), (0.98, False)])
def test_gradients_that_end_are_no_death_where_all_is_learnt(reached, is_named, healthy):
    facts = {"last_zero_gradient_share": 1.0, "first_zero_gradient_share": 0.2, "random_features_accuracy": 0.9}
    found = evidence("learning-rate-too-high", healthy, **facts, validation_accuracy=reached)
    assert (found is not None) == is_named


STRIDING = {"update_over_gradient": 2.0, "validation_accuracy": 0.1, "end_loss_ratio": 1.02}


@pytest.mark.parametrize(
    ("rule", "changed", "is_named"),
    [
        ("slope", {}, True),
        ("sign", {}, False),  # whose steps do not follow the size of the gradient
        ("slope", {"validation_accuracy": 0.8}, False),
        ("slope", {"end_loss_ratio": 0.5}, False),
        ("slope", {"update_over_gradient": 0.3}, False),
    ],
)
def test_long_steps_that_lead_nowhere_are_worth_a_trial(rule, changed, is_named, healthy):
    seen = healthy._replace(names={**healthy.names, "update rule": rule})
    found = evidence("learning-rate-too-high", seen, **{**STRIDING, **changed})
    assert (found is not None) == is_named
    if found is not None:
        assert "2 times its gradient" in found.sentence
        assert found.strength < 0.9
