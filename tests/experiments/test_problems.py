import numpy as np
import pytest

from cnnprobe.types import Problem
from experiments import problem_flags
from experiments.faults import raw_pixels
from experiments.problems import MODELS, OPTIMIZERS, build_problem, call_problem, cross_entropy, scale_pixels

MODULE = """
from experiments.problems import build_problem
def mine(): return build_problem(num_images=30, batch_size=7)[0]
def nothing(): return 3
def broken(): return [][0]
number = 3
"""


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """A module of the user's in the working directory."""
    (tmp_path / "user_module_of_test.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    return "user_module_of_test"


def test_flags_offer_what_can_be_built():
    assert tuple(MODELS) == problem_flags.MODELS
    assert tuple(OPTIMIZERS) == problem_flags.OPTIMIZERS


def test_the_default_problem_is_healthy_and_whole():
    problem, class_names = build_problem()
    assert len(problem.train.images) == 3000
    assert problem.num_classes == len(class_names) == 10


def test_choices_reach_the_problem():
    problem, _ = build_problem(dataset="textures", num_images=30, batch_size=8, num_epochs=2, seed=4)
    assert (len(problem.train.images), problem.batch_size, problem.num_epochs, problem.seed) == (30, 8, 2, 4)


def test_a_file_takes_the_place_of_the_data_set(tmp_path):
    np.savez(tmp_path / "mine.npz", images=np.zeros((20, 8, 8)), labels=np.arange(20) % 3)
    problem, _ = build_problem(npz=str(tmp_path / "mine.npz"))
    assert (problem.num_classes, problem.train.images.shape) == (3, (16, 8, 8, 1))


def test_the_fault_is_planted():
    images = np.ones((1, 8, 8, 1), np.float32)
    healthy, sick = build_problem(num_images=30)[0], build_problem(num_images=30, fault="raw_pixels")[0]
    np.testing.assert_array_equal(sick.preprocess(images), raw_pixels(healthy).preprocess(images))


def test_cross_entropy_of_a_uniform_guess():
    np.testing.assert_allclose(cross_entropy(np.zeros((4, 10)), np.arange(4)), np.log(10), rtol=1e-6)


@pytest.mark.parametrize(
    ("images", "expected"), [(np.uint8([255]), 1.0), (np.float32([0.5]), 0.5), (np.float32([9]), 9)]
)
def test_only_bytes_are_scaled(images, expected):
    assert scale_pixels(images)[0] == expected


def test_a_function_of_the_users_gives_the_problem(user_module, capsys):
    problem, _ = build_problem(problem=f"{user_module}:mine")
    assert isinstance(problem, Problem)
    assert problem.batch_size == 7
    assert "running your code: mine() of user_module_of_test" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{}", "problem must be module:function, got"),
        ("{}:", "problem must be module:function, got"),
        ("{}:absent", "problem must name a function of user_module_of_test, got"),
        ("{}:number", "problem must name a function of user_module_of_test, got"),
        ("{}:nothing", r"nothing must return a cnnprobe\.Problem, got int"),
    ],
)
def test_a_wrong_name_says_what_is_wrong(name, message, user_module):
    with pytest.raises(ValueError, match=message):
        call_problem(name.format(user_module))


def test_a_function_that_fails_is_no_bad_input(user_module):
    with pytest.raises(RuntimeError, match=r"broken raised IndexError: list index out of range"):
        call_problem(f"{user_module}:broken")
