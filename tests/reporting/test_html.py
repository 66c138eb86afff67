import re
import sys
from html.parser import HTMLParser

import pytest

from cnnprobe.reporting import html

VOID = {"meta", "br", "path", "image", "use"}
HOSTILE = '"><script>alert(1)</script>{{ 7 * 7 }}'


class Balance(HTMLParser):
    """Collects ids and the tags that were opened and never closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.wrong, self.links = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[key] for key in ("src", "href", "xlink:href", "action") if key in values]
        self.open += [tag] if tag not in VOID else []

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open = self.open[: len(self.open) - (tag not in VOID)]

    def handle_endtag(self, tag):
        if tag not in VOID and self.open.pop() != tag:
            self.wrong.append(tag)


def test_every_page_is_well_formed_with_unique_ids(any_diagnosis):
    page = Balance(html.render_html(any_diagnosis))
    assert not page.wrong + page.open
    assert len(page.ids) == len(set(page.ids))


def test_no_page_asks_for_anything(any_diagnosis):
    text = html.render_html(any_diagnosis)
    assert all(link.startswith(("#", "data:")) for link in Balance(text).links)
    assert not re.findall(r"@import|url\((?!#)", text)
    assert "default-src 'none'" in text


def test_the_verdict_comes_first(any_diagnosis):
    body = html.render_html(any_diagnosis).split("<body>")[1]
    assert body.index(f'<p class="badge">{any_diagnosis.verdict}') < body.index(f"<h1>{any_diagnosis.summary}")


def test_a_finding_shows_evidence_gain_code_and_how_we_know(faulty):
    text = html.render_html(faulty)
    for part in ("90.4", "0.05 to 5", "+69 ± 1 points", "diagnosis.findings[0].remedy(problem)", "astype(np.float32)"):
        assert part in text
    assert text.count("How we know") == 2


def test_a_reading_without_a_healthy_range_has_no_band(faulty):
    finding = faulty.findings[0]
    open_range = finding.evidence.readings[0]._replace(healthy=(None, None))
    evidence = finding.evidence._replace(readings=(open_range,))
    text = html.render_html(faulty._replace(findings=(finding._replace(evidence=evidence),)))
    assert 'class="strip"' not in text


def test_every_seed_of_the_trial_is_listed(faulty):
    seeds = html.render_html(faulty).split('class="seeds"')[1].split("</table>")[0]
    assert re.findall(r">(-?\d+ %)<", seeds) == ["10 %", "78 %", "68 %", "12 %", "81 %", "69 %", "11 %", "80 %", "69 %"]


def test_text_from_the_users_program_is_escaped(faulty):
    finding = faulty.findings[0]._replace(title=HOSTILE, advice=HOSTILE, snippet=HOSTILE, references=(HOSTILE,))
    sick = faulty._replace(
        summary=HOSTILE,
        findings=(finding,),
        layers=(faulty.layers[0]._replace(name=HOSTILE, kind=HOSTILE),),
        graph=(faulty.graph[1]._replace(name=HOSTILE, kind=HOSTILE, window=HOSTILE, output=HOSTILE, steps=(HOSTILE,)),),
        class_names=(HOSTILE,) * 10,
        facts={HOSTILE: HOSTILE},
        untried=(HOSTILE,),
    )
    text = html.render_html(sick)
    assert text.count("<script>") == 1  # our own
    assert "{{ 7 * 7 }}" in text  # not evaluated either


def test_a_page_without_a_run_has_no_empty_sections(not_running):
    text = html.render_html(not_running)
    assert "The run as it is" not in text
    assert "Layer by layer" not in text
    assert "The network" not in text


@pytest.mark.parametrize(
    ("changes", "sick"),
    [
        ({}, False),
        ({"dead_share": 0.95}, True),
        ({"gradient_rms": 0.0}, True),
        ({"gradient_rms": float("inf")}, True),
        ({"gradient_rms": float("nan")}, False),  # a kernel that no leaf of the tree is known to be
        ({"activation_gradient_rms": float("nan")}, True),
    ],
)
def test_a_layer_is_sick_where_nothing_flows(changes, sick, faulty):
    assert html.is_sick(faulty.layers[0]._replace(**changes)) is sick


def test_columns_follow_the_fields_of_a_layer(faulty):
    assert len(html.COLUMNS) == len(faulty.layers[0])


@pytest.mark.parametrize(("value", "text"), [(float("nan"), ""), (float("-inf"), "-Infinity"), (0.5, "0.5")])
def test_sortable(value, text):
    assert html._sortable(value) == text


@pytest.mark.parametrize(("module", "name"), [("jinja2", "jinja2"), ("matplotlib.figure", "matplotlib")])
def test_a_missing_extra_is_named(module, name, faulty, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'{name}: pip install "cnnprobe\[report\]"'):
        html.render_html(faulty)


def test_how_we_know_tells_look_alikes_apart(faulty):
    finding = faulty.findings[0]._replace(look_alikes="`dead-units` end alike.")
    details = html.render_html(faulty._replace(findings=(finding,))).split("How we know")[1]
    assert "<p>dead-units end alike.</p>" in details
