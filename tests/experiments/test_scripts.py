import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = (
    "diagnose",
    "train",
    "demo",
    "checklist",
    "learning_rate_range",
    "cross_validate",
    "benchmark_diagnosis",
    "calibrate",
    "reproduce_case",
    "benchmark_overhead",
    "benchmark_trials",
    "benchmark_data",
    "gallery",
    "watch",
)


def call(*arguments):
    """Runs python in the checkout as a user does."""
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_names_the_flags_and_loads_nothing_heavy(name):
    shown = call("-X", "importtime", "-m", f"experiments.{name}", "--help")
    assert f"experiments/{name}.py:" in shown.stdout
    assert not [line for line in shown.stderr.splitlines() if line.endswith((" jax", " numpy", " cnnprobe", " rich"))]


def test_scripts_live_in_one_process():
    imports = "; ".join(f"import experiments.{name}" for name in SCRIPTS)  # a flag that two define is an error
    ended = call("-c", imports)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset=none"], "error: dataset must be one of blood_cells, fashion_mnist, textures, or one that"),
        (["--images=a", "--npz=b"], "At most one of (images, npz, problem)"),
        (["--learning_rate=-1"], "error: flag --learning_rate=-1"),
        (["--typo=1"], "error: Unknown command line flag 'typo'"),
        (["stray"], "error: only flags are taken (see --help), got 'stray'"),
        (["--fault=typo"], "error: fault must be one of augmented_inside, biases_below_zero, blank_images"),
        (["--npz=absent.npz"], "error: path must name a file, got 'absent.npz'"),
        (["--problem=absent:build"], "error: No module named 'absent'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message):
    ended = call("-m", "experiments.diagnose", *arguments)
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("running your code")]
    assert ended.returncode == 2
    assert len(lines) == 1
    assert message in lines[0]


def test_a_program_that_breaks_shows_its_traceback_and_exit_code_3(tmp_path):
    (tmp_path / "broken_module_of_test.py").write_text("def build(): return [][0]")
    command = [sys.executable, "-m", "experiments.diagnose", "--problem=broken_module_of_test:build"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 3
    assert "IndexError: list index out of range" in ended.stderr
