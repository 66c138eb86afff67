import jax
import pytest

from cnnprobe.training.fit import fit
from cnnprobe.training.journal import open_journal
from cnnprobe.training.locks import hold_folder
from cnnprobe.training.step import init_state


def test_a_folder_is_held_by_one_run_at_a_time(tmp_path):
    first = hold_folder(tmp_path)
    with pytest.raises(ValueError, match=r"directory must hold no run that is still going, got .*, where process"):
        hold_folder(tmp_path)
    first.close()
    hold_folder(tmp_path).close()


def test_a_second_fit_in_the_same_folder_is_refused_and_changes_nothing(problem, tmp_path):
    state = init_state(problem, jax.random.key(0), problem.train.images)
    with open_journal(tmp_path, state, resume=True, header={"note": "first"}):
        before = (tmp_path / "readings.jsonl").read_text()
        with pytest.raises(ValueError, match="directory must hold no run that is still going"):
            fit(problem, directory=tmp_path, progress=False)
        assert (tmp_path / "readings.jsonl").read_text() == before
    assert fit(problem, directory=tmp_path, progress=False).num_steps == 12
