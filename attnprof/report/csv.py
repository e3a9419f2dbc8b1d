"""Report -> tidy CSV: one row per case and metric, raw values in base units, ready for pandas. wide.py: one row per case.

A text cell that a spreadsheet would take for a formula gets a leading apostrophe, which `unguard` takes away; a line break in
it is a space, and what does not print is '?'. Numbers that do not exist are empty here and only here (NaN in pandas); `status`
and `reason` say why: a row without a value is never 'ok', but what the case is, or 'not measured', 'not traced', ...,
'no value'. Axis arguments follow as `arg_NAME` columns, then `measured_on` where several devices measured: which one, in words
that are the same in every report; empty for counts. Numbers have as many digits as tell them from every other. pandas takes
words such as 'NA' and 'None' for missing; where a label may be one,

    pandas.read_csv(path, keep_default_na=False, na_values=dict.fromkeys(NUMBERS, ""))
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from attnprof.plain import printable
from attnprof.report import crosscheck
from attnprof.report.blocks import axes, axis_text, set_by
from attnprof.report.devices import MEASURED_ON, device_of, tied
from attnprof.report.metrics import METRICS, Reading
from attnprof.report.table import Cell, Report, Row, Table

COLUMNS = (
    *("spec", "mechanism", "label", "args", "batch", "channels", "height", "width", "dtype", "mode", "device"),
    *("metric", "value", "ci_low", "ci_high", "n", "unit", "baseline", "delta", "ratio", "ratio_low", "ratio_high"),
    *("status", "reason", "key", "frames", "host", "settings", "k"),
)
NUMBERS = ("value", "ci_low", "ci_high", "n", "k", "delta", "ratio", "ratio_low", "ratio_high")
_NO_VALUE = ("not measured", "not calibrated", "not traced", "not compared")  # kinds of reasons, of which there are more
_BREAKS = re.compile(r"[\r\n\0]+")
_GUARDED = re.compile(r"'*(\s*[=+\-@]|\t)")


def render(report: Report) -> str:
    """The whole report as CSV text."""
    out = io.StringIO()
    names = [*COLUMNS, *argument_columns(report), *device_columns(report)]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for _, entries in by_case(report):
        writer.writerows(entries)
    return out.getvalue()


def argument_columns(report: Report) -> dict[str, str]:
    """{column: argument} of the arguments that vary over the run's cases."""
    placed = any(record.case.host is not None for record in report.records)
    return {f"arg_{guard(name)}": name for name in (*axes(report.records), *(("at", "how") if placed else ()))}


def device_columns(report: Report) -> tuple[str, ...]:
    """The column that says where a value was measured, where there are several devices."""
    return (MEASURED_ON,) if report.letters else ()


def by_case(report: Report) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """(what is said of a case, that and a metric for each of its metrics), text guarded, in the order of the tables."""
    extra, setters = argument_columns(report), set_by(report.records)
    for table in report.tables:
        for row in table.rows:
            arguments = {column: axis_text(row.record.case, name, setters) for column, name in extra.items()}
            common = _guarded(_common(report, row) | arguments)
            device = device_of(row.record)
            place = dict.fromkeys(device_columns(report), "" if device is None else device.text)
            entries = [common | _guarded(_of_device(entry, place) | entry) for entry in _entries(table, row)]
            yield common | _guarded(place), entries


def _of_device(entry: Mapping[str, Any], place: Mapping[str, str]) -> dict[str, str]:
    """Where a metric's value was measured; nothing of a count, or of what has no value."""
    of_device = tied(entry["metric"]) and entry["value"] is not None
    return {name: text if of_device else "" for name, text in place.items()}


@lru_cache(maxsize=4096)  # most cells of a large table say what others say
def guard(text: str) -> str:
    """Text on one line that no spreadsheet takes for a formula and no terminal for a command."""
    line = "\t".join(map(printable, _BREAKS.sub(" ", text).split("\t")))
    return "'" + line if _GUARDED.match(line) else line


def unguard(text: str) -> str:
    """The text that `guard` made this of, but for line breaks and what does not print."""
    return text[1:] if text.startswith("'") and _GUARDED.match(text) else text


def _guarded(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: guard(value) if isinstance(value, str) else value for key, value in entry.items()}


def _common(report: Report, row: Row) -> dict[str, Any]:
    case = row.record.case
    return {
        "spec": report.name,
        "mechanism": case.public.mechanism,
        "label": case.label,
        "args": json.dumps(dict(case.args), sort_keys=True, default=str),
        "batch": case.shape.batch,
        "channels": case.shape.channels,
        "height": case.shape.height,
        "width": case.shape.width,
        "dtype": case.dtype,
        "mode": case.mode,
        "device": case.device,
        "baseline": report.baseline or "",
        "status": row.record.status,
        "key": case.key,
        "frames": case.shape.frames,
        "host": "" if case.host is None else case.host.text,
        "settings": json.dumps(dict(case.settings), sort_keys=True, default=str),
    }


def _entries(table: Table, row: Row) -> list[dict[str, Any]]:
    """What each metric adds to the columns of the case."""
    entries: list[dict[str, Any]] = []
    for column, cell in zip(table.columns, row.cells, strict=True):
        if column.kind == "value":
            reading = cell.reading
            numbers = (None,) * 4 if reading is None else (reading.value, reading.low, reading.high, reading.n)
            named = dict(zip(NUMBERS[:4], numbers, strict=True)) | {"k": _processes(row, reading)}
            told = {"metric": column.key, "unit": METRICS[column.key].unit, "reason": cell.reason}
            entries.append(named | told | {"status": _status(row, cell)})
        elif column.kind == "ratio" and cell.ratio is not None:
            ratio = cell.ratio
            entries[-1] |= dict(zip(NUMBERS[5:], (ratio.delta, ratio.value, ratio.low, ratio.high), strict=True))
        if column.kind == "ratio" and cell.reason and not entries[-1]["reason"]:
            entries[-1]["reason"] = cell.reason
    return entries + crosscheck.csv_rows(row.record)


def _status(row: Row, cell: Cell) -> str:
    """That of the case; where it is ok and the metric has no value, what kind of reason there is."""
    if cell.reading is not None or row.record.status != "ok":
        return row.record.status
    return next((kind for kind in _NO_VALUE if cell.reason.startswith(kind)), "no value")


def _processes(row: Row, reading: Reading | None) -> int | None:
    """How many processes a sampled reading comes from."""
    timing = row.record.timing
    return None if timing is None or reading is None or reading.n is None else timing.k
