"""What is installed where there is no checkout."""

import fnmatch
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = (
    "cnnprobe/py.typed",
    "cnnprobe/doctor/bands.json",
    "cnnprobe/data/bundled/fashion_mnist.npz",
    "cnnprobe/data/bundled/textures.npz",
    "cnnprobe/data/bundled/NOTICE",
    "cnnprobe/reporting/templates/report.html",
    "cnnprobe/reporting/templates/report.css",
    "cnnprobe/reporting/templates/report.js",
    "cnnprobe/__main__.py",
    "experiments/demo.py",
)


def test_every_file_that_is_no_program_is_named_as_package_data():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = tools["package-data"]["cnnprobe"]
    files = [path for path in (ROOT / "cnnprobe").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    names = [path.relative_to(ROOT / "cnnprobe").as_posix() for path in files]
    assert [name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)] == []


@pytest.mark.slow
def test_the_wheel_holds_what_the_demo_needs(tmp_path):
    source = tmp_path / "source"  # setuptools leaves a folder `build` beside what it packs
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "dist", "tests", "docs", "*.egg-info"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, timeout=300)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert [name for name in NEEDED if name not in names] == []
    assert not [name for name in names if name.startswith(("tests/", "docs/", "site_pages/"))]
