"""The table of contents of the package, read from the text of its first page: nothing is imported to read it."""

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]  # of the folder that holds the package


class Entry(NamedTuple):
    """One public name."""

    name: str
    module: str  # that it is imported from; of a module, its own
    is_module: bool


class Chapter(NamedTuple):
    """Public names that belong together."""

    title: str
    entries: tuple[Entry, ...]


class Definition(NamedTuple):
    """Where a name is defined."""

    node: ast.FunctionDef | ast.ClassDef
    source: str  # of the whole file


@cache
def chapters() -> tuple[Chapter, ...]:
    """The public names, under the comments that stand above them in `cnnprobe/__init__.py`."""
    text = _path("cnnprobe").read_text(encoding="utf-8")
    block = next(node for node in ast.parse(text).body if isinstance(node, ast.If))
    titles = {n: line.strip(" #.") for n, line in enumerate(text.splitlines(), 1) if line.startswith("    # ")}
    found: dict[str, list[Entry]] = {title: [] for title in titles.values()}
    for node in block.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            title = titles[max(n for n in titles if n < node.lineno)]
            found[title] += [_entry(node.module, alias.name) for alias in node.names]
    return tuple(Chapter(title, tuple(entries)) for title, entries in found.items())


def summary(entry: Entry) -> str:
    """The first sentence of a name's docstring, in one line."""
    if entry.is_module:
        text = ast.get_docstring(ast.parse(_path(entry.module).read_text(encoding="utf-8")))
    else:
        text = ast.get_docstring(find_definition(entry.module, entry.name).node)
    return " ".join((text or "").split("\n\n")[0].split())


def find_definition(module: str, name: str) -> Definition:
    """The function or class `name`, where `module` or what it imports from defines it.

    Raises:
      LookupError: there is none.
    """
    source = _path(module).read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return Definition(node, source)
        if isinstance(node, ast.ImportFrom) and node.module and any(alias.name == name for alias in node.names):
            return find_definition(node.module, name)
    raise LookupError(f"{module} must define {name}, but does not.")


def public_functions(module: str) -> tuple[Entry, ...]:
    """What a public module holds: its own functions; of a package, what its first page imports."""
    found = []
    for node in ast.parse(_path(module).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            found.append(Entry(node.name, module, False))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{module}."):
            found += [Entry(alias.name, node.module or "", False) for alias in node.names]
    return tuple(found)


def _entry(module: str, name: str) -> Entry:
    """What `from module import name` gives."""
    is_module = _path(f"{module}.{name}").exists()
    return Entry(name, f"{module}.{name}" if is_module else module, is_module)


def _path(module: str) -> Path:
    """The file of a module or package of ours."""
    place = ROOT.joinpath(*module.split("."))
    package = place / "__init__.py"
    return package if package.exists() else place.with_suffix(".py")
