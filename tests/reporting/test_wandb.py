import sys

import numpy as np
import pytest

from cnnprobe.reporting.wandb import wandb_writer


def test_an_offline_run_is_written_where_asked(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))  # where its service keeps a log of its own
    writer = wandb_writer(tmp_path / "run")
    for begin in (0, 2):
        writer.begin(begin)
        writer.write_scalars(begin, {"loss": 1.5})
        writer.write_histograms(begin, {"kernel": np.arange(9.0), "none": np.array([np.nan])})
        writer.write_images(begin, {"misclassified/3_as_5": np.zeros((4, 4, 1), np.uint8)})
    writer.close()
    assert len(list(tmp_path.glob("run/wandb/offline-run-*/*.wandb"))) == 2
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "cache"}


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r'pip install "cnnprobe\[wandb\]"'):
        wandb_writer(tmp_path)
