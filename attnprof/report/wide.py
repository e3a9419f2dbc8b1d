"""Report -> wide CSV, for spreadsheets: one row per case, and for each metric a column of raw values in base units.

    latency_s, latency_low_s, latency_high_s, latency_n, latency_k, latency_delta_s, latency_ratio, latency_ratio_low, ...

A column that no case has anything for is left out, but not that of a value: where it is empty, METRIC_reason says why. So are
the ends of ratios that are all exact. METRIC_status stands where a case is ok and the metric has no value ('not measured'), and
for another counter's opinion, which is a metric ('macs:fvcore') with its verdict there.
Where several devices measured, the last column, measured_on, says which one.
Text is guarded as in the tidy CSV (csv.py), and numbers are the same. Where a label may be a word that pandas reads as missing,

    pandas.read_csv(path, keep_default_na=False, na_values=[""])
"""

from __future__ import annotations

import csv
import io
from typing import Any

from attnprof.report import csv as tidy
from attnprof.report.devices import MEASURED_ON
from attnprof.report.table import Report

CASE = (
    *("spec", "mechanism", "label", "args", "batch", "channels", "height", "width", "frames", "dtype", "mode", "device"),
    *("host", "settings", "baseline", "status", "key"),
)
_PARTS = {  # column of the tidy CSV -> what follows the metric's name
    "value": "",
    "ci_low": "_low",
    "ci_high": "_high",
    "n": "_n",
    "k": "_k",
    "delta": "_delta",
    "ratio": "_ratio",
    "ratio_low": "_ratio_low",
    "ratio_high": "_ratio_high",
    "status": "_status",
    "reason": "_reason",
}
_IN_UNITS = ("value", "ci_low", "ci_high", "delta")
_SUFFIXES = {"1": "", "B": "_bytes", "s": "_s", "1/s": "_per_s", "J": "_j"}


def render(report: Report) -> str:
    """The whole report as CSV text."""
    rows: list[dict[str, Any]] = []
    used: set[str] = set()
    columns: dict[str, None] = {}  # in order: every part of every metric
    for case, entries in tidy.by_case(report):
        row = {name: value for name, value in case.items() if name in CASE or name.startswith("arg_") or name == MEASURED_ON}
        for entry in entries:
            for part, column in _columns(entry["metric"], entry["unit"]).items():
                columns.setdefault(column)
                row[column] = entry.get(part)
                if part == "value" or (row[column] not in (None, "") and _tells(entry, part, case)):
                    used.add(column)
        rows.append(row)
    out = io.StringIO()
    shown = [column for column in columns if column in used]
    names = [*CASE, *tidy.argument_columns(report), *shown, *tidy.device_columns(report)]
    writer = csv.DictWriter(out, names, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _tells(entry: dict[str, Any], part: str, case: dict[str, Any]) -> bool:
    """Whether a part says more than another column: a status than the case's, an end of an interval than the ratio."""
    if part == "status":
        return bool(entry[part] != case[part])
    ratio = entry.get("ratio")
    return not part.startswith("ratio_") or (entry["ratio_low"], entry["ratio_high"]) != (ratio, ratio)


def _columns(metric: str, unit: str) -> dict[str, str]:
    """{part: the name of its column}: {'value': 'latency_s', 'ci_low': 'latency_low_s', 'n': 'latency_n', ...}."""
    suffix = _SUFFIXES[unit]
    return {part: f"{metric}{text}{suffix if part in _IN_UNITS else ''}" for part, text in _PARTS.items()}
