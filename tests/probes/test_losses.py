import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnprobe.probes import losses
from cnnprobe.probes.losses import HEALTHY_LOSSES, loss_fingerprint, name_loss
from probes import loss_zoo as zoo


def named(loss, num_classes=10, **options):
    return name_loss(loss_fingerprint(loss, num_classes, **options), num_classes)


def sigmoid_loss(logits, labels):
    return optax.sigmoid_binary_cross_entropy(logits, labels).mean()


def binary(logits, labels):
    return sigmoid_loss(logits[:, 0], labels)


def integer_loss(logits, ids):
    return optax.softmax_cross_entropy_with_integer_labels(logits, ids).mean()


def log_of_probability(probs, ids):
    return -jnp.mean(jnp.log(zoo.picked(probs, ids)))


@pytest.mark.parametrize("loss", zoo.TABLE, ids=lambda loss: loss.__name__)
def test_table_is_reproduced(loss):
    name, *expected = zoo.TABLE[loss]
    read = loss_fingerprint(loss, 10)
    pairs = zip([read.floor, read.uniform, read.wrong, read.gradient_at_zero], expected, strict=True)
    known = np.array([(value, target) for value, target in pairs if target is not None]).reshape(-1, 2)
    np.testing.assert_allclose(known[:, 0], known[:, 1], rtol=0.01, atol=1e-6)
    assert name_loss(read, 10) == name


# With two classes a binary loss of softmax probabilities is cross-entropy, and with many so is nearly focal loss.
TWINS = {(zoo.binary_of_softmax, 2), (zoo.focal, 1000)}


@pytest.mark.parametrize("num_classes", [2, 100, *(pytest.param(k, marks=pytest.mark.slow) for k in (3, 16, 1000))])
@pytest.mark.parametrize("loss", zoo.TABLE, ids=lambda loss: loss.__name__)
def test_names_hold_for_any_number_of_classes(loss, num_classes):
    expected = "cross-entropy" if (loss, num_classes) in TWINS else zoo.TABLE[loss][0]
    assert named(loss, num_classes) == expected


# A constant is what is wrong with the first two; losses that do not lead to the labels are told apart by their size.
OF_ONE_SCALE = {"class-mean", "temperature", "relu-first", *(name for name, _ in losses._RULES)}


@pytest.mark.parametrize("factor", [0.01, 0.5, 8.0, 1000.0])
@pytest.mark.parametrize("loss", zoo.TABLE, ids=lambda loss: loss.__name__)
def test_names_do_not_hang_on_the_scale(loss, factor):
    name = zoo.TABLE[loss][0]
    if name not in OF_ONE_SCALE:
        found = named(lambda z, y: factor * loss(z, y))
        assert found == name or (name in HEALTHY_LOSSES and found in {*HEALTHY_LOSSES, "unknown"})


@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("loss", [zoo.broadcast, zoo.softmax_over_batch, zoo.relu_first, zoo.labels_off_by_one])
def test_names_do_not_hang_on_the_draw(loss, seed):
    assert named(loss, seed=seed) == zoo.TABLE[loss][0]


@pytest.mark.parametrize("num_images", [16, 32, 256])
@pytest.mark.parametrize("loss", [zoo.summed, zoo.softmax_over_batch, zoo.broadcast])
def test_names_do_not_hang_on_the_batch_size(loss, num_images):
    assert named(loss, num_images=num_images) == zoo.TABLE[loss][0]


@pytest.mark.parametrize(
    ("loss", "share"),
    [(zoo.cross_entropy, 1), (zoo.negated, 0), (zoo.zero_one, 0.1), (zoo.hinge, 1), (zoo.squared_error_of_logits, 1)],
)
def test_recovers_is_what_descent_reaches(loss, share):
    np.testing.assert_allclose(loss_fingerprint(loss, 10).recovers, share, atol=0.1)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_recovers_holds_for_any_scale(scale):
    assert loss_fingerprint(lambda z, y: scale * zoo.cross_entropy(z, y), 10).recovers == 1


def test_blind_gradient_of_cross_entropy_is_that_of_the_shares_of_the_labels():
    given = []
    read = loss_fingerprint(zoo.cross_entropy, 10, encode=lambda ids: given.append(ids) or ids)
    shares = np.bincount(given[0], minlength=10) / len(given[0])
    np.testing.assert_allclose(
        read.blind_gradient, np.mean(np.linalg.norm(shares - np.eye(10)[given[0]], axis=1)), rtol=0.01
    )


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
@pytest.mark.parametrize(
    "loss",
    [
        *(zoo.cross_entropy, zoo.smoothed, zoo.focal, zoo.polynomial, zoo.one_vs_rest, zoo.hinge),
        *(zoo.squared_error_of_logits, zoo.squared_error_of_probabilities),
    ],
)
def test_sound_losses_do_not_rest_where_all_examples_have_the_same_scores(loss, num_classes):
    read = loss_fingerprint(loss, num_classes)
    assert read.blind_gradient > 0.1 / np.sqrt(num_classes) * read.gradient_at_zero


@pytest.mark.parametrize(
    "loss",
    [
        lambda z, y: jnp.mean(jnp.maximum(0, 1 - z * jax.nn.one_hot(y, 10))),  # labels of 0 where -1 is meant
        lambda z, y: -jnp.mean(jax.nn.log_sigmoid(zoo.picked(z, y))),  # no other class pulls
    ],
)
def test_losses_that_any_large_scores_satisfy_rest_there(loss):
    read = loss_fingerprint(loss, 10)
    assert read.recovers == 1
    assert read.blind_gradient < 1e-4 * read.gradient_at_zero


def test_cross_entropy_matches_definitions():
    read = loss_fingerprint(zoo.cross_entropy, 10)
    values = [read.shift, read.row_sum, read.toward_label_share, read.zero_gradient_share, read.cross_example]
    np.testing.assert_allclose(values, [0, 0, 1, 0, 0], atol=1e-6)
    assert (read.duplication, read.num_nonfinite, read.output_shape, read.failure) == (1, 0, (), "")


@pytest.mark.parametrize(
    ("loss", "duplication", "coupled"),
    [(zoo.cross_entropy, 1, False), (zoo.summed, 2, False), (zoo.softmax_over_batch, 1.15, True)],
)
def test_batch_axis_shows(loss, duplication, coupled):
    read = loss_fingerprint(loss, 10)
    np.testing.assert_allclose(read.duplication, duplication, atol=0.03)
    assert (read.cross_example > 1e-3) == coupled


def test_next_class_reveals_the_offset():
    read = loss_fingerprint(zoo.labels_off_by_one, 10)
    assert read.next_class < 20 < 80 < read.previous_class


def test_far_floor_tells_temperature_from_a_second_softmax():
    floors = [loss_fingerprint(loss, 10).floor_far for loss in (zoo.temperature, zoo.softmax_twice)]
    np.testing.assert_allclose(floors, [9 * np.exp(-10), np.log(np.e + 9) - 1], rtol=1e-2)


@pytest.mark.parametrize(
    ("link", "name"),
    [
        (jax.nn.softmax, "softmax-twice"),
        (jax.nn.log_softmax, "cross-entropy"),
        (jax.nn.sigmoid, "sigmoid-first"),
        (jnp.tanh, "tanh-first"),
        (jax.nn.relu, "relu-first"),
        (lambda z: jnp.maximum(z, 0), "relu-first"),
        (lambda z: z / 100, "temperature"),
        (lambda z: z * 10, "temperature"),
    ],
)
def test_link_is_read_with_the_loss(link, name):
    assert named(zoo.cross_entropy, link=link) == name


def test_loss_of_probabilities_is_sound_with_its_link():
    assert named(log_of_probability, link=jax.nn.softmax) == "cross-entropy"


def test_overflow_of_a_sure_mistake_is_counted():
    assert loss_fingerprint(log_of_probability, 10, link=jax.nn.softmax).num_nonfinite == 3


@pytest.mark.parametrize(
    "loss",
    [
        log_of_probability,
        lambda z, y: -jnp.mean(jnp.log(zoo.picked(z, y) + 1e-8)),
        lambda z, y: -jnp.mean(jnp.log(jax.nn.relu(zoo.picked(z, y)) + 1e-8)),
    ],
)
@pytest.mark.parametrize("num_classes", [2, 10])
def test_every_logarithm_of_logits_is_named(loss, num_classes):
    assert named(loss, num_classes) == "log-of-logits"


@pytest.mark.parametrize(
    ("loss", "encode", "name"),
    [
        (integer_loss, lambda ids: ids, "cross-entropy"),
        (integer_loss, lambda ids: ids + 1, "labels-out-of-range"),
        (zoo.cross_entropy, lambda ids: ids + 1, "shifted-labels"),
        (lambda z, y: integer_loss(z, y.astype(int)), lambda ids: ids / 255, "shifted-labels"),
        (lambda z, y: optax.softmax_cross_entropy(z, y).mean(), lambda ids: np.eye(10)[ids], "cross-entropy"),
        (lambda z, y: optax.hinge_loss(z, y).mean(), lambda ids: 2 * np.eye(10)[ids] - 1, "hinge"),
        (lambda z, y: integer_loss(z, y[:, 0]), lambda ids: ids[:, None], "cross-entropy"),
    ],
)
def test_labels_come_in_the_users_format(loss, encode, name):
    assert named(loss, encode=encode) == name


@pytest.mark.parametrize(
    "loss",
    [
        zoo.polynomial,
        lambda z, y: jnp.mean(jnp.max(1 - jax.nn.one_hot(y, 10) + z, axis=1) - zoo.picked(z, y)),  # the worst margin
        lambda z, y: sigmoid_loss(z, jax.nn.one_hot(y, 10)) * 10,
        lambda z, y: jnp.mean(jnp.abs(jax.nn.softmax(z) - jax.nn.one_hot(y, 10))),
        lambda z, y: 0.5 * jnp.mean(jnp.sum((jax.nn.softmax(z) - jax.nn.one_hot(y, 10)) ** 2, axis=1)),
        lambda z, y: 1000 * zoo.cross_entropy(z, y),
        lambda z, y: zoo.smoothed(z, y, 0.2),
        lambda z, y: jnp.mean(jnp.arange(1.0, 11)[y] * -zoo.picked(jax.nn.log_softmax(z), y)),  # class weights
    ],
)
def test_healthy_variants_are_no_faults(loss):
    assert named(loss) in HEALTHY_LOSSES


def test_unknown_but_sound_loss_recovers():
    read = loss_fingerprint(lambda z, y: zoo.cross_entropy(jax.nn.leaky_relu(z), y), 10)
    assert (name_loss(read, 10), read.recovers) == ("unknown", 1)


@pytest.mark.parametrize(
    ("loss", "link", "name"),
    [
        (binary, None, "cross-entropy"),
        (sigmoid_loss, None, "broadcast"),  # [n, 1] logits against [n] labels
        (lambda z, y: 64 * binary(z, y), None, "cross-entropy"),
        (lambda z, y: len(z) * binary(z, y), None, "summed"),
        (lambda z, y: -binary(z, y), None, "negated"),
        (lambda z, y: binary(z, 1 - y), None, "shifted-labels"),
        (binary, jax.nn.sigmoid, "sigmoid-first"),
        (binary, jnp.tanh, "tanh-first"),
        (binary, jax.nn.softmax, "no-gradient"),
        (zoo.cross_entropy, None, "no-gradient"),
        (lambda z, y: jnp.mean(jnp.maximum(0, 1 - z[:, 0] * (2 * y - 1))), None, "hinge"),
        (lambda z, y: jnp.mean((z[:, 0] - y) ** 2), None, "squared-error"),
        (lambda z, y: jnp.mean((jax.nn.sigmoid(z[:, 0]) - y) ** 2), None, "squared-error"),
    ],
)
def test_single_unit_losses_are_named(loss, link, name):
    assert named(loss, 2, num_units=1, link=link) == name


def test_outputs_without_an_axis_of_units():
    assert named(sigmoid_loss, 2, num_units=0) == "cross-entropy"


def test_more_units_than_classes():
    assert named(integer_loss, 10, num_units=1000) == "cross-entropy"


def test_fewer_units_than_classes():
    assert named(integer_loss, 10, num_units=5) == "labels-out-of-range"


@pytest.mark.parametrize("shape", [(64,), (64, 1)])
def test_loss_per_example_is_read_as_its_mean(shape):
    read = loss_fingerprint(lambda z, y: -zoo.picked(jax.nn.log_softmax(z), y).reshape(-1, *shape[1:]), 10)
    assert (read.output_shape, read.is_scalar, name_loss(read, 10)) == (shape, False, "cross-entropy")


def test_loss_that_branches_on_values_is_read():
    def loss(logits, ids):
        value = zoo.cross_entropy(logits, ids)
        return value if value > 1 else 2 * value

    assert loss_fingerprint(loss, 10).recovers == 1


def test_loss_without_gradient_gives_its_values():
    def loss(logits, ids):
        return np.mean(np.asarray(logits)[np.arange(len(ids)), np.asarray(ids)])

    read = loss_fingerprint(loss, 10)
    assert (read.floor, read.wrong) == (50, -50)
    assert np.isnan(read.recovers)
    assert "Tracer" in read.failure


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (lambda z, y: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda z, y: (zoo.cross_entropy(z, y), {}), "TypeError: the loss must return an array, got a tuple"),
        (lambda z, y: None, "got a NoneType"),
        (lambda z, y: z @ z, "TypeError: dot_general"),
    ],
)
def test_loss_that_raises_is_reported(loss, text):
    read = loss_fingerprint(loss, 10)
    assert text in read.failure
    assert (name_loss(read, 10), np.isnan(read.floor), read.is_scalar) == ("unknown", True, False)


@pytest.mark.parametrize("value", [jnp.nan, 1.0])
def test_constant_loss_has_no_gradient(value):
    assert named(lambda z, y: value) in ("no-gradient", "labels-out-of-range")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "num_classes must be a whole number of at least 2, got 1"),
        ({"num_classes": 3, "num_units": -1}, "num_units must be a whole number of at least 0, got -1"),
        ({"num_classes": 3, "num_images": 1}, "num_images must be a whole number of at least 2, got 1"),
        ({"num_classes": 3, "link": 3}, "link must be a function, got 3"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        loss_fingerprint(zoo.cross_entropy, **options)


def test_loss_must_be_a_function():
    with pytest.raises(ValueError, match="loss must be a function, got 'ce'"):
        loss_fingerprint("ce", 10)


def test_every_rule_has_a_test():
    rules = losses._RULES_FIRST + losses._RULES + losses._RULES_WHERE_IT_RECOVERS
    assert {name for name, _ in rules} == {name for name, *_ in zoo.TABLE.values()}
