"""Several devices give what one gives."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.training.fit import fit
from cnnprobe.training.parallel import data_mesh, local_copy, local_mesh, spread_batch, spread_state
from cnnprobe.types import Batch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def result():
    """What the script found with eight virtual devices."""
    command = [sys.executable, "-m", "tests.training.on_eight_devices"]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("what", ["parameters", "readings", "report"])
def test_a_step_on_eight_devices_equals_one_on_one(result, what):
    assert result["devices"] == 8
    assert result[what] < 1e-3


def test_nothing_is_gathered(result):
    assert result["has_collectives"]
    assert result["gathered"] == []


@pytest.mark.parametrize("what", ["losses", "final"])
def test_a_training_on_eight_devices_equals_one_on_one(result, what):
    assert result[what] < 1e-2


def test_a_diagnosis_on_eight_devices_finds_what_one_finds(result):
    assert result["verdicts"][0] == result["verdicts"][1]
    assert result["causes"][0] == result["causes"][1]
    assert result["curves"] < 1e-2


def test_one_device_in_a_mesh_changes_nothing(problem):
    alone, meshed = fit(problem, progress=False), fit(problem, progress=False, devices=jax.devices()[:1])
    np.testing.assert_allclose(meshed.train["loss"], alone.train["loss"], rtol=1e-6)


def test_a_state_comes_back_as_it_went():
    mesh = data_mesh(jax.devices()[:1])
    state = {"w": jnp.arange(3.0)}
    np.testing.assert_array_equal(local_copy(spread_state(state, mesh), mesh)["w"], state["w"])


def test_without_a_mesh_nothing_is_moved():
    batch = Batch(np.zeros((2, 1)), np.zeros(2))
    assert spread_batch(batch, data_mesh(None)) is batch


@pytest.mark.parametrize("devices", [[], ["cpu"], 2 * jax.devices()[:1]])
def test_devices_that_are_none_or_not_different(devices):
    with pytest.raises(ValueError, match="devices must be different devices of jax, one or more, got"):
        data_mesh(devices)


def test_rows_that_cannot_be_dealt_out_evenly():
    mesh = jax.sharding.AbstractMesh((2,), ("batch",))
    with pytest.raises(ValueError, match="batches must have a multiple of 2 images, one share for each device, got 3"):
        spread_batch(Batch(np.zeros((3, 1)), np.zeros(3)), mesh)


def test_rows_that_do_not_come_out_even_are_on_every_device(result):
    assert result["rows"] == {"32": 4, "30": 30}


def test_devices_of_another_process(monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with pytest.raises(ValueError, match="devices must belong to this process, got"):
        local_mesh(jax.devices()[:1])
