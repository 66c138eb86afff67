import json
import math

import numpy as np
import pytest
from flax import linen as nn

from cnnprobe.training.cadence import TAP_EVERY
from experiments import benchmark_overhead
from experiments.overhead import names, networks, tables, timing
from experiments.overhead.timing import Row, Runner


class TinyNet(nn.Module):
    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(10)(nn.relu(nn.Conv(4, (3, 3))(images)).mean((1, 2)))


@pytest.fixture
def tiny(monkeypatch):
    """The benchmark of one network that compiles at once."""
    monkeypatch.setitem(networks.NETWORKS, "plain", networks.Network(TinyNet(), (8, 8, 1), 4))
    monkeypatch.setattr(timing, "NUM_COMPILATIONS", 1)
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 0.0)


def steady(read, between):
    """A runner of known times."""
    return Runner(lambda is_read: np.array(2 * [read if is_read else between]), compile_seconds=2.0, num_bytes=10.0)


def test_every_baseline_is_a_method_and_reads_nothing():
    assert {names.METHODS[title.baseline].every for title in names.METHODS.values()} == {1}
    assert {title.baseline for title in names.METHODS.values()} == {"bare", "pools", names.TORCH}


ROW = Row("plain", 1, "forward", 0.11, 1.02, 1.01, 1.04, 1.03, 1.02, 1.05, 0.108, 3.0, 1.2, 110.0, 1.1)


def test_names_are_those_of_what_is_built():
    assert set(names.NETWORKS) == set(networks.NETWORKS)
    assert names.CADENCE == TAP_EVERY


@pytest.mark.parametrize(("method", "ratio"), [("forward", 1.6), ("cadence", (1.6 + 15 * 1.1) / 16)])
def test_a_ratio_counts_each_kind_of_step_as_often_as_it_comes(method, ratio):
    runners = {method: steady(1.6, 1.1), "pools baseline": steady(1.0, 1.0)}
    (row,) = timing.compare("plain", 1, runners, num_rounds=3)
    assert row.ratio == pytest.approx(ratio)
    assert (row.compile_ratio, row.memory_ratio) == (1.0, 1.0)


def test_methods_train(tiny):
    methods = ["pools", "everything", "cadence", "capture", "callback"]
    result = benchmark_overhead.run(networks=["plain"], probes=methods, rounds=1)
    assert [row.method for row in result.rows] == methods
    assert all(row.ratio > 0 and row.memory_ratio > 0 for row in result.rows)


def test_without_torch_its_methods_are_named(tiny, monkeypatch):
    monkeypatch.setattr(benchmark_overhead, "_has_torch", lambda: False)
    result = benchmark_overhead.run(networks=["plain"], probes=["bare", "torch_usual"], rounds=1)
    assert [row.method for row in result.rows] == ["bare"]
    assert "pip install torch" in result.left_out["torch_usual"]


def test_tables_and_picture_are_written(tmp_path):
    rows = [ROW, ROW._replace(devices=8, ratio=1.03), ROW._replace(method="torch", compile_ratio=math.nan)]
    tables.write_rows(rows, {"cores": 2}, {"rounds": 3}, tmp_path)
    content = json.loads((tmp_path / "overhead.json").read_text())
    assert content["rows"][2]["compile_ratio"] is None
    assert {path.name for path in tmp_path.iterdir()} == {"overhead.json", "overhead.md", "overhead.png"}


def test_markdown_has_the_target_beside_the_figure():
    line = "| taps forward, every step (target 1.03) | 1.020 | 1.010 to 1.040 | 1.030 | 1.020 to 1.050 | 1.20 | 1.10 |"
    assert line in tables.markdown([ROW]).splitlines()


def test_scaling_stands_in_one_line_a_method():
    text = tables.scaling([ROW, ROW._replace(devices=8, ratio=1.05)])
    assert "| plain | taps forward, every step | 1.020, 1.030 | 1.050, 1.030 |" in text.splitlines()
    assert tables.scaling([ROW]) == ""


def test_missing_time_is_a_dash():
    assert tables.cells(ROW._replace(compile_ratio=math.nan))[5] == "-"
