"""Names that a stranger chose: nothing of them is run, and no page, table or picture breaks on them."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import cnnprobe as cp
from cnnprobe.reporting import plots
from cnnprobe.reporting.console import render
from cnnprobe.reporting.page import Page, Picture, Section, render_page, write_page
from cnnprobe.reporting.story_plots import Answers, answers_figure, bars_figure
from tests.reporting.test_html import Balance

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</svg><script>alert(1)</script>",
    "font-family: x; fill: red",  # what the figures are restyled by
    'id="mine" href="#x" url(#y) #757677',
    "{{ 7 * 7 }}{% raw %}",
    r"$\frac{$",
    "[bold]no markup[/]",
    "\x1b[31mred\x07",
    "caf\ud800",  # half a character, as in a file name that is no UTF-8
    "a" * 500,
    "-->]]><!--",
    "",
)

GROUPS = ("".join(HOSTILE[:6]), "".join(HOSTILE[6:10]), HOSTILE[10] + HOSTILE[11], "")  # a page takes a second


def named(diagnosis, name):
    """The diagnosis with a name wherever the user's program gives one."""
    finding = diagnosis.findings[0]
    evidence = finding.evidence._replace(sentence=name, readings=(finding.evidence.readings[0]._replace(name=name),))
    trial = finding.trial._replace(metric=name)
    return diagnosis._replace(
        verdict=name,
        summary=name,
        findings=(finding._replace(title=name, evidence=evidence, advice=name, snippet=name, trial=trial),),
        layers=tuple(layer._replace(name=f"{name}{i}", kind=name) for i, layer in enumerate(diagnosis.layers)),
        graph=tuple(row._replace(name=f"{name}{i}", kind=name, steps=(name,)) for i, row in enumerate(diagnosis.graph)),
        class_names=tuple(f"{name}{i}" for i in range(10)),
        facts={name: name},
        untried=(name,),
    )


@pytest.mark.filterwarnings("ignore:Glyph")  # matplotlib has no picture of a control character
@pytest.mark.parametrize("name", GROUPS)
def test_a_report_holds_names_as_text_only(faulty, name, tmp_path):
    path = cp.write_report(named(faulty, name), tmp_path)
    page = Balance(path.read_text())
    assert not page.wrong + page.open
    assert path.read_text().count("<script") == 1  # our own
    assert all(link.startswith(("#", "data:")) for link in page.links)


@pytest.mark.parametrize("name", HOSTILE)
def test_the_terminal_shows_names_as_they_are(faulty, name):
    text = render(named(faulty, name), width=100)
    assert "\x1b" not in text
    assert "49" not in re.findall(r"\b49\b", text)
    assert ("[bold]" in name) == ("[bold]no markup[/]" in text)


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", [name for name in HOSTILE if name.isprintable()])
def test_figures_show_names_as_they_are(faulty, name):
    names = tuple(f"{name[:9]}{i}" for i in range(10))
    svg = plots.figure_to_svg(plots.batch_figure(faulty.curve, names), name="here", label=name)
    texts = [element.text for element in ET.fromstring(svg).iter() if element.tag.endswith("text")]
    assert set(names) <= set(texts)


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", [name.replace("\ud800", "") for name in GROUPS])
def test_a_story_holds_names_as_text_only(name, tmp_path):
    random = np.random.default_rng(0)
    answers = Answers(random.integers(0, 2, (5, 8)), random.integers(0, 2, (5, 8)))
    figures = (bars_figure({name: (1.0, 0.1)}, unit="points"), answers_figure({name: answers}, (name, "b")))
    pictures = tuple(Picture(f"p{i}", figure, name) for i, figure in enumerate(figures))
    path = write_page(Page(name, name, name, "faulty", (Section(name, (name,), pictures=pictures),), name), tmp_path)
    page = Balance(path.read_text())
    assert not page.wrong + page.open
    assert "<script" not in path.read_text()


@pytest.mark.parametrize("name", ["../out", "a/b", "", "..", 'x"><script>', "a.b", "C:\\x"])
def test_no_file_lies_outside_of_the_folder(name, tmp_path):
    picture = Picture(name, bars_figure({"a": (1.0, 0.1)}, unit="points"), "caption")
    page = Page("t", "q", "v", "", (Section("s", pictures=(picture,)),), "c")
    with pytest.raises(ValueError, match="name must be letters, digits, '-' and '_', got"):
        render_page(page)
    with pytest.raises(ValueError, match="name must be letters, digits, '-' and '_', got"):
        write_page(page._replace(sections=()), tmp_path / "in", name=name)
    assert list(tmp_path.iterdir()) == []
