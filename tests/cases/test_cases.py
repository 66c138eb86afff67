import jax
import numpy as np
import pytest

import cnnprobe as cp
from cnnprobe.cases.blood_cells import FAULTS as CELL_FAULTS
from cnnprobe.cases.resnet_digits import FAULTS as DIGIT_FAULTS
from cnnprobe.cases.stuck_at_a_third import SUMMARIES
from cnnprobe.data.bundled import ImageSet
from cnnprobe.training.step import init_state, make_train_step
from cnnprobe.training.validate import check_problem
from cnnprobe.types import Dataset

BUILT = {
    **{f"cells, {fault}": (cp.cases.blood_cells, {"fault": fault, "num_images": 40}) for fault in (None, *CELL_FAULTS)},
    **{
        f"digits, {fault}": (cp.cases.resnet_digits, {"fault": fault, "num_images": 40})
        for fault in (None, *DIGIT_FAULTS)
    },
    **{
        f"checklist, {fault}": (cp.cases.checklist, {"fault": fault, "num_images": 40})
        for fault in (None, "softmax_twice")
    },
    **{f"third, {name}": (cp.cases.stuck_at_a_third, {"summary": name, "num_images": 30}) for name in SUMMARIES},
    **{f"sixteen, {flat}": (cp.cases.sixteen_classes, {"flat": flat, "num_images": 32}) for flat in (True, False)},
}


@pytest.mark.parametrize("name", BUILT)
def test_every_case_has_a_training_step(name):
    build, choices = BUILT[name]
    problem = build(**choices)
    check_problem(problem)
    images, labels = problem.preprocess(problem.train.images[:4]), problem.train.labels[:4]
    step = make_train_step(problem.model, problem.loss, problem.optimizer, num_classes=problem.num_classes)
    state = jax.eval_shape(lambda: init_state(problem, jax.random.key(0), images))
    _, report = jax.eval_shape(step, state, images, labels)
    assert report.loss.shape == ()


def test_sixteen_classes_are_all_there():
    problem = cp.cases.sixteen_classes()
    for part in (problem.train, problem.valid):
        assert set(part.labels.tolist()) == set(range(16))
        assert part.images.dtype == np.uint8


def test_metric_of_scores_is_wrong_where_the_network_is_right():
    problem = cp.cases.blood_cells(fault="metric_of_scores", num_images=8)
    scores = 10 * jax.nn.one_hot(np.array([0, 1, 2, 3]), 4)
    np.testing.assert_array_equal(problem.predict(scores), [2, 0, 0, 0])


@pytest.mark.parametrize(
    ("build", "choices", "message"),
    [
        (cp.cases.blood_cells, {"fault": "typo"}, "fault must be one of dropped_for_kept, .*, got 'typo'"),
        (cp.cases.stuck_at_a_third, {"summary": "C"}, "summary must be one of A, B, got 'C'"),
        (cp.cases.stuck_at_a_third, {"image_size": 51}, "image_size must be a whole number of at least 52, got 51"),
        (cp.cases.sixteen_classes, {"num_images": 5}, "num_images must be at least 16, got 5"),
        (cp.cases.resnet_digits, {"width": 0}, "width must be a whole number of at least 1, got 0"),
    ],
)
def test_bad_choices_are_refused(build, choices, message):
    with pytest.raises(ValueError, match=message):
        build(**choices)


OWN = ImageSet(
    Dataset(np.random.default_rng(0).random((90, 20, 24, 3), np.float32), np.repeat(np.arange(3), 30)),
    Dataset(np.zeros((9, 20, 24, 3), np.float32), np.arange(9) % 3),
    ("a", "b", "c"),
)


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (cp.cases.blood_cells, (32, 32, 1)),
        (cp.cases.checklist, (28, 28, 1)),
        (cp.cases.resnet_digits, (28, 28, 1)),
        (cp.cases.sixteen_classes, (32, 32, 3)),
        (cp.cases.stuck_at_a_third, (56, 56, 3)),
    ],
)
def test_images_of_ones_own_are_brought_to_the_cases_shape(build, shape):
    problem = build(data=OWN, num_images=60)
    assert (problem.train.images.shape, problem.train.images.dtype) == ((60, *shape), np.uint8)
    assert set(problem.train.labels.tolist()) == {0, 1, 2}
    params, _ = jax.eval_shape(problem.model.init, jax.random.key(0), problem.preprocess(problem.train.images[:2]))
    assert params["head"]["kernel"].shape[-1] == problem.num_classes == 3


def test_images_of_ones_own_need_a_part_to_validate():
    with pytest.raises(ValueError, match=r"data\.valid must hold images, got None"):
        cp.cases.blood_cells(data=OWN._replace(valid=None))
