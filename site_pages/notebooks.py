"""Notebooks as pages: their text, their code, and what the code printed.

`python -m site_pages.notebooks docs/notebooks/*.ipynb` runs notebooks and stores what they print.
"""

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def notebook_page(path: Path) -> str:
    """A notebook as Markdown, with a link to the notebook itself."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    download = f"[Download this notebook]({path.name})"
    return "\n\n".join(["".join(cells[0]["source"]), download, *(_cell(cell) for cell in cells[1:])]) + "\n"


def run_notebook(path: Path) -> None:
    """Runs the code of a notebook from top to bottom and stores what it prints."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate((c for c in notebook["cells"] if c["cell_type"] == "code"), 1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), namespace)
        lines = printed.getvalue().splitlines(keepends=True)
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": lines}] if lines else []
        cell["execution_count"] = number
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(paths: Sequence[str]) -> None:
    """Runs each of the notebooks."""
    for path in paths:
        run_notebook(Path(path))


def _cell(cell: dict[str, Any]) -> str:
    """One cell."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    printed = "".join("".join(output.get("text", [])) for output in cell["outputs"])
    shown = f"\n\n```text\n{printed.rstrip()}\n```" if printed.strip() else ""
    return f"```python\n{source}\n```{shown}"


if __name__ == "__main__":
    main(sys.argv[1:])
