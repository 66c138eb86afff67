"""What mkdocs calls: adds the written pages to the site and to its navigation."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnprobe.contents import chapters
from cnnprobe.doctor.causes import CAUSES
from cnnprobe.reporting.formats import capitalised
from site_pages import causes, notebooks, reference

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def on_config(config: "MkDocsConfig") -> "MkDocsConfig":
    """Fills the chapters of the navigation that are named but empty."""
    written: dict[str, list] = {
        "Causes": ["causes/index.md", *({capitalised(x.title): f"causes/{x.id}.md"} for x in CAUSES)],
        "Reference": ["reference/index.md", *(f"reference/{reference.chapter_file(x)}" for x in chapters())],
        "Notebooks": [f"notebooks/{path.stem}.md" for path in NOTEBOOKS],
    }
    config.nav = [_filled(entry, written) for entry in config.nav or []]
    return config


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Adds the pages."""
    from mkdocs.structure.files import File

    for path, text in pages():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> Iterator[tuple[str, str]]:
    """Path and text of every page that is written."""
    yield "causes/index.md", causes.index_page()
    yield from ((f"causes/{cause.id}.md", causes.cause_page(cause)) for cause in CAUSES)
    yield "reference/index.md", reference.index_page()
    yield from ((f"reference/{reference.chapter_file(x)}", reference.chapter_page(x)) for x in chapters())
    yield from ((f"notebooks/{path.stem}.md", notebooks.notebook_page(path)) for path in NOTEBOOKS)
    yield "changelog.md", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def _filled(entry: Any, written: dict[str, list]) -> Any:
    """A chapter with its pages, if it is one of those that are written."""
    title = next(iter(entry), "") if isinstance(entry, dict) else ""
    return {title: written[title]} if title in written else entry
