"""One page for each cause, and their index, from the records that the doctor itself uses."""

import html
import re
from collections.abc import Sequence

from cnnprobe.doctor.causes import CAUSES
from cnnprobe.doctor.causes.record import STAGES, Cause, no_remedy
from cnnprobe.doctor.recorded import SUPPORTED
from cnnprobe.reporting.formats import capitalised, is_healthy, number_text, place_on_strip, range_text
from cnnprobe.types import Reading
from site_pages.examples import EXAMPLES, observe_example

STAGE_WORDS = {
    "data": "What the network is fed",
    "labels": "Labels, their balance and their order",
    "loss": "The head and the loss",
    "architecture": "The network as it was drawn",
    "regularisation": "What differs between training and evaluation",
    "optimisation": "The updates",
    "generalisation": "What is learnt, and how it is measured",
}
INDEX_TOP = """# Causes

A finding's `cause` is one of these {number} names. They stand in the order in which a fault explains the symptoms of
later ones. Every one has a page: what it looks like, how it is told from what looks alike, how to fix it, and why.

## Verdicts

| `diagnosis.verdict` | means |
|---|---|
| `faulty` | at least one cause, whose remedy was tried and helps; or one whose harm the run itself shows |
| `healthy` | it learns, and no reading speaks for a fault |
| `untrained` | too few steps for any network: train for longer before you judge it |
| `under-trained` | nothing is wrong, and three times as many steps were measured to bring more |
| `noise-limited` | it has learnt what the labels allow: so many of them contradict their images |
| `cannot-tell` | nothing was learnt and no reading supports a known cause, or the budget was too small |

A cause that is present and costs nothing on your data is a warning, and no fault.
"""


def index_page() -> str:
    """The table of all causes, and what verdicts mean."""
    parts = [INDEX_TOP.format(number=len(CAUSES))]
    for stage in STAGES:
        rows = [_row(cause) for cause in CAUSES if cause.stage == stage]
        parts.append(
            f"## {STAGE_WORDS[stage]}\n\n| cause | in words | a remedy is tried | told by a recorded run |\n"
            "|---|---|---|---|\n" + "\n".join(rows)
        )
    return "\n\n".join(parts) + "\n"


def cause_page(cause: Cause) -> str:
    """Everything that is known of one cause."""
    seen = observe_example(EXAMPLES[cause.id])
    evidence, advice = cause.evidence(seen), cause.advice(seen)
    if evidence is None:
        raise ValueError(f"the example of {cause.id} must speak for it, but its evidence is None.")
    parts = [
        f"# {capitalised(cause.title)}",
        f"`{cause.id}`",
        cause.explanation,
        "## What it looks like",
        "The doctor on one such network:",
        f"> {evidence.sentence}",
        strip_table(evidence.readings),
        "The band is what healthy networks kept in the calibration runs.",
        "## How it is told from its look-alikes",
        with_links(cause.look_alikes),
        "## How to fix it",
        advice.text,
        f"```python\n{advice.snippet}\n```" if advice.snippet else "",
        _remedy_words(cause),
        "## References",
        "\n".join(f"- {reference}" for reference in cause.references),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def strip_table(readings: Sequence[Reading]) -> str:
    """Readings beside their healthy bands, as the report draws them."""
    titles = ("reading", "measured", "beside the healthy band", "healthy")
    head = "<thead><tr>" + "".join(f"<th>{title}</th>" for title in titles) + "</tr></thead>"
    rows = "\n".join(_strip_row(reading) for reading in readings)
    return f'<table class="evidence">\n{head}\n<tbody>\n{rows}\n</tbody>\n</table>'


def with_links(text: str) -> str:
    """Text whose backticked causes lead to their pages."""
    known = {cause.id for cause in CAUSES}
    return re.sub(r"`([a-z-]+)`", lambda found: _link(found[1]) if found[1] in known else found[0], text)


def _link(cause_id: str) -> str:
    """A cause as a link from another cause's page, or from the index."""
    return f"[`{cause_id}`]({cause_id}.md)"


def _row(cause: Cause) -> str:
    """One line of the index."""
    tried = "" if cause.remedies is no_remedy else "yes"
    return f"| {_link(cause.id)} | {cause.title} | {tried} | {'yes' if cause.id in SUPPORTED else ''} |"


def _remedy_words(cause: Cause) -> str:
    """What the doctor does about it by itself."""
    if cause.remedies is no_remedy:
        return "No change could show a gain, so nothing is tried: the finding rests on what was measured."
    return "Where it applies, `diagnosis.findings[0].remedy(problem)` is the problem with what was tried."


def _strip_row(reading: Reading) -> str:
    """One reading."""
    strip, healthy = place_on_strip(reading), is_healthy(reading)
    dot = ""
    if strip.dot is not None:
        dot = f'<b{"" if healthy else " class=outside"} style="--dot: {100 * strip.dot:.1f}%"></b>'
    style = f"--low: {100 * strip.low:.1f}%; --high: {100 * strip.high:.1f}%"
    drawn = f'<span class="strip" style="{style}"><i></i>{dot}</span>' if reading.healthy != (None, None) else ""
    return (
        f"<tr><td>{html.escape(reading.name)}</td>"
        f'<td class="value{"" if healthy else " sick"}">{number_text(reading.value)}</td>'
        f'<td class="place">{drawn}</td><td>{range_text(reading.healthy)}</td></tr>'
    )
