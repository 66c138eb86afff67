"""Looks at data, splits, loaders, augmentation, maps and metric, on small problems."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnprobe.data.augment import compose, mixup_batches, random_flip, random_shift
from cnnprobe.doctor.bench import make_bench
from cnnprobe.doctor.causes import CAUSES
from cnnprobe.doctor.looks.augmentation import look_at_augmentation, look_inside
from cnnprobe.doctor.looks.balance import look_at_balance, lost_to, rare_classes
from cnnprobe.doctor.looks.data import look_at_pairing
from cnnprobe.doctor.looks.maps import look_at_maps
from cnnprobe.doctor.looks.metric import look_at_metric
from cnnprobe.doctor.looks.numbering import best_numbering, look_at_numbering
from cnnprobe.doctor.looks.passes import look_at_passes
from cnnprobe.doctor.looks.splits import leaked, look_at_splits, occurs_in, unfairly_missing
from cnnprobe.doctor.looks.transfer import look_across_splits, ways
from cnnprobe.doctor.remedies_data import renumber_valid
from cnnprobe.doctor.run import predicted, train_run, valid_outputs
from cnnprobe.models.networks import residual_cnn, small_cnn
from cnnprobe.types import Dataset, Model, Problem
from experiments.brought_networks import spatial_collapse
from experiments.faults import plant
from experiments.problems import cross_entropy

KEY = jax.random.key(0)
BY_ID = {cause.id: cause for cause in CAUSES}
RNG = np.random.default_rng(0)
LABELS = np.arange(200) % 2
IMAGES = (RNG.random((200, 8, 8, 1)) + np.where(LABELS[:, None, None, None], 1.0, 0.0) * np.eye(8)[..., None]).astype(
    np.float32
)


def problem(**fields):
    valid = Dataset(IMAGES[150:], LABELS[150:])
    given = {"train": Dataset(IMAGES[:150], LABELS[:150]), "valid": valid, "num_classes": 2, "num_epochs": 3, **fields}
    return Problem(small_cnn(given["num_classes"]), cross_entropy, optax.adam(1e-3), **given)


def weights(of):
    return of.model.init(KEY, of.train.images[:2])


# --- splits


def test_fair_split_lacks_nothing():
    facts, _ = look_at_splits(make_bench(problem()))
    assert facts["classes missing from training"] == facts["validation share in missing classes"] == 0
    assert facts["validation overlap share"] == 0


def test_class_that_training_lacks_is_named():
    kept = np.flatnonzero(LABELS[:150] == 0)
    facts, names = look_at_splits(make_bench(problem(train=Dataset(IMAGES[kept], LABELS[kept]))))
    assert names["classes missing from training"] == "1"
    assert facts["validation share in missing classes"] == 0.5


def test_rare_class_may_be_missing_by_chance():
    assert unfairly_missing(np.zeros(1000, int), np.array([0] * 300 + [1] * 2), 10).tolist() == []
    assert unfairly_missing(np.zeros(1000, int), np.array([0] * 300 + [1] * 20), 10).tolist() == [1]


def test_overlap_is_counted_over_the_whole_training_set():
    valid = Dataset(np.concatenate([IMAGES[:20], IMAGES[150:180]]), np.concatenate([LABELS[:20], LABELS[150:180]]))
    is_leaked, coverage = leaked(make_bench(problem(valid=valid)))
    assert (is_leaked.sum(), coverage) == (20, 1.0)


def test_overlap_of_a_source_is_found_in_its_sample():
    source = [{"image": image, "label": label} for image, label in zip(IMAGES, LABELS, strict=True)]
    facts, _ = look_at_splits(make_bench(problem(train=source)))
    assert facts["validation overlap share"] == 1


def test_blank_images_do_not_count_as_overlap():
    assert occurs_in(np.zeros((3, 4, 4, 1)), np.zeros((2, 4, 4, 1))).tolist() == [False, False]


def test_type_of_storage_does_not_matter():
    images = RNG.integers(0, 255, (5, 4, 4, 1), dtype=np.uint8)
    assert occurs_in(images, images.astype(np.float32)).all()


# --- loaders


def loader(deal):
    def batches(epoch):
        rng = np.random.default_rng(epoch)
        images, labels = deal(IMAGES[:150], LABELS[:150], rng)
        return [(images[i : i + 50], labels[i : i + 50]) for i in (0, 50, 100)]

    return batches


def test_arrays_are_not_read_twice():
    assert look_at_passes(make_bench(problem())) == {}


@pytest.mark.parametrize(("deal", "share"), [
    (lambda x, y, rng: (x, y), 0.0),
    (lambda x, y, rng: (x, np.eye(2)[y]), 0.0),
    (lambda x, y, rng: (x, rng.permutation(y)), 0.5),
])  # fmt: skip
def test_conflicts_are_counted(deal, share):
    facts = look_at_passes(make_bench(problem(batches=loader(deal))))
    assert facts["images seen twice"] == 150
    assert facts["label conflict share"] == pytest.approx(share, abs=0.15)


def test_augmenting_loader_has_no_pairs_to_compare():
    noisy = loader(lambda x, y, rng: (x + rng.normal(size=x.shape), y))
    facts = look_at_passes(make_bench(problem(batches=noisy)))
    assert facts["images seen twice"] == 0
    assert "label conflict share" not in facts


def test_mixed_images_and_labels_conflict_with_nothing():
    mixed = mixup_batches(loader(lambda x, y, rng: (x, np.eye(2)[y])))
    bench = make_bench(problem(batches=mixed))
    assert look_at_passes(bench).get("label conflict share", 0.0) == 0
    assert look_at_pairing(bench)["random features z"] > 4


def test_loader_that_breaks_the_pairs_is_held_against_the_stored_ones():
    facts = look_at_pairing(make_bench(problem(batches=loader(lambda x, y, rng: (x, rng.permutation(y))))))
    assert facts["random features z"] < 4 < facts["stored random features z"]


def test_different_images_of_a_loader_are_counted_beside_those_stored():
    few = make_bench(problem(batches=lambda epoch: [(IMAGES[:10], LABELS[:10])] * 20))
    facts = look_at_passes(few)
    assert facts["different images served"] == 10
    assert facts["different images stored"] == 150
    assert "different images served" not in look_at_passes(make_bench(problem()))


# --- augmentation


@pytest.mark.parametrize(("augment", "low", "high"), [
    (compose(random_flip(), random_shift(0.0)), 0.3, 1.2),
    (lambda key, x: x + 100 * jax.random.normal(key, x.shape), -0.3, 0.3),
    (lambda key, x: jnp.zeros_like(x), -0.3, 0.3),
    (lambda key, x: jax.random.permutation(key, x), -0.3, 0.3),
])  # fmt: skip
def test_signal_that_augmentation_leaves(augment, low, high):
    bench = make_bench(problem(augment=augment))
    assert low < look_at_augmentation(bench, look_at_pairing(bench))["augmented signal share"] < high


def test_nothing_is_read_without_augmentation():
    assert look_at_augmentation(make_bench(problem()), {}) == {}


# --- maps


@pytest.mark.parametrize("model", [small_cnn(2), residual_cnn(2, widths=(4, 8))])
def test_pooling_before_the_head_is_no_collapse(model):
    each = problem()._replace(model=model)
    assert look_at_maps(make_bench(each), weights(each))[0]["convolutions on a single place"] == 0


def test_convolutions_on_a_single_place_are_counted():
    each = spatial_collapse(problem())
    facts, names = look_at_maps(make_bench(each), weights(each))
    assert (facts["convolutions on a single place"], facts["spatial convolutions"]) == (3, 4)
    assert names["first convolution on a single place"] == "conv1"


@pytest.mark.parametrize(("side", "factor"), [(3, 2.0), (8, None)])
def test_init_that_needs_larger_images(side, factor):
    each = problem(train=Dataset(IMAGES[:, :side, :side], LABELS), valid=None)
    assert look_at_maps(make_bench(each), None)[0].get("enlargement that runs") == factor


def test_model_for_one_size_of_images_is_no_collapse():
    def init(key, images):
        if images.shape[1] != 16:
            raise TypeError("dot_general requires contracting dimensions to have the same shape")
        return {}, {}

    each = problem()._replace(model=small_cnn(2)._replace(init=init))
    assert look_at_maps(make_bench(each), None) == ({}, {})


# --- metric


def metric_facts(predict):
    each = problem(predict=predict)
    bench = make_bench(each)
    run = train_run(each, bench, num_steps=2, seconds=60.0, deadline=np.inf)
    return look_at_metric(bench, valid_outputs(bench, run))


def test_right_metric_agrees():
    facts = metric_facts(lambda outputs: jnp.argmax(outputs, axis=-1))
    assert facts["metric agreement"] == 1
    assert facts["accuracy lost by your metric"] == 0


def test_flipped_metric_never_agrees():
    facts = metric_facts(lambda outputs: jnp.argmin(outputs, axis=-1))
    assert facts["metric agreement"] == 0
    assert facts["accuracy by your metric"] == pytest.approx(1 - facts["accuracy of the outputs"])


def thresholds_passed(outputs):
    return (outputs > 0).sum(axis=-1)


@pytest.mark.parametrize(
    ("width", "predict", "share", "named"),
    [
        (4, thresholds_passed, 0.0, None),
        (4, lambda outputs: jnp.argmin(outputs > 0, axis=-1), 0.2, 4),  # all passed: no False to find
        (1, lambda outputs: jnp.round(outputs[:, 0]), 0.0, None),  # a number for each image
        (1, lambda outputs: outputs[:, 0] > 0, 0.6, 2),
        (5, lambda outputs: jnp.argsort(outputs, axis=-1)[:, 0], 0.0, None),  # wrong, and no class is out of reach
        (4, lambda outputs: jnp.argmax(outputs, axis=-1), None, None),  # too few scores
        (4, lambda outputs: jnp.argmax(outputs[:20] > 0, axis=-1), None, None),  # for outputs of one length
    ],
)
def test_classes_that_a_metric_never_gives_are_found(width, predict, share, named):
    bench = make_bench(problem(predict=predict))
    bench = bench._replace(num_classes=5, valid=bench.valid._replace(ids=np.repeat(np.arange(5), 4)))
    facts = look_at_metric(bench, np.random.default_rng(1).normal(size=(20, width)).astype(np.float32))
    assert facts.get("share of images your metric cannot name") == share
    assert facts.get("class your metric never gives") == named


def test_nothing_is_read_without_a_metric():
    assert look_at_metric(make_bench(problem()), None) == {}


def test_planted_faults_need_validation_images():
    with pytest.raises(ValueError, match=r"problem\.valid must be given"):
        plant(problem(valid=None), "split_by_class")


def test_truth_values_as_images_are_seen_twice_as_well():
    dots = np.random.default_rng(0).random((40, 6, 6, 1)) > 0.5
    source = [{"image": image, "label": index % 4} for index, image in enumerate(dots)]
    assert look_at_passes(make_bench(problem(train=source)))["images seen twice"] == 40.0


# --- balance


@pytest.mark.parametrize(
    ("counts", "rare"),
    [([60, 20, 20], []), ([60, 30, 10], [2]), ([98, 1, 1], [1, 2]), ([50, 50, 0], []), ([100, 100], [])],
)
def test_rare_classes_hold_less_than_half_of_an_equal_share(counts, rare):
    ids = np.repeat(np.arange(len(counts)), counts)
    assert rare_classes(ids, len(counts)).tolist() == rare
    assert rare_classes(np.append(ids, [-1, 99]), len(counts)).tolist() == rare


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=8, max_size=60), st.integers(1, 4))
def test_what_rare_classes_cost_is_the_gain_of_the_mean_recall_of_the_others(pairs, first_rare):
    ids, is_right = (np.array(column) for column in zip(*pairs, strict=True))
    ids[:2] = 0, first_rare  # one of each kind at least
    lost, error, rare, rare_error = lost_to(ids >= first_rare, is_right, ids)
    recalls = {each: np.mean(is_right[ids == each].astype(np.float64)) for each in set(ids.tolist())}
    common = [recall for each, recall in recalls.items() if each < first_rare]
    raised = [recall if each < first_rare else np.mean(common) for each, recall in recalls.items()]
    np.testing.assert_allclose(lost, np.mean(raised) - np.mean(list(recalls.values())), atol=1e-12)
    assert error >= 0
    assert rare_error > 0
    np.testing.assert_allclose(rare, np.mean([recall for each, recall in recalls.items() if each >= first_rare]))


def test_error_of_what_rare_classes_cost_is_that_of_repeated_draws():
    rng, ids = np.random.default_rng(0), np.repeat(np.arange(4), 50)
    chance = np.array([0.9, 0.8, 0.5, 0.3])[ids]
    drawn = np.array([lost_to(ids >= 2, rng.random(200) < chance, ids) for _ in range(500)])
    np.testing.assert_allclose(drawn[:, 0].mean(), 0.225, atol=0.01)
    np.testing.assert_allclose(drawn[:, 1].mean(), drawn[:, 0].std(), rtol=0.15)
    np.testing.assert_allclose(drawn[:, 3].mean(), drawn[:, 2].std(), rtol=0.15)


def test_rare_class_that_is_never_recognised_is_measured():
    kept = np.flatnonzero((LABELS[:150] == 0) | (np.arange(150) < 6))
    sick = problem(train=Dataset(IMAGES[kept], LABELS[kept]), batch_size=8)
    bench = make_bench(sick)
    run = train_run(sick, bench, num_steps=3, seconds=100, deadline=float("inf"))
    blind = run._replace(last=jax.tree.map(np.zeros_like, run.last))  # the first of equal scores wins: the common class
    found = look_at_balance(bench, valid_outputs(bench, blind))
    assert (found["accuracy lost to rare classes"], found["recall of rare classes"]) == (0.5, 0.0)
    assert look_at_balance(bench._replace(has_valid=False), valid_outputs(bench, blind)) == {}


def test_class_that_training_lacks_is_not_counted_among_the_common_ones():
    kept = np.flatnonzero((LABELS[:150] == 0) | (np.arange(150) < 6))
    sick = problem(train=Dataset(IMAGES[kept], LABELS[kept]), num_classes=3)
    sick = sick._replace(valid=Dataset(IMAGES[150:], np.where(np.arange(50) < 20, 2, LABELS[150:])))
    bench = make_bench(sick)
    run = train_run(sick, bench, num_steps=3, seconds=100, deadline=float("inf"))
    blind = run._replace(last=jax.tree.map(np.zeros_like, run.last))
    assert look_at_balance(bench, valid_outputs(bench, blind))["accuracy lost to rare classes"] == 0.5


def test_one_image_of_a_rare_class_is_no_certainty():
    lost, error, *_ = lost_to(np.arange(33) == 32, np.arange(33) < 32, (np.arange(33) == 32).astype(int))
    assert lost == 0.5
    assert lost < 3 * error


def test_balanced_classes_cost_nothing():
    bench = make_bench(problem())
    run = train_run(problem(), bench, num_steps=3, seconds=100, deadline=float("inf"))
    assert look_at_balance(bench, valid_outputs(bench, run)) == {}


@pytest.mark.parametrize("shift", [0, 1])
def test_class_numbers_of_validation_are_found_from_what_the_network_says(shift):
    rng, labels = np.random.default_rng(0), np.arange(150) % 3
    images = (rng.random((150, 8, 8, 1)) + labels[:, None, None, None]).astype(np.float32) / 3
    other = Dataset(images[90:], (labels[90:] + shift) % 3)
    sick = problem(train=Dataset(images[:90], labels[:90]), valid=other, num_classes=3)
    sick = sick._replace(model=small_cnn(3), optimizer=optax.adam(1e-2), batch_size=30)
    bench = make_bench(sick)
    run = train_run(sick, bench, num_steps=60, seconds=100, deadline=float("inf"))
    answers = valid_outputs(bench, run)
    found = best_numbering(bench, answers)
    facts, names = look_at_numbering(bench, answers)
    assert found.number.tolist() == [(each - shift) % 3 for each in range(3)]
    assert found.renumbered == facts["accuracy with classes renumbered"] > 0.9
    assert facts["accuracy gained by other class numbers"] == pytest.approx(found.renumbered if shift else 0.0, abs=0.1)
    assert names["classes numbered otherwise"] == ("0 as 2, 1 as 0, 2 as 1" if shift else "")
    mended = renumber_valid(found.number)(sick)
    np.testing.assert_array_equal(mended.valid.labels, labels[90:])


def test_answers_that_are_no_class_are_wrong():
    bench = make_bench(problem())
    ids, place = bench.valid.ids, np.arange(len(bench.valid.ids))
    wide = np.eye(5)[np.where(place < 2, ids, 4)]  # two right, the rest beyond the two classes
    right = np.mean([np.mean(place[ids == number] < 2) for number in np.unique(ids)])
    assert best_numbering(bench, wide).accuracy == pytest.approx(right)


@pytest.mark.parametrize("kind", [np.int32, np.float32, bool])
def test_a_metric_may_give_classes_of_any_type(kind):
    bench = make_bench(problem()._replace(predict=lambda outputs: (outputs[:, 0] > 0).astype(kind)))
    scores = np.where(np.arange(len(bench.valid.ids)) % 3 == 0, 1.0, -1.0)[:, None]
    assert predicted(bench.problem, bench, scores).tolist() == (scores[:, 0] > 0).astype(int).tolist()


def test_answers_beyond_the_classes_number_none():
    bench = make_bench(problem())
    wide = np.eye(5)[np.full(len(bench.valid.ids), 4)]  # five scores, none of which is one of the two classes
    assert look_at_numbering(bench, wide) == ({}, {})


# --- across the splits


STRIPES = (np.arange(8) % 4 < 2).astype(np.float32)


def coloured(num, *, seed=0):
    """Red and blue stripes, each down or across: four classes that no swap of colours leaves as they are."""
    rng = np.random.default_rng(seed)
    ids = np.arange(num) % 4
    shape = np.where((ids % 2 == 0)[:, None, None], STRIPES[None, :, None], STRIPES[None, None, :]) * np.ones(
        (num, 8, 8)
    )
    images = 0.3 * rng.random((num, 8, 8, 3))
    images[np.arange(num), :, :, np.where(ids < 2, 0, 2)] += shape
    images[..., 1] += np.linspace(0, 1, 8)[None, :, None]  # brighter below
    return images.astype(np.float32), ids


def across(change, *, gap=0.5):
    (images, ids), (others, other_ids) = coloured(300), coloured(200, seed=1)
    bench = make_bench(problem(train=Dataset(images, ids), valid=Dataset(change(others), other_ids), num_classes=4))
    return bench, *look_across_splits(bench, gap)


@pytest.mark.parametrize(
    ("change", "way"),
    [
        (lambda images: images[..., ::-1], "with their channels in reverse order"),
        (lambda images: images.swapaxes(1, 2), "with rows and columns exchanged"),
    ],
)
def test_the_way_in_which_validation_images_are_read_otherwise_is_found_and_undone(change, way, healthy):
    bench, facts, names = across(change)
    assert names["validation images redone"] == way
    assert (
        facts["accuracy of features across the splits"] < 0.7 < facts["accuracy of features across the splits, redone"]
    )
    seen = healthy._replace(bench=bench, facts={**healthy.facts, **facts}, names={**healthy.names, **names})
    cause = BY_ID["train-valid-mismatch"]
    assert way in cause.evidence(seen).sentence
    assert way in cause.advice(seen).text
    (remedy,) = cause.remedies(seen)
    mended = make_bench(remedy(bench.problem)).valid.images
    np.testing.assert_allclose(mended, ways(bench)[way](bench.valid.images), rtol=1e-6)


def test_each_way_to_read_images_undoes_itself():
    images, ids = coloured(40)
    for way in ways(make_bench(problem(train=Dataset(images, ids), num_classes=4))).values():
        assert not np.allclose(way(images), images)
        np.testing.assert_allclose(way(way(images)), images, atol=1e-6)


def test_splits_that_are_read_alike_are_not_suspected(healthy):
    bench, facts, names = across(lambda images: images)
    assert facts["accuracy of features across the splits"] > 0.9
    seen = healthy._replace(bench=bench, facts={**healthy.facts, **facts}, names={**healthy.names, **names})
    assert BY_ID["train-valid-mismatch"].evidence(seen) is None


def test_without_a_gap_nothing_is_looked_at():
    assert across(lambda images: images, gap=0.05)[1:] == ({}, {})


def test_classes_that_training_lacks_are_no_matter_of_reading():
    images, ids = coloured(300)
    others, other_ids = coloured(200, seed=1)
    kept = ids < 3
    of = problem(train=Dataset(images[kept], ids[kept]), valid=Dataset(others, other_ids), num_classes=4)
    assert look_across_splits(make_bench(of), 0.5)[0]["accuracy of features across the splits"] > 0.9


# --- preparation


def test_a_preparation_that_robs_images_of_their_labels_is_named_and_replaced(healthy):
    raw = (255 * np.clip(IMAGES / 2, 0, 1)).astype(np.uint8)
    noise = np.random.default_rng(5)

    def spoil(images):
        return noise.random(images.shape, np.float32)

    many = np.concatenate([raw, raw, raw])
    spoilt = problem(train=Dataset(many, np.tile(LABELS, 3)), preprocess=spoil)
    bench = make_bench(spoilt)
    facts = look_at_pairing(bench)
    assert facts["stored random features z"] > 10 > 4 > facts["random features z"]
    seen = healthy._replace(bench=bench, facts={**healthy.facts, "validation accuracy": 0.5, **facts})
    assert BY_ID["labels-unrelated-to-images"].evidence(seen) is None
    cause = BY_ID["inputs-blank-or-corrupt"]
    assert "`preprocess`" in cause.evidence(seen).sentence
    assert "wrap around" in cause.advice(seen).text
    (remedy,) = cause.remedies(seen)
    fed = make_bench(remedy(spoilt)).train.images
    assert abs(fed.mean()) < 0.1
    assert abs(fed.std() - 1) < 0.1


def test_images_are_read_as_stored_where_something_changes_them():
    assert "stored random features z" not in look_at_pairing(make_bench(problem()))
    facts = look_at_pairing(make_bench(problem(preprocess=lambda images: images * 2)))
    assert facts["stored random features accuracy"] == pytest.approx(facts["random features accuracy"], abs=0.05)


# --- augmentation inside


def inside(change):
    """A model that changes its images by `change(key, images)` in training mode, in front of its first layer."""
    plain = small_cnn(2)

    def apply(params, state, images, *, key, train):
        fed = change(key, images) if train else images
        return plain.apply(params, state, fed / 2 - 0.5, key=key, train=train)

    return Model(plain.init, apply)


def read_inside(model):
    of = problem(train=Dataset(np.tile(IMAGES, (3, 1, 1, 1)), np.tile(LABELS, 3)))._replace(model=model)
    bench = make_bench(of)
    return bench, look_inside(bench, weights(of), look_at_pairing(bench))


def test_augmentation_inside_the_model_that_destroys_is_seen_and_taken_out(healthy):
    model = inside(lambda key, images: 0.01 * images + jax.random.uniform(key, images.shape))
    bench, facts = read_inside(model)
    assert facts["augmented signal share"] < 0.15
    seen = healthy._replace(bench=bench, facts={**healthy.facts, **facts, "training batch accuracy": 0.5})
    cause = BY_ID["augmentation-destroys-signal"]
    assert "standard deviation" not in cause.evidence(seen).sentence
    assert "random layers" in cause.advice(seen).text
    (remedy,) = cause.remedies(seen)
    mended, given = remedy(bench.problem).model, weights(bench.problem)
    outputs = [of.apply(*given, IMAGES, key=KEY, train=train)[0] for of, train in ((mended, True), (model, False))]
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)


def test_augmentation_inside_that_keeps_the_signal_is_not_suspected(healthy):
    model = inside(lambda key, images: images + 0.05 * jax.random.normal(key, images.shape))
    bench, facts = read_inside(model)
    assert facts["augmented signal share"] > 0.8
    seen = healthy._replace(bench=bench, facts={**healthy.facts, **facts})
    assert BY_ID["augmentation-destroys-signal"].evidence(seen) is None


@pytest.mark.parametrize("model", [small_cnn(2), inside(lambda key, images: images[::-1])])
def test_a_model_without_chance_in_front_augments_nothing(model):
    assert read_inside(model)[1] == {}
