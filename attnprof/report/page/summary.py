"""The head of the page: what was asked, how many cases have an answer, what failed, what a mechanism adds to a network."""

from __future__ import annotations

from collections import Counter

from attnprof.report import deltas
from attnprof.report.charts.data import size_text
from attnprof.report.charts.scaling import metrics_of
from attnprof.report.metrics import METRICS
from attnprof.report.table import Report
from attnprof.report.text import clean, clip

_MOST = 8
_ROOM = 300


def facts(report: Report) -> list[tuple[str, str]]:
    """(what, value): cases by status, mechanisms, sizes and the rest of what was asked."""
    cases = [record.case for record in report.records]
    statuses = Counter(record.status for record in report.records)
    labels = dict.fromkeys(clean(case.label) for case in cases)
    values = {
        "Cases": f"{len(cases)}: {', '.join(f'{count} {status}' for status, count in statuses.most_common())}"
        if cases
        else "0",
        "Mechanisms": _listed(list(labels)),
        "Sizes": _listed(list(dict.fromkeys(map(size_text, cases)))),
        "Channels": _listed(list(dict.fromkeys(str(case.shape.channels) for case in cases))),
        "Batch": _listed(list(dict.fromkeys(str(case.shape.batch) for case in cases))),
        "Mode": _listed(list(dict.fromkeys(case.mode for case in cases))),
        "Dtype": _listed(list(dict.fromkeys(case.dtype for case in cases))),
        "Device": _listed(["none: traced only" if case.device == "none" else clean(case.device) for case in cases]),
        "Network": _listed([clean(case.host.text) for case in cases if case.host is not None]),
        "Baseline": clean(report.baseline) if report.baseline else "",
        "Spec": report.source[:12],
        "Commit": report.commit[:12],
    }
    return [(name, value) for name, value in values.items() if value]


def _listed(values: list[str]) -> str:
    distinct = list(dict.fromkeys(values))
    more = len(distinct) - _MOST
    return ", ".join(distinct[:_MOST]) + (f" and {more} more" if more > 0 else "")


def sentences(report: Report) -> tuple[str, ...]:
    """What each mechanism adds to a network, where there is one; else nothing, the tables say it."""
    if not any(record.case.host is not None for record in report.records):
        return ()
    names = [metric.key for metric in metrics_of(report) if metric.key in METRICS]
    return deltas.sentences(deltas.deltas_of(report.records, names))


def failures(report: Report) -> list[tuple[str, str, str]]:
    """(case, status, detail) of every case that is not ok."""
    return [
        (
            f"{clean(record.case.label)}, {record.case.shape.text()}, {record.case.mode}",
            clean(record.status),
            clip(clean(record.detail), _ROOM) if record.detail else "-",
        )
        for record in report.records
        if record.status != "ok"
    ]
