"""A page that tells the story of an experiment: text, tables and pictures, for a browser and for the docs."""

import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cnnprobe.checks import check_file_name
from cnnprobe.reporting.html import make_environment
from cnnprobe.reporting.jsonfile import write_atomically
from cnnprobe.reporting.plots import figure_to_svg, write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 130  # of the picture files


class Picture(NamedTuple):
    """A figure with its words."""

    name: str  # of its file, without an ending; letters, digits and hyphens
    figure: "Figure"
    caption: str


class Grid(NamedTuple):
    """A table of texts; the first column names the row."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Section(NamedTuple):
    """One part of a story, shown in the order of its fields."""

    title: str
    text: tuple[str, ...] = ()  # paragraphs
    grid: Grid | None = None
    pictures: tuple[Picture, ...] = ()
    code: str = ""  # shown as it is, in letters of one width


class Page(NamedTuple):
    """A story from the question to the answer."""

    title: str
    question: str
    verdict: str  # the answer in one or two sentences
    tone: str  # "faulty", "healthy" or "": the colour of the answer
    sections: tuple[Section, ...]
    command: str  # that makes this page


def render_page(page: Page) -> str:
    """The page as a complete HTML document that asks for nothing from the network; all texts are escaped.

    Raises:
      ImportError: jinja2 or matplotlib is missing; the message says what to install.
    """
    template = make_environment().get_template("page.html")
    return template.render(page=page, svg=_svg, version=version("cnnprobe"))


def render_markdown(page: Page, *, folder: str) -> str:
    """The page as Markdown, with its pictures as files of `folder`, a path relative to the text."""
    return "\n\n".join(_markdown(page, folder)) + "\n"


def write_page(page: Page, directory: str | os.PathLike[str], *, name: str = "case") -> Path:
    """Writes `<name>.html` and every picture as a file into `directory`, and gives the path of the page.

    Raises:
      ValueError: a name is not one of letters, digits, `-` and `_`.
      OSError: the folder cannot be written.
      ImportError: the page needs the extra `report`.
    """
    check_file_name("name", name)
    path = write_atomically(Path(directory) / f"{name}.html", render_page(page))
    write_pictures(page, directory)
    return path


def write_pictures(page: Page, directory: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Writes every picture of a page as `<its name>.png`, and gives the paths.

    Raises:
      ValueError: a name is not one of letters, digits, `-` and `_`, so that the file might lie elsewhere.
      OSError: the folder cannot be written.
    """
    pictures = pictures_of(page)
    for picture in pictures:
        check_file_name("name of a picture", picture.name)
    return tuple(write_figure(picture.figure, Path(directory) / f"{picture.name}.png", dpi=DPI) for picture in pictures)


def pictures_of(page: Page) -> tuple[Picture, ...]:
    """All pictures in order."""
    return tuple(picture for section in page.sections for picture in section.pictures)


def _svg(picture: Picture) -> Any:
    """A figure that the template does not escape."""
    from markupsafe import Markup

    return Markup(figure_to_svg(picture.figure, name=picture.name, label=picture.caption))


def _markdown(page: Page, folder: str) -> Iterator[str]:
    """The blocks of the page."""
    yield f"## {page.title}"
    yield page.question
    yield f"```\n{page.command}\n```"
    yield f"**{page.verdict}**"
    for section in page.sections:
        yield f"### {section.title}"
        yield from section.text
        if section.grid is not None:
            yield grid_markdown(section.grid)
        for picture in section.pictures:
            yield f"![{picture.caption}]({folder}/{picture.name}.png)"
            yield f"*{picture.caption}*"
        if section.code:
            yield f"```\n{section.code}\n```"


def grid_markdown(grid: Grid) -> str:
    r"""A table as Markdown.

    >>> print(grid_markdown(Grid(("a", "b"), (("1", "x|y"),))))
    | a | b |
    |---|---|
    | 1 | x\|y |
    """
    rows = [grid.header, *grid.rows]
    lines = ["| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(grid.header) + "|", *lines[1:]])
