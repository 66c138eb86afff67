"""Diagnoses two CNNs that do not learn and one that does, on real images, and writes a report page for each.

python -m experiments.demo --report_dir=demo_report
"""

from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments import cli, report_flags

CASES: dict[str, dict[str, Any]] = {
    "clothes, raw pixels": {"dataset": "fashion_mnist", "fault": "raw_pixels"},
    "textures, step too short": {"dataset": "textures", "fault": "learning_rate_too_low"},
    "clothes, healthy": {"dataset": "fashion_mnist"},
}


def run(*, budget_seconds: float = 60.0, report_dir: str | None = None) -> dict[str, dict[str, Any]]:
    """Diagnoses every case and prints each diagnosis as it is made.

    Returns:
      What `diagnose.run` gives, by the name of the case.
    """
    from pathlib import Path

    from cnnprobe.reporting.console import print_diagnosis
    from experiments import diagnose

    results = {}
    for name, choices in CASES.items():
        print(f"\n=== {name}")
        folder = None if report_dir is None else str(Path(report_dir) / name.replace(", ", "-").replace(" ", "-"))
        results[name] = diagnose.run(budget_seconds=budget_seconds, report_dir=folder, **choices)
        print_diagnosis(results[name]["diagnosis"])
    return results


def main(argv: Sequence[str]) -> None:
    """Runs with the parsed flags and says where the pages are."""
    del argv
    cli.announce(report_flags.REPORT_DIR.value)
    results = run(budget_seconds=report_flags.BUDGET_SECONDS.value, report_dir=report_flags.REPORT_DIR.value)
    for name, result in results.items():
        print(f"{name}: {result['diagnosis'].verdict}" + (f", {result['report']}" if result["report"] else ""))


if __name__ == "__main__":
    flags.adopt_module_key_flags(report_flags)
    cli.launch(main)
