"""What an import does not load, and that every name of the table of contents is there all the same."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cnnprobe

NAMES = dir(cnnprobe)
SCRIPT = "import sys; {}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"


def loaded_by(statement):
    """Top-level packages that a fresh Python holds after a statement."""
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(statement)], capture_output=True, text=True, timeout=120
    )
    return set(ended.stdout.split())


def test_import_loads_nothing_heavy():
    assert loaded_by("import cnnprobe").isdisjoint({"jax", "flax", "optax", "numpy", "matplotlib", "scipy"})


def test_training_loads_no_drawing_and_no_other_library():
    assert loaded_by("from cnnprobe import fit, value_and_grad").isdisjoint(
        {"matplotlib", "keras", "haiku", "equinox", "orbax", "scipy.special", "sklearn", "jinja2"}
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there(name):
    assert getattr(cnnprobe, name).__name__.split(".")[-1] == name


def test_the_table_is_whole():
    tree = ast.parse(Path(cnnprobe.__file__).read_text())
    aliases = [alias for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    own = {"import_module", "TYPE_CHECKING", "Any", "chapters"}  # what the page itself needs
    assert {alias.name for alias in aliases} == set(NAMES) | own


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'cnnprobe' has no attribute 'diagnoze'"):
        cnnprobe.diagnoze  # noqa: B018
