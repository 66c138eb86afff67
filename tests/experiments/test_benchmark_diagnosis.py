import json

import jax
import numpy as np
import pytest

import cnnprobe
from cnnprobe.doctor.causes import CAUSES
from cnnprobe.types import History
from experiments import benchmark_diagnosis
from experiments.benchmark_diagnosis import Case, cases, chosen, run
from experiments.cli import BadInputError
from experiments.faults import EXPECTED, OWN_NETWORK
from experiments.networks import NETWORKS
from experiments.rows import read_rows

ROW = {"verdict": "healthy", "causes": [], "warnings": [], "accuracy": [0.5, 0.5], "remedied": None, "seconds": 1.0}


@pytest.fixture
def diagnosed(monkeypatch):
    """The cases that are run, none of them for real."""
    names = []

    def run_case(case, *, budget_seconds, seed):
        names.append(case.name)
        return {"case": case.name, **ROW}

    monkeypatch.setattr(benchmark_diagnosis, "run_case", run_case)
    return names


def test_splits_share_no_healthy_problem():
    healthy = [{case for case in cases(split) if case.kind == "healthy"} for split in ("held_out", "calibration")]
    assert healthy[0].isdisjoint(healthy[1])
    assert len(healthy[0]) >= 60


@pytest.mark.parametrize("cause", sorted({cause.id for cause in CAUSES}))
def test_every_cause_is_planted_in_three_networks_on_three_data_sets(cause):
    planted = [case for case in cases("all") if case.kind == "fault" and EXPECTED[case.variant] == cause]
    networks = {case.variant if case.variant in OWN_NETWORK else case.network for case in planted}
    assert len(networks) >= 3
    assert len({case.dataset for case in planted}) == 3


def test_each_fault_brings_its_healthy_twin():
    found = chosen("held_out", only="linen, fault, sum_loss", subset=None, seed=0)
    assert [case.kind for case in found] == ["healthy"] * 3 + ["fault"] * 3


def test_subset_is_the_same_for_the_same_seed():
    first, second = (chosen("all", only=None, subset=5, seed=1) for _ in range(2))
    assert first == second


def test_an_interrupted_benchmark_goes_on(tmp_path, diagnosed):
    run(output_dir=str(tmp_path), only="textures, linen, healthy, sgd")
    run(output_dir=str(tmp_path), only="textures, linen, healthy, s")
    lines = (tmp_path / "cases.jsonl").read_text().splitlines()
    assert [json.loads(line)["case"] for line in lines] == diagnosed
    assert len(set(diagnosed)) == len(diagnosed) > 1


def test_no_case_is_bad_input(tmp_path):
    with pytest.raises(BadInputError, match="only must be part of the name of a case, got 'typo'"):
        run(output_dir=str(tmp_path), only="typo")


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_take_all_three_data_sets(name):
    model, key = NETWORKS[name](4), jax.random.key(0)
    for size in (28, 32, 48):
        images = np.zeros((2, size, size, 1), np.float32)
        begun = jax.eval_shape(lambda x: model.init(key, x), images)
        outputs = jax.eval_shape(lambda p, s, x: model.apply(p, s, x, key=key, train=True)[0], *begun, images)
        assert outputs.shape == (2, 4)


@pytest.mark.slow
def test_one_planted_fault_is_scored_right():
    case = Case("fashion_mnist", "linen", "fault", "sum_loss")
    row = benchmark_diagnosis.run_case(case, budget_seconds=100.0, seed=3)
    assert (row["verdict"], row["causes"][:1]) == ("faulty", ["loss-summed-not-averaged"])
    assert min(row["remedied"]) > max(row["accuracy"]) + 0.1


def test_whole_trainings_are_of_fresh_seeds_and_by_the_users_own_metric(monkeypatch):
    seeds = []

    def fit(problem, **_):
        seeds.append(problem.seed)
        return History({}, {}, {}, {"balanced_accuracy": np.array([0.1, 0.2 * len(seeds)])}, 2)

    monkeypatch.setattr(cnnprobe, "fit", fit)
    problem = benchmark_diagnosis.healthy_problem(Case("textures", "plain", "healthy", "adam"), seed=1)
    assert benchmark_diagnosis.trained(problem) == pytest.approx([0.2, 0.4])
    assert seeds == [problem.seed + 11, problem.seed + 12]
    assert benchmark_diagnosis.trained(problem._replace(valid=None)) is None


def test_a_fault_that_stops_its_program_reaches_nothing_and_a_healthy_one_may_not(monkeypatch):
    def fit(problem, **_):
        raise TypeError("stopped")

    monkeypatch.setattr(cnnprobe, "fit", fit)
    problem = benchmark_diagnosis.healthy_problem(Case("textures", "plain", "healthy", "adam"), seed=1)
    assert benchmark_diagnosis.trained_if_it_runs(problem) == [0.0, 0.0]
    with pytest.raises(TypeError, match="stopped"):
        benchmark_diagnosis.trained(problem)


def test_a_benchmark_killed_within_a_line_goes_on(tmp_path, diagnosed):
    only = "textures, linen, healthy, s"
    run(output_dir=str(tmp_path), only=only)
    path = tmp_path / "cases.jsonl"
    path.write_text(path.read_text()[:-20])
    rows = run(output_dir=str(tmp_path), only=only)
    assert [row["case"] for row in read_rows(path)] == [row["case"] for row in rows] == list(dict.fromkeys(diagnosed))
