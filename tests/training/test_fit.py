import itertools
import json

import chex
import jax
import numpy as np
import pytest

from cnnprobe.data.streaming import grain_batches
from cnnprobe.training import journal
from cnnprobe.training.fit import fit
from cnnprobe.training.journal import read_log


def noisy(key, images):
    return images + 0.1 * jax.random.normal(key, images.shape)


def lines(directory, kind):
    return [record for record in read_log(directory / "readings.jsonl") if record["kind"] == kind]


def stopping(problem, num_batches):
    """The problem with a `preprocess` that raises at its `num_batches`-th call."""
    calls = itertools.count()

    def preprocess(images):
        if next(calls) == num_batches:
            raise KeyboardInterrupt
        return images

    return problem._replace(preprocess=preprocess, preprocess_valid=lambda images: images)


def assert_same(first, second):
    chex.assert_trees_all_equal(first.params, second.params)
    for part in ("train", "valid"):
        chex.assert_trees_all_equal(getattr(first, part), getattr(second, part))


@pytest.fixture
def problem(problem):
    return problem._replace(augment=noisy)


def test_learns_what_is_separable(problem):
    history = fit(problem, progress=False, num_epochs=20)
    assert history.train["accuracy"][-1] > 0.9
    assert history.valid["accuracy"][-1] > history.valid["accuracy"][0]


def test_history_has_one_entry_for_each_epoch(problem):
    history = fit(problem, progress=False)
    assert history.num_steps == 12
    assert {name: len(curve) for name, curve in history.train.items()} == {"loss": 2, "accuracy": 2}
    assert {name: len(curve) for name, curve in history.valid.items()} == {
        "loss": 2,
        "accuracy": 2,
        "balanced_accuracy": 2,
    }


def test_without_validation_images_there_are_no_curves_of_them(problem):
    assert fit(problem._replace(valid=None), progress=False, num_epochs=1).valid == {}


def test_without_directory_nothing_is_written(problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(problem, progress=False, num_epochs=1)
    assert list(tmp_path.iterdir()) == []


def test_directory_does_not_change_training(problem, tmp_path):
    assert_same(fit(problem, progress=False, directory=tmp_path), fit(problem, progress=False))


def test_every_step_and_epoch_is_logged_once(problem, tmp_path):
    history = fit(problem, progress=False, directory=tmp_path)
    steps, epochs = lines(tmp_path, "step"), lines(tmp_path, "epoch")
    assert [record["step"] for record in steps] == list(range(12))
    np.testing.assert_array_equal([record["valid"]["loss"] for record in epochs], history.valid["loss"])
    np.testing.assert_array_equal(np.mean([record["loss"] for record in steps[6:]]), history.train["loss"][1])


def test_log_names_its_columns(problem, tmp_path):
    fit(problem, progress=False, directory=tmp_path, num_epochs=1)
    header, first = read_log(tmp_path / "readings.jsonl")[:2]
    assert header["parameters"] == ["dense/bias", "dense/kernel"]
    assert np.shape(first["probes"]["layers"]) == (len(header["layers"]), 2)


@pytest.mark.parametrize("num_done", [1, 2, 5, 6, 7, 11])
def test_run_stopped_at_any_step_is_resumed_exactly(problem, tmp_path, num_done):
    whole = fit(problem, progress=False)
    with pytest.raises(KeyboardInterrupt):
        fit(stopping(problem, num_done + 1), progress=False, directory=tmp_path, checkpoint_every=2)
    resumed = fit(problem, progress=False, directory=tmp_path, checkpoint_every=2)
    assert_same(resumed, whole)
    assert [record["step"] for record in lines(tmp_path, "step")] == list(range(12))


def test_run_stopped_twice_is_resumed_exactly(problem, tmp_path):
    for num_done in (4, 3):
        with pytest.raises(KeyboardInterrupt):
            fit(stopping(problem, num_done), progress=False, directory=tmp_path, checkpoint_every=1)
    resumed = fit(problem, progress=False, directory=tmp_path)
    assert_same(resumed, fit(problem, progress=False))
    assert [record["step"] for record in lines(tmp_path, "step")] == list(range(12))


def test_log_cut_within_a_line_is_mended(problem, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(stopping(problem, 10), progress=False, directory=tmp_path)
    log = tmp_path / "readings.jsonl"
    log.write_text(log.read_text()[:-20])
    assert_same(fit(problem, progress=False, directory=tmp_path), fit(problem, progress=False))
    assert [record["step"] for record in lines(tmp_path, "step")] == list(range(12))


def test_run_that_met_a_full_disk_is_resumed_exactly(problem, tmp_path, monkeypatch):
    calls, real = itertools.count(), journal.append_bytes

    def fill(file, data):
        if next(calls) == 10:
            raise OSError("readings.jsonl cannot be written: No space left on device.")
        real(file, data)

    with monkeypatch.context() as full:
        full.setattr(journal, "append_bytes", fill)
        with pytest.raises(OSError, match="No space left on device"):
            fit(problem, progress=False, directory=tmp_path)
    assert_same(fit(problem, progress=False, directory=tmp_path), fit(problem, progress=False))
    assert [record["step"] for record in lines(tmp_path, "step")] == list(range(12))


def test_finished_run_is_returned_as_it_is(problem, tmp_path):
    first = fit(problem, progress=False, directory=tmp_path)
    text = (tmp_path / "readings.jsonl").read_text()
    assert_same(fit(problem, progress=False, directory=tmp_path), first)
    assert (tmp_path / "readings.jsonl").read_text() == text


def test_run_can_be_made_longer(problem, tmp_path):
    fit(problem, progress=False, directory=tmp_path, num_epochs=1)
    longer = fit(problem, progress=False, directory=tmp_path, num_epochs=3)
    assert_same(longer, fit(problem, progress=False, num_epochs=3))


def test_probes_are_logged_as_often_as_asked(problem, tmp_path):
    probes = {"largest": lambda seen: abs(seen.outputs).max()}
    fit(problem, progress=False, directory=tmp_path, num_epochs=1, probes=probes, probe_every=4)
    assert [set(record["probes"]) for record in lines(tmp_path, "step")] == [
        {"largest"},
        *[set()] * 3,
        {"largest"},
        set(),
    ]


def test_layers_are_logged_as_often_as_asked(problem, tmp_path):
    fit(problem, progress=False, directory=tmp_path, num_epochs=1, tap_every=4)
    taps = [record["taps"] for record in lines(tmp_path, "step")]
    assert [set(layers) for layers in taps] == [{"dense"}, *[set()] * 3, {"dense"}, set()]
    assert taps[0]["dense"]["num_activations"] == 8 * 3


def test_without_taps_training_is_the_same(problem):
    np.testing.assert_allclose(
        fit(problem, progress=False, tap_every=None).train["loss"],
        fit(problem, progress=False).train["loss"],
        rtol=1e-5,
    )


def test_tap_every_is_a_whole_number(problem):
    with pytest.raises(ValueError, match="tap_every must be a whole number of at least 1, got 0"):
        fit(problem, tap_every=0)


def test_loader_of_the_users_own_trains(problem):
    def batches(epoch):
        return [(problem.train.images[:5], problem.train.labels[:5])] * (epoch + 1)

    assert fit(problem._replace(batches=batches), progress=False).num_steps == 3


def test_loader_without_batches_is_refused(problem):
    with pytest.raises(ValueError, match="batches must yield at least one batch an epoch, got none in epoch 1"):
        fit(problem._replace(batches=lambda epoch: [problem.train] * (1 - epoch)), progress=False)


def test_diverged_run_is_logged_as_strict_json(problem, tmp_path):
    problem = problem._replace(
        preprocess=lambda images: images * np.float32("nan"), preprocess_valid=lambda images: images
    )
    history = fit(problem, progress=False, directory=tmp_path, num_epochs=1)
    assert np.isnan(history.train["loss"]).all()
    for line in (tmp_path / "readings.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_bar_is_shown(problem, capsys):
    fit(problem, num_epochs=1)
    assert "6/6" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["num_epochs", "probe_every", "checkpoint_every"])
def test_bad_numbers_are_refused(problem, name):
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, got 0"):
        fit(problem, **{name: 0})


def test_malformed_problem_is_refused(problem):
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got 0"):
        fit(problem._replace(batch_size=0))


@pytest.fixture
def overfitting(problem):
    """What is learnt is wrong on the validation images from the first epoch on."""
    valid = problem.valid._replace(labels=(problem.valid.labels + 1) % 3)
    return problem._replace(valid=valid, num_epochs=6)


def test_patience_ends_the_training_and_gives_back_the_best(overfitting):
    history = fit(overfitting, progress=False, patience=2)
    assert (len(history.valid["loss"]), history.num_steps) == (3, 18)
    chex.assert_trees_all_equal(history.params, fit(overfitting, progress=False, num_epochs=1).params)


def test_patience_that_lasts_changes_nothing(problem):
    assert_same(fit(problem, progress=False, patience=2), fit(problem, progress=False))


@pytest.mark.parametrize("num_done", [4, 8, 14])
def test_a_run_with_patience_is_resumed_exactly(overfitting, tmp_path, num_done):
    whole = fit(overfitting, progress=False, patience=2)
    with pytest.raises(KeyboardInterrupt):
        fit(stopping(overfitting, num_done), progress=False, directory=tmp_path, patience=2)
    for _ in range(2):  # the second one only reads
        assert_same(fit(overfitting, progress=False, directory=tmp_path, patience=2), whole)


def test_a_run_with_patience_can_be_given_more(overfitting, tmp_path):
    fit(overfitting, progress=False, directory=tmp_path, patience=1)
    longer = fit(overfitting, progress=False, directory=tmp_path, patience=3)
    assert_same(longer, fit(overfitting, progress=False, patience=3))


def test_patience_needs_validation_images(problem):
    with pytest.raises(ValueError, match=r"patience must be None where problem\.valid is None, got 3"):
        fit(problem._replace(valid=None), patience=3)


def test_a_checkpoint_that_was_cut_costs_no_more_than_its_steps(problem, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(stopping(problem, 10), progress=False, directory=tmp_path, checkpoint_every=2)
    newest = max((tmp_path / "checkpoints").iterdir(), key=lambda path: int(path.name))
    for path in newest.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match=f"the checkpoint of step {newest.name} in .* cannot be read"):
        resumed = fit(problem, progress=False, directory=tmp_path)
    assert_same(resumed, fit(problem, progress=False))
    assert [record["step"] for record in lines(tmp_path, "step")] == list(range(12))


@pytest.mark.parametrize("num_done", [3, 8])
def test_a_run_fed_by_grain_is_resumed_exactly(problem, tmp_path, num_done):
    pytest.importorskip("grain")
    read = grain_batches(problem.train, batch_size=8, num_threads=2)
    count = itertools.count()

    def breaking(epoch):
        for batch in read(epoch):
            if next(count) == num_done:
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        fit(problem._replace(batches=breaking), progress=False, directory=tmp_path, checkpoint_every=2)
    resumed = fit(problem._replace(batches=read), progress=False, directory=tmp_path, checkpoint_every=2)
    assert_same(resumed, fit(problem._replace(batches=read), progress=False))
