import io
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnprobe.training.checkpoints import Position
from cnnprobe.training.journal import append_bytes, open_journal, read_log, to_json, to_number
from cnnprobe.training.step import init_state


@pytest.fixture
def state(problem):
    return init_state(problem, jax.random.key(0), problem.train.images)


def at(state, num_steps):
    return state._replace(step=jnp.int32(num_steps), params=jax.tree.map(lambda x: x + num_steps, state.params))


def opened(directory, state, *, resume=True):
    return open_journal(directory, state, resume=resume, header={"note": "test"})


def step_record(number):
    return {"kind": "step", "step": number, "epoch": 0}


def test_no_directory_leaves_nothing(tmp_path, monkeypatch, state):
    monkeypatch.chdir(tmp_path)
    with opened(None, state) as journal:
        journal.append(step_record(0))
        journal.save(state, Position(0, 1))
    assert list(tmp_path.iterdir()) == []


def test_new_run_begins_with_the_given_state(tmp_path, state):
    with opened(tmp_path / "run", state) as journal:
        assert (journal.state, journal.position, journal.records) == (state, Position(0, 0), [])
    assert read_log(tmp_path / "run" / "readings.jsonl") == [{"kind": "run", "note": "test"}]


def test_checkpoint_comes_back_bit_for_bit(tmp_path, state):
    with opened(tmp_path, state) as journal:
        journal.save(at(state, 3), Position(1, 2))
    with opened(tmp_path, state) as journal:
        restored, position = journal.state, journal.position
    as_numbers = [each._replace(key=jax.random.key_data(each.key)) for each in (restored, at(state, 3))]
    chex.assert_trees_all_equal(*as_numbers, strict=True)
    assert position == Position(1, 2)


def test_newest_checkpoint_counts_and_few_are_kept(tmp_path, state):
    with opened(tmp_path, state) as journal:
        for number in range(1, 6):
            journal.save(at(state, number), Position(0, number))
    with opened(tmp_path, state) as journal:
        assert journal.state.step == 5
    assert sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir()) == ["3", "4", "5"]


def test_lines_after_the_checkpoint_are_cut_off(tmp_path, state):
    with opened(tmp_path, state) as journal:
        for number in range(2):
            journal.append(step_record(number))
        journal.save(at(state, 2), Position(0, 2))
        journal.append(step_record(2))
        journal.append({"kind": "epoch", "epoch": 0})
    with opened(tmp_path, state) as journal:
        assert journal.records == [step_record(0), step_record(1)]
    assert read_log(tmp_path / "readings.jsonl")[1:] == [step_record(0), step_record(1)]


def test_line_is_on_the_disk_at_once(tmp_path, state):
    with opened(tmp_path, state) as journal:
        journal.append(step_record(0))
        assert read_log(tmp_path / "readings.jsonl")[-1] == step_record(0)


@pytest.mark.parametrize("tail", ['{"kind": "st', "\x00\x00", '{"kind": "step", "step": 1'])
def test_line_cut_short_ends_the_log(tmp_path, tail):
    path = tmp_path / "readings.jsonl"
    path.write_text(json.dumps(step_record(0)) + "\n" + tail)
    assert read_log(path) == [step_record(0)]


def test_array_without_entries_survives(tmp_path, state):
    state = state._replace(model_state={"none": jnp.zeros((0, 3)), "some": jnp.ones(2)})
    for _ in range(2):
        with opened(tmp_path, state) as journal:
            journal.save(at(state, 1), Position(0, 1))
    assert journal.state.model_state["none"].shape == (0, 3)


def test_run_that_is_not_to_be_resumed_is_left_alone(tmp_path, state):
    with opened(tmp_path, state):
        pass
    with pytest.raises(ValueError, match="directory must hold no run yet where resume is False, got"):
        opened(tmp_path, state, resume=False).__enter__()


def test_run_of_another_network_is_refused(tmp_path, state):
    with opened(tmp_path, state) as journal:
        journal.save(at(state, 1), Position(0, 1))
    other = state._replace(params={"dense": {**state.params["dense"], "bias": jnp.zeros(7)}})
    with pytest.raises(ValueError, match=r"dense/bias has shape \(3,\) and not \(7,\)"):
        opened(tmp_path, other).__enter__()


def test_run_of_another_optimizer_is_refused(tmp_path, problem, state):
    with opened(tmp_path, state) as journal:
        journal.save(at(state, 1), Position(0, 1))
    other = init_state(problem._replace(optimizer=optax.sgd(0.1)), jax.random.key(0), problem.train.images)
    with pytest.raises(ValueError, match="directory must hold a run of the same problem, got"):
        opened(tmp_path, other).__enter__()


def test_json_is_strict_and_keeps_numbers():
    values = [1.5, float("nan"), float("inf"), -float("inf"), float(np.float32(0.1))]
    text = json.dumps(to_json({"values": np.array(values)}), allow_nan=False)
    np.testing.assert_array_equal([to_number(x) for x in json.loads(text)["values"]], values)


def test_full_disk_is_named():
    with (
        open("/dev/full", "ab", buffering=0) as file,  # noqa: PTH123  # a path that is a device
        pytest.raises(OSError, match="/dev/full cannot be written: No space left on device"),
    ):
        append_bytes(file, b"line\n")


def test_what_is_written_in_parts_is_written_whole():
    class Slow(io.BytesIO):
        def write(self, data):
            return super().write(bytes(data[:3]))

    file = Slow()
    append_bytes(file, b"0123456789")
    assert file.getvalue() == b"0123456789"


def test_a_place_that_cannot_be_written_is_named(tmp_path, state):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"directory must be a folder that can be written, got .*file/run: "):
        opened(tmp_path / "file" / "run", state).__enter__()
