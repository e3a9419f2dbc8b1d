"""Reports: Records in, text out. Pure, but for `write`, which puts files into a directory; no torch, no pandas.

What others call:

    build(records, *, name, baseline, metrics, inverse=False) -> Report       table.py: tables, footnotes, notes
    FORMATS[name](report) -> str                                               'md', 'csv', 'json'
    write(records, meta, formats, out_dir) -> list[Path]                       NAME.md, NAME.csv, ... in out_dir, atomically
    check_formats(formats) -> tuple[str, ...]                                  before a run: UsageError for an unknown one
    console.render(report) -> str                                              what `run` prints: at most 80 columns
    json.data(records, name) -> dict                                           what `run --json` prints
    compare.comparison(records, first_label, metrics) -> Comparison            then compare.render(c, sort) or compare.data(c)
    explain.render(record, top=15) -> str                                      what `explain` prints
    catalogue.list_text(entries), catalogue.show_text(...) -> str              what `list` and `show` print
    metrics.metric(name) -> Metric                                             UsageError with the nearest name
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attnprof.errors import UsageError
from attnprof.records import Record
from attnprof.report import csv, json, markdown
from attnprof.report.metrics import DEFAULT_METRICS
from attnprof.report.table import Report, build

FORMATS: Mapping[str, Callable[[Report], str]] = {"md": markdown.render, "csv": csv.render, "json": json.render}

__all__ = ["FORMATS", "Meta", "Report", "build", "check_formats", "file_stem", "write"]


@dataclass(frozen=True)
class Meta:
    """What a report needs to know of the spec: its name, the baseline's label, the metrics to show."""

    name: str
    baseline: str | None = None
    metrics: Sequence[str] = DEFAULT_METRICS


def check_formats(formats: Iterable[str]) -> tuple[str, ...]:
    """The formats, once each. Raises UsageError with the nearest name for one that does not exist."""
    chosen = tuple(dict.fromkeys(formats))
    for name in chosen:
        if name not in FORMATS:
            near = difflib.get_close_matches(name, FORMATS, n=1)
            advice = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(FORMATS)}."
            raise UsageError(f"no report format is called '{name}': {advice}")
    return chosen


def file_stem(name: str) -> str:
    """A spec's name as a file name: no separators, not hidden, never empty."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:100] or "report"


def write(records: Sequence[Record], meta: Meta, formats: Iterable[str], out_dir: Path) -> list[Path]:
    """Write the report in every format to out_dir/NAME.FORMAT; a reader sees the old file or the new one, never a part."""
    chosen = check_formats(formats)
    report = build(records, name=meta.name, baseline=meta.baseline, metrics=meta.metrics)
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in chosen:
        path = out_dir / f"{file_stem(meta.name)}.{name}"
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(FORMATS[name](report), encoding="utf-8", errors="backslashreplace", newline="")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        paths.append(path)
    return paths
