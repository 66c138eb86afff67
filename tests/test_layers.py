"""The order of the layers: an import may point to an earlier one, or to its own."""

import ast
from pathlib import Path

import pytest

import cnnprobe

ROOT = Path(cnnprobe.__file__).parent
ORDER = (
    ("types", "checks", "compiling", "texts", "trees"),
    ("probes",),
    ("tracing",),
    ("data", "models"),
    ("cases",),
    ("training",),
    ("doctor",),
    ("reporting",),
)
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return {module.split(".")[1] for module in modules if module.startswith("cnnprobe.")}


FILES = [path for path in sorted(ROOT.rglob("*.py")) if path.parent != ROOT or part_of(path) in LEVEL]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path):
    assert all(LEVEL[part] <= LEVEL[part_of(path)] for part in imported_parts(path))


def test_reporting_alone_writes_files():
    writers = ("write_text", "write_bytes", 'open("w', "savez")
    guilty = [
        p for p in FILES if part_of(p) in ("probes", "tracing", "doctor") and any(w in p.read_text() for w in writers)
    ]
    assert guilty == []
