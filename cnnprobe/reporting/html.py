"""A diagnosis as one page that needs nothing else: no network, no folder of assets, no server."""

import math
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from cnnprobe.reporting import formats, plots
from cnnprobe.reporting.picture import draw_nodes
from cnnprobe.texts import all_printable
from cnnprobe.types import Diagnosis, Finding, LayerRow

if TYPE_CHECKING:
    from jinja2 import Environment

DEAD_SHARE = 0.9  # of a layer's units: above it, nothing flows


class Column(NamedTuple):
    """How one field of `LayerRow` is shown."""

    title: str
    numeric: bool = True
    share: bool = False  # in [0, 1]: shown in percent, with a bar


COLUMNS = (  # in the order of the fields of `LayerRow`
    Column("layer", numeric=False),
    Column("kind", numeric=False),
    Column("then", numeric=False),
    Column("activation std"),
    Column("exact zeros", share=True),
    Column("dead units", share=True),
    Column("activation gradient rms"),
    Column("weight gradient rms"),
    Column("log10 update ratio"),
)


def render_html(diagnosis: Diagnosis) -> str:
    """The diagnosis as a complete HTML document.

    Whatever comes from the user's program (names of layers and classes, messages, code) is escaped, and a content
    security policy forbids every request.

    Raises:
      ImportError: jinja2 or matplotlib is missing; the message says what to install.
    """
    template, diagnosis = make_environment().get_template("report.html"), all_printable(diagnosis)
    return template.render(
        diagnosis=diagnosis,
        cards=[_card(finding, index) for index, finding in enumerate(diagnosis.findings)],
        run=_run(diagnosis),
        nodes=draw_nodes(diagnosis),
        columns=COLUMNS,
        version=version("cnnprobe"),
        zip=zip,
    )


def is_sick(layer: LayerRow) -> bool:
    """Whether nothing flows through a layer: dead units, no gradient, or activation gradients that are not finite.

    The gradient of a kernel that cannot be told from others is NaN, which says nothing.
    """
    is_cut = layer.gradient_rms == 0 or math.isinf(layer.gradient_rms)
    return layer.dead_share >= DEAD_SHARE or is_cut or not math.isfinite(layer.activation_gradient_rms)


def make_environment() -> "Environment":
    """Jinja with escaping on and the words of `formats` as filters."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise ImportError('The report page needs jinja2: pip install "cnnprobe[report]"') from error
    loader = PackageLoader("cnnprobe.reporting", "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters.update(
        number=formats.number_text,
        percent=formats.percent_text,
        range=formats.range_text,
        strip=formats.place_on_strip,
        gain=formats.gain_text,
        trial=formats.trial_text,
        fact=formats.fact_text,
        capitalised=formats.capitalised,
        css=_css_percent,
        sortable=_sortable,
    )
    environment.tests.update(healthy=formats.is_healthy, sick=is_sick)
    return environment


def _card(finding: Finding, index: int) -> dict[str, Any]:
    """A finding with the curves of its trial."""
    if finding.trial is None:
        return {"finding": finding}
    curves = {"as it is": finding.trial.control_curve, "with the remedy": finding.trial.remedied_curve}
    return {
        "finding": finding,
        "loss": _svg(plots.loss_figure(curves), f"loss-{index}", "Training loss with and without the remedy"),
        "accuracy": _svg(
            plots.accuracy_figure(curves), f"accuracy-{index}", "Training accuracy with and without the remedy"
        ),
    }


def _run(diagnosis: Diagnosis) -> dict[str, Any] | None:
    """The pictures of the probed run; None if it could not run."""
    if diagnosis.curve is None:
        return None
    curves = {"as it is": diagnosis.curve}
    batches = plots.batch_figure(diagnosis.curve, diagnosis.class_names)
    gradients = plots.gradient_figure(diagnosis.layers) if diagnosis.layers else None
    return {
        "loss": _svg(plots.loss_figure(curves), "run-loss", "Training loss at every step"),
        "accuracy": _svg(plots.accuracy_figure(curves), "run-accuracy", "Training accuracy at every step"),
        "batches": _svg(batches, "run-batches", "Predicted classes and labels of every batch"),
        "gradients": _svg(gradients, "run-gradients", "Gradient by depth") if gradients else None,
    }


def _svg(figure: Any, name: str, label: str) -> Any:
    """A figure that the template does not escape: matplotlib has escaped the names inside."""
    from markupsafe import Markup

    return Markup(plots.figure_to_svg(figure, name=name, label=label))


def _css_percent(share: float) -> str:
    """A fraction as a length in CSS; nothing for what is not a number."""
    return f"{100 * share:.1f}%" if math.isfinite(share) else "0%"


def _sortable(value: float) -> str:
    """A number as the sorting of the page reads it; empty for NaN, which sorts last."""
    return "" if math.isnan(value) else str(float(value)).replace("inf", "Infinity")
