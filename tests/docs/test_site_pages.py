"""Pages that are written from the package: causes, reference, notebooks."""

import ast
import json
import textwrap

import pytest

from cnnprobe.contents import chapters
from cnnprobe.doctor.causes import CAUSES
from site_pages import causes, hooks, notebooks, reference
from site_pages.examples import EXAMPLES, observe_example

IDS = {"ids": lambda cause: cause.id}


def test_every_cause_has_an_example():
    assert {cause.id for cause in CAUSES} == set(EXAMPLES)


@pytest.mark.parametrize("cause", CAUSES, **IDS)
def test_examples_speak_for_their_cause_in_numbers(cause):
    seen = observe_example(EXAMPLES[cause.id])
    evidence, advice = cause.evidence(seen), cause.advice(seen)
    assert evidence.strength >= 0.5
    assert "nan" not in f"{evidence.sentence} {advice.text} {advice.snippet}"


@pytest.mark.parametrize("cause", CAUSES, **IDS)
def test_pages_tell_causes_from_their_look_alikes(cause):
    page = causes.cause_page(cause)
    assert len(cause.look_alikes) > 80
    assert page.index("## What it looks like") < page.index("told from its look-alikes") < page.index("## How to fix")


@pytest.mark.parametrize("cause", CAUSES, **IDS)
def test_advice_is_python(cause):
    snippet = cause.advice(observe_example(EXAMPLES[cause.id])).snippet
    ast.parse("def yours():\n" + textwrap.indent(snippet or "pass", "    "))


def test_only_causes_become_links():
    assert causes.with_links("`dead-units` and `argmax`") == "[`dead-units`](dead-units.md) and `argmax`"


def test_the_index_lists_every_cause_once():
    page = causes.index_page()
    assert [page.count(f"[`{cause.id}`]") for cause in CAUSES] == [1] * len(CAUSES)


def test_a_reading_outside_its_band_is_marked():
    from cnnprobe.types import Reading

    table = causes.strip_table([Reading("a", 0.5, (0.0, 1.0)), Reading("b", 2.0, (0.0, 1.0))])
    assert [line.count("sick") for line in table.splitlines() if line.startswith("<tr>")] == [0, 1]


@pytest.mark.parametrize("chapter", chapters(), ids=reference.chapter_file)
def test_reference_has_a_section_for_every_name(chapter):
    page = reference.chapter_page(chapter)
    assert all(f"{{ #{entry.name} }}" in page for entry in chapter.entries)


def test_signatures_are_those_that_were_typed():
    doctor = next(chapter for chapter in chapters() if chapter.title == "The doctor")
    page = reference.chapter_page(doctor)
    assert "budget_seconds: float = 60.0,\n    devices: Sequence[jax.Device] | None = None,\n    tell: Tell" in page


def test_a_notebook_stores_what_its_code_prints(tmp_path):
    cells = [{"cell_type": "code", "source": [line], "outputs": []} for line in ("x = 2", "print(x + 1)")]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    notebooks.main([tmp_path / "a.ipynb"])
    stored = json.loads((tmp_path / "a.ipynb").read_text())["cells"]
    assert [cell["outputs"] for cell in stored] == [[], [{"output_type": "stream", "name": "stdout", "text": ["3\n"]}]]


@pytest.mark.parametrize(
    ("docstring", "page"),
    [
        ("The mean.\n\n>>> 1 + 1\n2", "The mean.\n\n```pycon\n>>> 1 + 1\n2\n```"),
        ("Raises:\n  ValueError: it is not `a_b`.", "**Raises**\n\n- `ValueError`: it is not `a_b`."),
        ("References:\n  Roy & Vetterli, EUSIPCO 2007.", "**References**\n\n- Roy & Vetterli, EUSIPCO 2007."),
        ("Of a_b and [n].", "Of a\\_b and \\[n]."),
    ],
)
def test_docstrings_become_markdown(docstring, page):
    assert reference.markdown_of(docstring) == page


def test_notebook_pages_show_code_and_what_it_printed(tmp_path):
    text = {"cell_type": "markdown", "source": ["# T"]}
    code = {"cell_type": "code", "source": ["print(1)"], "outputs": [{"text": ["1"]}]}
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": [text, code]}))
    page = notebooks.notebook_page(tmp_path / "a.ipynb")
    assert page.startswith("# T\n\n[Download this notebook](a.ipynb)\n\n```python\nprint(1)\n```\n\n```text\n1\n```")


def test_the_site_has_a_page_for_every_cause_chapter_and_notebook():
    paths = [path for path, _ in hooks.pages()]
    assert len(paths) == len(set(paths)) == len(CAUSES) + len(chapters()) + len(hooks.NOTEBOOKS) + 3


def test_the_navigation_is_filled_in():
    nav = [hooks._filled(entry, {"Causes": ["a.md"]}) for entry in ("taps.md", {"Causes": []}, {"How to": ["b.md"]})]
    assert nav == ["taps.md", {"Causes": ["a.md"]}, {"How to": ["b.md"]}]
