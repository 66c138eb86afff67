import shutil
import warnings

import chex
import jax
import jax.numpy as jnp
import pytest

from cnnprobe.training.checkpoints import (
    Position,
    checkpoint_manager,
    load_best,
    restored,
    save_best,
    save_checkpoint,
)
from cnnprobe.training.step import init_state


@pytest.fixture
def state(problem):
    return init_state(problem, jax.random.key(0), problem.train.images)


def at(state, num_steps):
    return state._replace(step=jnp.int32(num_steps), params=jax.tree.map(lambda x: x + num_steps, state.params))


@pytest.fixture
def folder(tmp_path, state):
    """Two checkpoints, after one step and after two."""
    manager = checkpoint_manager(tmp_path / "run", 3)
    for number in (1, 2):
        save_checkpoint(manager, at(state, number), Position(0, number))
    manager.close()
    return tmp_path / "run"


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def read(folder, state):
    """What is restored, and what is said."""
    manager = checkpoint_manager(folder, 3)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found, position = restored(manager, state, folder)
    manager.close()
    return found, position, [str(warning.message) for warning in said if "checkpoint" in str(warning.message)]


@pytest.mark.parametrize("damage", [cut, empty, lambda path: path.unlink()])
def test_whatever_file_is_damaged_the_state_is_a_whole_one(folder, state, tmp_path, damage):
    steps = []
    for number, path in enumerate(path for path in sorted((folder / "2").rglob("*")) if path.is_file()):
        copy = shutil.copytree(folder, tmp_path / str(number))
        damage(copy / path.relative_to(folder))
        found, position, said = read(copy, state)
        chex.assert_trees_all_equal(found.params, at(state, int(found.step)).params)
        assert position == (0, int(found.step))
        assert len(said) == (found.step == 1)
        steps.append(int(found.step))
    assert 1 in steps


def test_a_broken_checkpoint_is_named_and_makes_room(folder, state):
    shutil.rmtree(folder / "2" / "default")
    _, _, said = read(folder, state)
    assert said[0].startswith(f"the checkpoint of step 2 in {folder} cannot be read and is removed, the run goes on")
    assert not (folder / "2").exists()


def test_where_none_can_be_read_it_is_said(folder, state):
    for number in ("1", "2"):
        shutil.rmtree(folder / number / "default")
    manager = checkpoint_manager(folder, 3)
    with pytest.raises(
        ValueError, match=r"directory must hold a checkpoint that can be read, .* none of 2 can \(step 2"
    ):
        restored(manager, state, folder)
    assert (folder / "1").exists()  # nothing is taken away from who may still mend it


def test_the_best_is_kept_alone(tmp_path, state):
    for number in (1, 2):
        save_best(tmp_path / "best", at(state, number), Position(number, 0))
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["2"]
    chex.assert_trees_all_equal(load_best(tmp_path / "best", 2, state).params, at(state, 2).params)


def test_a_best_that_is_lost_is_no_error(tmp_path, state):
    with pytest.warns(UserWarning, match="the parameters of the best epoch cannot be read from"):
        assert load_best(tmp_path / "best", 2, state) is None
