"""Diagnoses for the terminal: coloured on a screen, plain text in a pipe, never wider than the console."""

import io
import math
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cnnprobe.reporting.formats import (
    capitalised,
    gain_text,
    is_healthy,
    number_text,
    percent_text,
    range_text,
    trial_text,
)
from cnnprobe.texts import all_printable
from cnnprobe.types import Diagnosis, Finding, Reading

VERDICT_STYLES = {"faulty": "bold white on red", "healthy": "bold black on green"}
SEVERITY_STYLES = {"cause": "bold red", "warning": "bold yellow"}


def render(diagnosis: Diagnosis, *, width: int = 80) -> str:
    """The diagnosis as plain text of at most `width` columns."""
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        print_diagnosis(diagnosis, console=console)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def print_diagnosis(diagnosis: Diagnosis, *, console: Console | None = None) -> None:
    """Prints the verdict, the ranked findings with what was measured, and what to type.

    Args:
      diagnosis: what `diagnose` returned.
      console: where to print; None: standard output, in colour only if it is a terminal.
    """
    console = console or Console(highlight=False)
    for part in _parts(all_printable(diagnosis)):
        console.print(part, highlight=False)


def _parts(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    """The page from top to bottom. Text from the user's program is never read as markup."""
    badge = Text(f" {diagnosis.verdict.upper()} ", style=VERDICT_STYLES.get(diagnosis.verdict, "bold black on yellow"))
    yield Text.assemble("\n", badge, " ", diagnosis.summary)
    for index, finding in enumerate(diagnosis.findings):
        yield Text.assemble("\n", (f"{index + 1}. {capitalised(finding.title)}", "bold"))
        yield _indented(_finding(finding, index))
    if diagnosis.untried:
        yield Text("\nNot tried", style="bold")
        yield _indented(Text("\n".join(f"- {reason}" for reason in diagnosis.untried)))
    if math.isfinite(diagnosis.seconds):
        yield Text(f"\nTook {diagnosis.seconds:.1f} s.\n", style="dim")


def _finding(finding: Finding, index: int) -> RenderableType:
    """One finding: how sure, why, what the remedy gained, what to do."""
    severity = (finding.severity, SEVERITY_STYLES.get(finding.severity, "bold"))
    parts: list[RenderableType] = [
        Text.assemble(severity, f"  {finding.cause}  ", (f"confidence {percent_text(finding.confidence)}", "dim")),
        Text(finding.evidence.sentence),
    ]
    if finding.evidence.readings:
        parts.append(_readings_table(finding.evidence.readings))
    if finding.trial is not None:
        gain = (gain_text(finding.trial), "bold green" if finding.trial.gain > 0 else "bold")
        parts.append(Text.assemble(("Tried: ", "bold"), gain, f" in {trial_text(finding.trial)}."))
    elif finding.remedy is not None:
        parts.append(Text.assemble(("Tried: ", "bold"), "no; the gain of this remedy was not measured."))
    parts.append(Text.assemble(("Do: ", "bold"), finding.advice))
    return Group(*parts, *_code(finding, index))


def _code(finding: Finding, index: int) -> Iterator[RenderableType]:
    """What to type: the remedy that was tried, then the same in the user's own program."""
    if finding.remedy is not None:
        yield _indented(Text(f"fixed = diagnosis.findings[{index}].remedy(problem)", style="cyan"))
    if finding.snippet:
        yield Text("or, in your own code:" if finding.remedy is not None else "In your own code:")
        yield _indented(Text(finding.snippet, style="cyan"))


def _readings_table(readings: tuple[Reading, ...]) -> RenderableType:
    """What was measured beside what healthy models keep."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("reading", overflow="fold")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("healthy", no_wrap=True)
    table.add_column("", no_wrap=True)
    for reading in readings:
        style, mark = ("green", "") if is_healthy(reading) else ("bold red", "outside")
        value = Text(number_text(reading.value), style=style)
        table.add_row(Text(reading.name), value, range_text(reading.healthy), Text(mark, style=style))
    return Padding(table, (0, 0, 0, 2))


def _indented(part: RenderableType) -> RenderableType:
    """Two columns to the right."""
    return Padding(part, (0, 0, 0, 2))
