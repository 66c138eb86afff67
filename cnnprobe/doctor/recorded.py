"""What a training run tells by its record alone: no model, no images, nothing is run."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cnnprobe.doctor.causes import CAUSES
from cnnprobe.doctor.causes.record import Cause
from cnnprobe.doctor.harm import DECISIVE
from cnnprobe.doctor.looks.collapse import collapse_facts, stream_collapse
from cnnprobe.doctor.looks.data import order_facts
from cnnprobe.doctor.looks.run import look_at_loss_curve
from cnnprobe.doctor.observation import Observation
from cnnprobe.doctor.progress import LEARNT
from cnnprobe.probes.nulls import entropy
from cnnprobe.training.journal import Record, read_log, to_number
from cnnprobe.training.probes import LAYER_READINGS
from cnnprobe.types import Curve, Diagnosis, Evidence, Finding

SUPPORTED = (  # causes whose evidence a record can hold
    "class-imbalance",
    "batches-not-shuffled",
    "parameters-not-updated",
    "learning-rate-too-high",
    "updates-too-small",
    "non-finite-loss",
)
MOST_BATCHES = 40  # whose order is read
LARGEST_COUNT = 10_000_000  # images of one class in one batch; more is no count, and would fill the memory
WHO_TELLS = {  # of the other causes, by stage
    "data": "the images are not in the record; cp.image_stats and cp.split_overlap read them",
    "labels": "images and labels are not in the record; cp.knn_consistency and cp.label_stats read them",
    "loss": "the loss is not in the record; cp.loss_fingerprint reads it",
    "architecture": "the network is not in the record; cp.model_graph and cp.tap read it",
    "regularisation": "the two modes are not in the record; cp.mode_gap and cp.statistics_drift read them",
    "optimisation": "update and gradient of each step are not in the record; cp.update_cosine reads them",
    "generalisation": "runs on fewer images are not in the record; cp.diagnose makes them",
}


def diagnose_run(path: str | os.PathLike[str]) -> Diagnosis:
    """Reads the causes that a recorded run alone supports, and says what it cannot tell and which probe would.

    Nothing is run, so nothing is proved: what speaks for itself in a run that learnt nothing is a cause, anything else
    a warning. The loss is held against the entropy of the labels, as a cross-entropy is.

    Args:
      path: `readings.jsonl` of `fit` or of a report, or any file of JSON lines with `loss` in each and, where they are
        known, `accuracy`, `prediction_counts` and `label_counts`.

    Raises:
      ValueError: there is no such file, or no line of it holds a loss, or what its lines hold is of another kind.
    """
    if not Path(path).is_file():
        raise ValueError(f"path must name a file of readings, got {os.fspath(path)!r}.")
    records = read_log(Path(path))
    if not _steps(records):
        raise ValueError(f"path must name a file with a loss in each line, got {os.fspath(path)!r}.")
    try:
        return diagnose_records(records)
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
        raise ValueError(
            f"path must name a file of readings as cp.fit writes them, got {os.fspath(path)!r}: {error!r:.200}."
        ) from error


def diagnose_records(records: Sequence[Record]) -> Diagnosis:
    """What `diagnose_run` says of lines that are in memory already; at least one of them holds a loss."""
    steps = _steps(records)
    curve = _curve(steps)
    header = next((record for record in records if record.get("kind") == "run"), {})
    facts = {**_curve_facts(curve), **_layer_facts(header, steps), **_epoch_facts(records)}
    names = {"frozen": ", ".join(_still(header, steps))}
    return _conclude(curve, facts, names)


def _steps(records: Sequence[Record]) -> list[Record]:
    """Those of the lines that tell of a step."""
    return [record for record in records if "loss" in record and record.get("kind", "step") == "step"]


def _column(steps: list[dict[str, Any]], name: str) -> Float[np.ndarray, " steps"]:
    """One number of every step; NaN where it is not recorded."""
    return np.array([to_number(step.get(name)) for step in steps])


def _counts(steps: list[dict[str, Any]], name: str) -> Int[np.ndarray, "steps classes"]:
    """Counts of every step; no classes where they are not recorded."""
    rows = [step.get(name, []) for step in steps]
    if len({len(row) for row in rows}) > 1:
        return np.zeros((len(steps), 0), int)
    counts = np.array(rows, int)
    if np.any((counts < 0) | (counts > LARGEST_COUNT)):
        raise ValueError(f"{name} must hold counts of 0 to {LARGEST_COUNT}")
    return counts


def _curve(steps: list[dict[str, Any]]) -> Curve:
    """The record as the curve of a run."""
    loss, accuracy = _column(steps, "loss"), _column(steps, "accuracy")
    return Curve(loss, accuracy, _counts(steps, "prediction_counts"), _counts(steps, "label_counts"))


def _curve_facts(curve: Curve) -> dict[str, float]:
    """What loss, predictions and labels tell."""
    labels = curve.label_counts.sum(axis=0)
    if not labels.size or not labels.sum():
        return look_at_loss_curve(curve, float("nan"))
    facts = {
        "label entropy": float(entropy(labels)) / max(float(np.log(labels.size)), 1e-9),
        "label majority share": float(labels.max() / labels.sum()),
    }
    batches = [_ids(counts) for counts in curve.label_counts[:MOST_BATCHES]]
    facts |= order_facts(batches, _ids(labels), num_classes=labels.size, seed=0)
    own = stream_collapse(curve)
    facts |= {} if own is None else collapse_facts(own)
    return facts | look_at_loss_curve(curve, float(entropy(labels)))


def _ids(counts: Int[np.ndarray, " classes"]) -> Int[np.ndarray, " batch"]:
    """As many class ids as were counted."""
    return np.repeat(np.arange(len(counts)), counts)


def _readings(header: Mapping[str, Any], steps: list[dict[str, Any]]) -> Float[np.ndarray, "steps readings leaves"]:
    """The readings of `fit`'s default probes; none where they are not recorded."""
    rows = [step["probes"]["layers"] for step in steps if "layers" in step.get("probes", {})]
    if not rows or "parameters" not in header:
        return np.zeros((0, len(LAYER_READINGS), 0))
    return np.array(rows, float)  # None is NaN, and text its number, as `to_number` has it


def _layer_facts(header: Mapping[str, Any], steps: list[dict[str, Any]]) -> dict[str, float]:
    """What gradients and updates of each parameter tell."""
    readings = _readings(header, steps)
    if not readings.size:
        return {}
    sizes = np.array(header.get("sizes", [1] * readings.shape[2]), float)
    by_name = dict(zip(LAYER_READINGS, readings.transpose(1, 0, 2), strict=True))
    zeros = by_name["gradient_zero_share"] @ sizes / sizes.sum()
    ratios = by_name["log10_update_ratio"]
    kernels = ratios[:, np.array(header.get("axes", [2] * readings.shape[2])) >= 2]
    moving = kernels[np.isfinite(kernels)]
    still = np.all(ratios == -np.inf, axis=0)
    return {
        "log10 of update over parameter": float(np.median(moving)) if moving.size else -np.inf,
        "frozen parameter share": float(sizes[still].sum() / sizes.sum()),
        "cut gradient share": float(sizes[np.all(by_name["gradient_norm"] == 0, axis=0)].sum() / sizes.sum()),
        "first zero gradient share": float(np.min(zeros[:5])),
        "last zero gradient share": float(np.mean(zeros[-10:])),
        "number of updates": float(np.sum((ratios > -np.inf).any(axis=1))),
    }


def _still(header: Mapping[str, Any], steps: list[dict[str, Any]]) -> list[str]:
    """Names of the parameters that never move."""
    ratios = _readings(header, steps)[:, LAYER_READINGS.index("log10_update_ratio")]
    return [
        name for name, column in zip(header.get("parameters", ()), ratios.T, strict=False) if (column == -np.inf).all()
    ]


def _epoch_facts(records: Sequence[Record]) -> dict[str, float]:
    """Scores after the last epoch."""
    epochs = [record for record in records if record.get("kind") == "epoch"]
    if not epochs:
        return {}
    train = to_number(epochs[-1]["train"]["accuracy"])
    facts = {"steps of the whole training": float(epochs[-1]["num_steps"]), "training accuracy": train}
    if "valid" not in epochs[-1]:
        return facts
    valid = to_number(epochs[-1]["valid"]["balanced_accuracy"])
    return facts | {"validation accuracy": valid, "generalisation gap": train - valid}


def _finding(cause: Cause, evidence: Evidence, seen: Observation, severity: str) -> Finding:
    """A cause without a trial."""
    return Finding(
        cause=cause.id,
        title=cause.title,
        severity=severity,
        confidence=round(0.5 * evidence.strength, 3),
        evidence=evidence,
        remedy=None,
        advice=cause.advice(seen).text,
        snippet="",
        trial=None,
        explanation=cause.explanation,
        references=cause.references,
        look_alikes=cause.look_alikes,
    )


def _conclude(curve: Curve, facts: Mapping[str, float], names: Mapping[str, str]) -> Diagnosis:
    """Findings of the supported causes, and the others by what would tell them."""
    seen = Observation(None, facts, names, None, None, (), {})  # type: ignore[arg-type]  # a record has no bench
    learnt = facts.get("end loss ratio", float("nan")) < LEARNT
    found = [(cause, cause.evidence(seen)) for cause in CAUSES if cause.id in SUPPORTED]
    findings = [
        _finding(cause, evidence, seen, _severity(cause, evidence, seen, is_lost=not learnt))
        for cause, evidence in found
        if evidence is not None and evidence.strength > 0
    ]
    findings.sort(key=lambda finding: (finding.severity != "cause", -finding.confidence))
    causes = [finding for finding in findings if finding.severity == "cause"]
    verdict = "faulty" if causes else "cannot-tell"
    said = causes[0].title if causes else "the record shows no fault, and holds too little to rule one out"
    untold = [f"{stage}: {who} ({_untold(stage)})" for stage, who in WHO_TELLS.items() if _untold(stage)]
    num_classes = curve.prediction_counts.shape[1]
    return Diagnosis(
        verdict=verdict,
        summary=f"{len(curve.loss)} recorded steps: {said}.",
        findings=tuple(findings),
        curve=curve if num_classes else None,
        layers=(),
        class_names=tuple(map(str, range(num_classes))),
        facts={**facts, **names},
        untried=tuple(untold),
        seconds=0.0,
    )


def _severity(cause: Cause, evidence: Evidence, seen: Observation, *, is_lost: bool) -> str:
    """A cause where the evidence speaks for itself, and the run learnt nothing or shows itself what it costs."""
    shows_harm = cause.shows_harm is not None and cause.shows_harm(seen)
    return "cause" if evidence.strength >= DECISIVE and (is_lost or shows_harm) else "warning"


def _untold(stage: str) -> str:
    """Causes of a stage that no record supports."""
    return ", ".join(cause.id for cause in CAUSES if cause.stage == stage and cause.id not in SUPPORTED)
