import json

import jax
import numpy as np
import pytest

from experiments import benchmark_trials
from experiments.benchmark_trials import IN_TURN, TOGETHER, Way
from experiments.figures import make_figures, write_figures
from experiments.problems import build_problem


@pytest.fixture(scope="module")
def ways():
    problem, _ = build_problem(num_images=40, batch_size=8)
    return benchmark_trials.make_ways(problem._replace(train=benchmark_trials._prepared(problem)), 2, 3)


def test_all_ways_end_with_the_same_parameters(ways):
    in_turn, together = ways[IN_TURN].run(), ways[TOGETHER].run()
    for way in (ways[benchmark_trials.IN_THREADS].run(), [jax.tree.map(lambda x, i=i: x[i], together) for i in (0, 1)]):
        for one, other in zip(in_turn, way, strict=True):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), one.params, other.params)


def test_trials_differ_from_each_other(ways):
    first, second = (jax.tree.leaves(state.params)[-1] for state in ways[IN_TURN].run())
    assert not np.array_equal(first, second)


def test_a_row_is_held_against_one_after_the_other(monkeypatch, tmp_path):
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    takes = {IN_TURN: 1.0, TOGETHER: 1.5}
    ways = {name: Way(lambda s=s: clock.__setitem__(0, clock[0] + s), 3.0) for name, s in takes.items()}
    rows = benchmark_trials.compare("small_cnn", 2, ways, num_rounds=3)
    assert [row.ratio for row in rows] == [1.0, 1.5]
    figures = make_figures(benchmark_trials.HEADER, benchmark_trials.cells, rows, {"cores": 2})
    folder = write_figures(figures, tmp_path / "new", "trials")
    assert json.loads((folder / "trials.json").read_text())["rows"][1]["way"] == TOGETHER
    assert TOGETHER in (folder / "trials.md").read_text()
