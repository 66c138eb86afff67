import re

import pytest

from cnnprobe.reporting.page import Grid, Page, Picture, Section, render_markdown, render_page, write_page
from cnnprobe.reporting.story_plots import bars_figure

HOSTILE = '"><script>alert(1)</script>{{ 7 * 7 }}'
VOID = {"meta", "br", "path", "image", "use"}


def make_page(text="plain"):
    picture = Picture("one-bar", bars_figure({text: (1.0, 0.1)}, unit="points"), text)
    full = Section(text, (text, text), Grid((text, "b"), ((text, "1"),)), (picture,), text)
    return Page(text, text, text, "faulty", (full, Section("empty")), text)


@pytest.mark.parametrize("text", ["plain", HOSTILE])
def test_page_closes_its_tags_and_asks_for_nothing(text):
    html = render_page(make_page(text))
    tags = re.findall(r"<(/?)([a-z0-9]+)[^<>]*?(/?)>", html)
    opened = [name for end, name, closed in tags if not end and not closed and name not in VOID]
    assert sorted(opened) == sorted(name for end, name, _ in tags if end)
    assert all(link.startswith(("#", "data:")) for link in re.findall(r"""(?:src|href)="([^"]*)""", html))
    assert "default-src 'none'" in html
    assert "<script" not in html


def test_markdown_holds_every_part_in_order():
    text = render_markdown(make_page(), folder="cases")
    for part in ("## plain", "**plain**", "### plain", "| plain | b |", "![plain](cases/one-bar.png)", "### empty"):
        assert part in text
        text = text[text.index(part) :]


def test_pictures_are_files_beside_the_page(tmp_path):
    path = write_page(make_page(), tmp_path / "new")
    assert path.name == "case.html"
    assert (tmp_path / "new" / "one-bar.png").read_bytes()[:4] == b"\x89PNG"
    assert re.search(r"<h1>plain</h1>", path.read_text())
