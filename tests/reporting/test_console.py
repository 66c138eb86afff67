import io

import pytest
from rich.console import Console

from cnnprobe.reporting import console


def test_every_diagnosis_says_its_verdict_first(any_diagnosis):
    text = console.render(any_diagnosis)
    assert text.split()[0] == any_diagnosis.verdict.upper()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_console(any_diagnosis, width):
    lines = console.render(any_diagnosis, width=width).splitlines()
    assert max(map(len, lines)) <= width


def test_a_finding_shows_evidence_gain_and_what_to_type(faulty):
    text = " ".join(console.render(faulty).split())
    assert "standard deviation of the inputs 90.4 0.05 to 5 outside" in text
    assert "Tried: +69 ± 1 points in balanced accuracy on 500 held-out images, from 11 % to 80 % (3 seeds" in text
    assert "fixed = diagnosis.findings[0].remedy(problem)" in text


def test_the_index_to_type_is_that_of_the_finding(faulty):
    second = faulty.findings[1]._replace(remedy=lambda problem: problem)
    text = console.render(faulty._replace(findings=(faulty.findings[0], second)))
    assert "diagnosis.findings[1].remedy(problem)" in text
    assert "the gain of this remedy was not measured" in text


def test_untried_is_listed(faulty):
    assert "Not tried\n  - label noise" in console.render(faulty)


def test_markup_in_the_users_text_is_printed_as_it_is(faulty):
    assert "[red]loss[/]" in console.render(faulty._replace(summary="[red]loss[/]"))


def test_colour_only_on_a_terminal(faulty):
    piped, screen = io.StringIO(), io.StringIO()
    console.print_diagnosis(faulty, console=Console(file=piped))
    console.print_diagnosis(faulty, console=Console(file=screen, force_terminal=True, color_system="standard"))
    assert "\x1b[" not in piped.getvalue()
    assert "\x1b[" in screen.getvalue()


def test_prints_to_standard_output_unless_told_otherwise(healthy, capsys):
    console.print_diagnosis(healthy)
    assert "HEALTHY" in capsys.readouterr().out
