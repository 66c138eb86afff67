"""Flags of the scripts that diagnose."""

from absl import flags

BUDGET_SECONDS = flags.DEFINE_float("budget_seconds", 60.0, "Wall time of one diagnosis.", lower_bound=1.0)
REPORT_DIR = flags.DEFINE_string("report_dir", None, "Where to write report.html, diagnosis.json, readings.jsonl.")
