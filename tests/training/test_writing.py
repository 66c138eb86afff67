import itertools

import jax
import numpy as np
import pytest

from cnnprobe.reporting.writers import csv_writer, jsonl_writer
from cnnprobe.training import fit as fit_module
from cnnprobe.training.evaluate import evaluate
from cnnprobe.training.fit import fit
from cnnprobe.training.journal import read_log
from cnnprobe.training.step import init_state
from cnnprobe.training.writing import confused_images, epoch_scalars, step_scalars, to_all
from cnnprobe.types import Writer

RECORD = {
    "kind": "step",
    "step": 3,
    "loss": 0.5,
    "accuracy": None,
    "prediction_counts": [6, 2],
    "probes": {
        "gradient_norm": 2.0,
        "layers": [[1.0, 2.0], [0.0, 0.25], [-3.0, "-inf"]],
        "own": {"a": 1, "b": "inf", "c": [1.0]},
        "text": "no number",
    },
    "taps": {"conv1": {"kind": "conv", "activation": None, "num_features": 8, "std": 0.5, "dead_share": float("nan")}},
}


def memory():
    """A writer that keeps what it is told, and the list in which it keeps it."""
    told = []

    def keep(kind):
        return lambda *arguments: told.append((kind, *arguments))

    return Writer("memory", *map(keep, ("begin", "scalars", "close", "histograms", "images"))), told


def failing(when):
    """A writer that fails when a function of it is called."""

    def fail(*_):
        raise OSError("the disk is full")

    return memory()[0]._replace(name="full", **{when: fail})


def scalars(told):
    return [call[1:] for call in told if call[0] == "scalars"]


def test_numbers_of_a_step_have_names():
    assert step_scalars(RECORD, ["bias", "kernel"]) == {
        "loss": 0.5,
        "accuracy": pytest.approx(float("nan"), nan_ok=True),
        "top_prediction_share": 0.75,
        "gradient_norm": 2.0,
        "gradient_norm/bias": 1.0,
        "gradient_norm/kernel": 2.0,
        "gradient_zero_share/bias": 0.0,
        "gradient_zero_share/kernel": 0.25,
        "log10_update_ratio/bias": -3.0,
        "log10_update_ratio/kernel": -float("inf"),
        "own/a": 1.0,
        "own/b": float("inf"),
        "activation_std/conv1": 0.5,
    }


@pytest.mark.parametrize("table", [[[1.0], [2.0, 3.0]], [], [1.0, 2.0, 3.0], {"x": [1.0]}])
def test_a_probe_of_the_users_own_may_be_called_layers(table):
    record = RECORD | {"probes": {"layers": table}, "taps": {}}
    assert set(step_scalars(record, ["bias", "kernel"])) == {"loss", "accuracy", "top_prediction_share"}


def test_scores_of_an_epoch_have_names():
    record = {"train": {"loss": 1.0}, "valid": {"loss": None, "balanced_accuracy": 0.5}}
    assert epoch_scalars(record) == {
        "train/loss": 1.0,
        "valid/loss": pytest.approx(float("nan"), nan_ok=True),
        "valid/balanced_accuracy": 0.5,
    }


def test_mistaken_images_are_those_that_were_stored(problem):
    state = init_state(problem, jax.random.key(0), problem.train.images)
    seen = evaluate(problem, state.params, state.model_state, problem.valid)
    wrong = {(t, p) for t, p in zip(problem.valid.labels, seen.predictions, strict=True) if t != p}
    images = confused_images(problem, seen)
    assert set(images) == {f"misclassified/{true}_as_{named}" for true, named in wrong}
    for name, image in images.items():
        index = next(i for i, x in enumerate(problem.valid.images) if np.array_equal(x, image))
        assert name == f"misclassified/{problem.valid.labels[index]}_as_{seen.predictions[index]}"


def test_a_run_tells_every_step_and_epoch_once(problem):
    writer, told = memory()
    history = fit(problem, progress=False, writers=writer)
    assert [kind for kind, *_ in told] == [
        "begin",
        *(["scalars"] * 7 + ["histograms", "images"]) * 2,
        "close",
    ]
    assert [step for step, _ in scalars(told)] == [*range(6), 5, *range(6, 12), 11]
    assert [values["valid/loss"] for step, values in scalars(told)[6::7]] == history.valid["loss"].tolist()


def test_histograms_are_of_the_parameters_after_the_epoch(problem):
    writer, told = memory()
    history = fit(problem, progress=False, num_epochs=1, writers=[writer])
    step, values = next(rest for kind, *rest in told if kind == "histograms")
    assert step == 5
    np.testing.assert_array_equal(values["parameters/dense/kernel"], history.params["dense"]["kernel"])


def test_writers_do_not_change_training(problem):
    with_writer = fit(problem, progress=False, writers=memory()[0])
    np.testing.assert_array_equal(with_writer.train["loss"], fit(problem, progress=False).train["loss"])


def test_a_step_is_written_after_the_next_one_was_dispatched(problem, monkeypatch):
    order, real = [], fit_module.make_steps

    def watched(*args, **kwargs):
        steps = real(*args, **kwargs)

        def step(state, *batch):
            order.append(f"step {len([word for word in order if word.startswith('step')])}")
            return steps.between(state, *batch)

        return steps._replace(tapped=step, between=step)

    monkeypatch.setattr(fit_module, "make_steps", watched)
    writer = memory()[0]._replace(write_scalars=lambda step, _: order.append(f"line {step}"))
    fit(problem, progress=False, num_epochs=1, writers=writer)
    assert order[:6] == ["step 0", "step 1", "line 0", "step 2", "line 1", "step 3"]
    assert order[-3:] == ["line 4", "line 5", "line 5"]  # the last step, then the epoch


def stopped(problem, num_done):
    """The problem, ended by its user after so many batches."""
    calls = itertools.count()

    def preprocess(images):
        if next(calls) == num_done + 1:
            raise KeyboardInterrupt
        return images

    return problem._replace(preprocess=preprocess, preprocess_valid=np.asarray)


@pytest.mark.parametrize("num_done", [3, 6])
def test_a_run_that_was_stopped_leaves_each_step_once(problem, tmp_path, num_done):
    writers = [csv_writer(tmp_path / "a.csv"), jsonl_writer(tmp_path / "a.jsonl")]
    with pytest.raises(KeyboardInterrupt):
        fit(stopped(problem, num_done), progress=False, directory=tmp_path, checkpoint_every=2, writers=writers)
    fit(problem, progress=False, directory=tmp_path, checkpoint_every=2, writers=writers)
    whole = [*range(6), 5, *range(6, 12), 11]  # each step, and each epoch in its last one
    assert [int(line.split(",")[0]) for line in (tmp_path / "a.csv").read_text().splitlines()[1:]] == whole
    assert [record["step"] for record in read_log(tmp_path / "a.jsonl")] == whole


@pytest.mark.parametrize("num_done", [1, 3, 5, 6, 9])
def test_a_run_that_goes_on_begins_where_its_checkpoint_is(problem, tmp_path, num_done):
    with pytest.raises(KeyboardInterrupt):
        fit(stopped(problem, num_done), progress=False, directory=tmp_path, checkpoint_every=2, writers=memory()[0])
    writer, told = memory()
    fit(problem, progress=False, directory=tmp_path, checkpoint_every=2, writers=writer)
    assert told[0] == ("begin", scalars(told)[0][0])
    assert 0 <= num_done - told[0][1] <= 2


def test_a_writer_that_fails_is_left_out_with_a_warning_and_the_run_goes_on(problem, tmp_path):
    writer, told = memory()
    with pytest.warns(UserWarning, match="full is left out from step 0 on: the disk is full"):
        history = fit(problem, progress=False, directory=tmp_path, writers=[failing("write_scalars"), writer])
    assert history.num_steps == 12
    assert len(scalars(told)) == 14
    assert len(read_log(tmp_path / "readings.jsonl")) == 15


@pytest.mark.parametrize("when", ["write_histograms", "write_images", "close"])
def test_whatever_fails_is_named(problem, when):
    with pytest.warns(UserWarning, match="full is left out .*: the disk is full"):
        assert fit(problem, progress=False, num_epochs=1, writers=failing(when)).num_steps == 6


def test_a_writer_that_cannot_begin_is_refused_before_training_and_the_others_are_closed(problem):
    writer, told = memory()
    with pytest.raises(OSError, match="the disk is full"):
        fit(problem, progress=False, writers=[writer, failing("begin")])
    assert told == [("begin", 0), ("close",)]


def test_what_is_no_writer_is_refused(problem):
    with pytest.raises(ValueError, match=r"writers must be such as cp.csv_writer makes, got 'scalars.csv'"):
        fit(problem, writers=["scalars.csv"])


def test_joined_writers_take_what_one_of_them_takes():
    numbers_only = memory()[0]._replace(write_histograms=None, write_images=None)
    joined = to_all(numbers_only, memory()[0]._replace(write_images=None))
    assert joined.write_histograms is not None
    assert joined.write_images is None


def test_joined_writers_can_begin_again():
    writer, told = memory()
    joined = to_all(writer, failing("write_scalars"))
    for step in (0, 5):
        joined.begin(step)
        with pytest.warns(UserWarning, match="full is left out"):
            joined.write_scalars(step, {"loss": 1.0})
        joined.close()
    assert [kind for kind, *_ in told] == ["begin", "scalars", "close"] * 2
