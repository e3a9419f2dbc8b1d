"""Reports: Records in, text out. Pure, but for `write`, which puts files into a directory; no torch, no pandas.

What others call:

    build(records, *, name, baseline, metrics, inverse=False, ...) -> Report   building.py: tables, footnotes, notes
    FORMATS[name](report) -> {suffix: text or bytes}                           'md', 'csv', 'json', 'latex', 'html', 'figure'
    write(records, meta, formats, out_dir) -> list[Path]                       NAME.md, NAME.tex, ... in out_dir, atomically
    check_size(formats, cases)                                                 before a run: UsageError for too many to draw
    check_formats(formats) -> tuple[str, ...]                                  before a run: UsageError for an unknown one
    console.render(report) -> str                                              what `run` prints: at most 80 columns
    json.data(records, name, missing) -> dict                                  what `run --json` prints
    compare.comparison(records, first_label, metrics) -> Comparison            then compare.render(c, sort) or compare.data(c)
    explain.render(record, top=15) -> str                                      what `explain` prints
    catalogue.list_text(entries), catalogue.show_text(...) -> str              what `list` and `show` print
    metrics.metric(name) -> Metric                                             UsageError with the nearest name
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from attnprof.errors import UsageError
from attnprof.records import Record
from attnprof.report import csv, json, markdown, wide
from attnprof.report.building import build
from attnprof.report.columns import chosen_metrics
from attnprof.report.metrics import DEFAULT_METRICS
from attnprof.report.table import Look, Report

Files = Mapping[str, str | bytes]  # {suffix of the file's name: what stands in it}


def _latex(report: Report) -> Files:
    from attnprof.report import latex

    return {".tex": latex.render(report)}


def _html(report: Report) -> Files:
    from attnprof.report import page

    return {".html": page.render(report)}


def _figure(report: Report) -> Files:
    from attnprof.report import figures

    return figures.figures(report)


FORMATS: Mapping[str, Callable[[Report], Files]] = {
    "md": lambda report: {".md": markdown.render(report)},
    "csv": lambda report: {".csv": (wide if report.look.wide else csv).render(report)},
    "json": lambda report: {".json": json.render(report)},
    "latex": _latex,
    "html": _html,
    "figure": _figure,
}
# What a format always writes, by which an earlier report is known; a glob, since figures are as many as there are charts.
_WRITTEN = {"md": ".md", "csv": ".csv", "json": ".json", "latex": ".tex", "html": ".html", "figure": "-*.svg"}
MOST_DRAWN = 5_000  # cases of a page or figure
_NEEDS = {"html": ("altair", "vl_convert"), "figure": ("altair", "vl_convert")}

__all__ = ["FORMATS", "Look", "Meta", "Report", "build", "check_formats", "check_size", "file_stem", "there", "write"]


@dataclass(frozen=True)
class Meta:
    """What a report needs to know beside its records: the spec's name, the baseline's label, the metrics, how it is to look.

    `columns`: metrics, METRIC.value, METRIC.delta, METRIC.ratio, or ratio and delta for all; in place of `metrics`, all their
    columns. `source` is the hash of the spec's text and `commit` that of its repository where they are known. `missing`:
    sentences on cases that have no record or no final one, the first of the notes: then nothing is marked as best.
    """

    name: str
    baseline: str | None = None
    metrics: Sequence[str] = DEFAULT_METRICS
    columns: Sequence[str] = ()
    sort: str | None = None
    look: Look = field(default_factory=Look)
    source: str = ""
    commit: str = ""
    missing: Sequence[str] = ()


def check_formats(formats: Iterable[str]) -> tuple[str, ...]:
    """The formats, once each. Raises UsageError with the nearest name for one that does not exist, and for a missing extra."""
    chosen = tuple(dict.fromkeys(formats))
    for name in chosen:
        if name not in FORMATS:
            near = difflib.get_close_matches(name, FORMATS, n=1)
            advice = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(FORMATS)}."
            raise UsageError(f"no report format is called '{name}': {advice}")
        lacking = _lacking(name)
        if lacking:
            raise UsageError(f"the format '{name}' needs {' and '.join(lacking)}: pip install 'attnprof[plots]'.")
    return chosen


def _lacking(name: str) -> list[str]:
    """The packages that a format needs and that are not installed."""
    return [package for package in _NEEDS.get(name, ()) if importlib.util.find_spec(package) is None]


def there(folder: Path, stem: str) -> list[str]:
    """The formats that `folder` holds a report of this name in and that can be written again."""
    return [name for name, suffix in _WRITTEN.items() if not _lacking(name) and any(folder.glob(f"{stem}{suffix}"))]


def file_stem(name: str) -> str:
    """A spec's name as a file name: no separators, not hidden, never empty."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:100] or "report"


def build_as(records: Sequence[Record], meta: Meta) -> Report:
    """The report that `meta` describes. Raises UsageError for columns that do not exist or cannot be sorted by.

    Where cases are missing, the best would be the best of those that happen to be there.
    """
    report = build(
        records,
        name=meta.name,
        baseline=meta.baseline,
        metrics=chosen_metrics(meta.columns) or meta.metrics,
        columns=meta.columns,
        order=meta.sort,
        look=replace(meta.look, highlight="none") if meta.missing else meta.look,
        source=meta.source,
        commit=meta.commit,
    )
    return replace(report, notes=(*meta.missing, *report.notes), missing=tuple(meta.missing))


def check_size(formats: Iterable[str], cases: int) -> None:
    """Raise UsageError where a page or a figure would hold more cases than a browser opens or an eye tells apart."""
    drawn = [name for name in formats if name in _NEEDS]
    if drawn and cases > MOST_DRAWN:
        raise UsageError(
            f"--format {','.join(drawn)}: {cases:,} cases are more than a page or a figure can show ({MOST_DRAWN:,}): leave it "
            "out (md, csv and json hold them all), or draw fewer: `attnprof run SPEC --only GLOB --format html`."
        )


def write(
    records: Sequence[Record],
    meta: Meta,
    formats: Iterable[str],
    out_dir: Path,
    whole: Iterable[Record] | None = None,
) -> list[Path]:
    """Write the report in every format to out_dir/NAME.SUFFIX; a reader sees the old file or the new one, never a part.

    JSON is of `whole`, where `records` are outlines: they are taken one at a time.
    """
    chosen = check_formats(formats)
    check_size(chosen, len(records))
    report = build_as(records, meta)
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in chosen:
        if name == "json":
            files: Mapping[str, str | bytes | Iterator[str]] = {".json": json.chunks(whole or records, meta.name, meta.missing)}
        else:
            files = FORMATS[name](report)
        for suffix, content in files.items():
            path = out_dir / f"{file_stem(meta.name)}{suffix}"
            _put(path, content)
            paths.append(path)
    return paths


def _put(path: Path, content: str | bytes | Iterator[str]) -> None:
    """Write a file beside its place and move it there. An OSError names the place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            for part in [content] if isinstance(content, (str, bytes)) else content:
                file.write(part if isinstance(part, bytes) else part.encode("utf-8", errors="backslashreplace"))
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
