import numpy as np
import optax
import pytest

from cnnprobe.training.validate import check_problem
from cnnprobe.types import Dataset, Problem

IMAGES, LABELS = np.zeros((4, 8, 8, 1), np.float32), np.arange(4)


def test_good_problem_passes(problem):
    check_problem(problem)


@pytest.mark.parametrize(
    "changes",
    [
        {"valid": None},
        {"num_classes": None},
        {"train": Dataset(IMAGES * np.nan, LABELS)},
        {"train": Dataset(IMAGES, LABELS + 100)},
        {"train": Dataset(IMAGES, LABELS * 0)},
        {"train": Dataset(IMAGES[..., 0], np.eye(4))},
        {"train": [{"image": IMAGES[0], "label": 1}]},
        {"batch_size": 1000},
        {"optimizer": optax.MultiSteps(optax.adam(1e-3), 2)},
        {"optimizer": optax.sgd(0.0)},
        {"loss": lambda outputs, labels: outputs},
        {"batch_size": np.int64(4)},
    ],
)
def test_sick_but_well_formed_problems_pass(problem, changes):
    check_problem(problem._replace(**changes))


BAD = {
    "model": [
        (None, "model must be a cnnprobe.Model, got NoneType; from_linen and from_nnx make one of a module"),
        ((1, 2), "model must be a cnnprobe.Model, got tuple"),
    ],
    "loss": [("cross-entropy", "loss must be a function, got 'cross-entropy'")],
    "optimizer": [
        (optax.adam, "optimizer must be an optax optimizer with init and update, as optax.adam"),
        ("adam", "optimizer must be an optax optimizer with init and update, .* got 'adam'"),
    ],
    "train": [
        (None, r"train must be a Dataset or a source with len\(\) and \[index\], got NoneType"),
        ((IMAGES, LABELS), "train must be a Dataset or a source .* got tuple"),
        (Dataset(IMAGES[:0], LABELS[:0]), "train must have at least one example, got 0"),
        ([], "train must have at least one example, got 0"),
        (Dataset(IMAGES, LABELS[:3]), "train cannot be read: .* got 4 images and 3 labels"),
        (Dataset(IMAGES, 3), "train cannot be read: labels must be an array"),
        (Dataset(IMAGES, np.array(["a", "b", "c", "d"])), "train must have labels of numbers, got <U1"),
        (Dataset(np.array([None] * 4), LABELS), "train must have images of numbers, got object"),
        ([{"picture": IMAGES[0], "label": 1}], 'train cannot be read: .*"image" and "label"'),
    ],
    "valid": [
        (Dataset(IMAGES[:0], LABELS[:0]), "valid must have at least one example, got 0"),
        (0.2, "valid must be a Dataset or a source .* got float"),
    ],
    "num_classes": [
        (1, "num_classes must be a whole number of at least 2, got 1"),
        (3.0, "num_classes must be a whole number of at least 2, got 3.0"),
    ],
    "batch_size": [
        (0, "batch_size must be a whole number of at least 1, got 0"),
        (True, "batch_size must be a whole number of at least 1, got True"),
    ],
    "num_epochs": [(0, "num_epochs must be a whole number of at least 1, got 0")],
    "seed": [(-1, "seed must be a whole number of at least 0, got -1")],
    "shuffle": [("yes", "shuffle must be True or False, got 'yes'")],
    "augment": [(1, "augment must be a function, got 1")],
    "preprocess": [(255.0, "preprocess must be a function, got 255.0")],
    "preprocess_valid": [(255.0, "preprocess_valid must be a function, got 255.0")],
    "batches": [([(IMAGES, LABELS)], "batches must be a function, got")],
    "predict": [("argmax", "predict must be a function, got 'argmax'")],
}


@pytest.mark.parametrize(
    ("field", "value", "message"), [(field, *case) for field, cases in BAD.items() for case in cases]
)
def test_malformed_field_is_refused(problem, field, value, message):
    with pytest.raises(ValueError, match=message):
        check_problem(problem._replace(**{field: value}))


def test_every_field_has_a_rule():
    assert set(BAD) == set(Problem._fields)


@pytest.mark.parametrize("part", ["init", "apply"])
def test_model_of_no_functions_is_refused(problem, part):
    with pytest.raises(ValueError, match=f"model.{part} must be a function, got None"):
        check_problem(problem._replace(model=problem.model._replace(**{part: None})))


def test_what_is_no_problem_is_refused():
    with pytest.raises(ValueError, match=r"problem must be a cnnprobe.Problem, got dict"):
        check_problem({})


def test_nothing_of_the_users_is_run(problem):
    def never(*args, **kwargs):
        raise AssertionError

    model = problem.model._replace(init=never, apply=never)
    check_problem(
        problem._replace(model=model, loss=never, preprocess=never, augment=never, batches=never, predict=never)
    )
