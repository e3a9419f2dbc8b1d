"""What is other in one baseline than in another: more, less, only in one of them. Nothing is judged here: that is for the gate.

Rows -> text of at most 80 columns, Markdown, and JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from attnprof.gate import ratio_rows
from attnprof.gate.baseline import Baseline, Point
from attnprof.gate.judge import change
from attnprof.gate.rows import EXACT, POINT, RATIO, Reason
from attnprof.report.markdown import escape
from attnprof.report.text import clean, wrap
from attnprof.spec.values import EXACT_METRICS

SCHEMA = 1
# 1  2026-11  first: a, b, made_a, made_b, counts, notes, rows
KIND = "attnprof baseline diff"


class What(StrEnum):
    """How a number of B stands to that of A. OTHER: it cannot be said that it is more or less."""

    MORE = "more"
    LESS = "less"
    OTHER = "other"
    ONLY_A = "only in A"
    ONLY_B = "only in B"
    EQUAL = "equal"


@dataclass(frozen=True)
class Difference:
    """One number of a point, or a whole point (POINT as metric), in both."""

    kind: str  # EXACT or RATIO
    what: What
    sentence: str
    label: str
    point: str
    metric: str
    key: str
    before: float | None = None
    after: float | None = None


@dataclass(frozen=True)
class Differences:
    """All of two files. a, b: their paths."""

    a: Path
    b: Path
    before: Baseline
    after: Baseline
    rows: tuple[Difference, ...]
    notes: tuple[str, ...] = ()

    @property
    def other(self) -> list[Difference]:
        """The rows that are not equal, in the order of What."""
        return [row for what in What if what is not What.EQUAL for row in self.rows if row.what is what]

    @property
    def verdict(self) -> str:
        """'2 of 40 numbers differ: 2 more.'"""
        counts, other = Counter(row.what for row in self.rows), len(self.other)
        if not other:
            return f"All {len(self.rows):,} numbers are equal."
        named = ", ".join(f"{counts[what]:,} {what}" for what in What if counts[what] and what is not What.EQUAL)
        return f"{other:,} of {len(self.rows):,} numbers differ: {named}."


def between(a: Path, b: Path, before: Baseline, after: Baseline) -> Differences:
    """Compare point by point, by case key; a change is told as from A to B."""
    notes = []
    if before.made.torch != after.made.torch:
        notes.append(f"{a} was made with torch {before.made.torch}, {b} with torch {after.made.torch}.")
    if before.ratios is not None and after.ratios is not None and before.ratios.device != after.ratios.device:
        notes.append(f"The ratios of {a} were measured on {before.ratios.device}, those of {b} on {after.ratios.device}.")
    rows = [
        row for key in {**before.points, **after.points} for row in _of_point(before.points.get(key), after.points.get(key))
    ]
    return Differences(a, b, before, after, (*rows, *_ratios(before, after)), tuple(notes))


def _of_point(a: Point | None, b: Point | None) -> list[Difference]:
    """A row per metric where both have it, one for a point that only one has or that failed in one of them."""
    point = b or a
    assert point is not None
    which = (point.label, point.text)
    if a is None or b is None:
        what = What.ONLY_B if a is None else What.ONLY_A
        return [
            Difference(EXACT, what, f"{point.name}: {what}", *which, POINT, point.key, int(a is not None), int(b is not None))
        ]
    if not a.status == b.status == "ok":
        same = a.status == b.status
        told = f"{a.status} in both" if same else f"{_status(a)} in A, {_status(b)} in B"
        return [Difference(EXACT, What.EQUAL if same else What.OTHER, f"{point.name}: {told}", *which, POINT, point.key)]
    out = []
    for metric in EXACT_METRICS:
        old, new = a.metrics[metric], b.metrics[metric]
        what = What.EQUAL if old == new else What.MORE if new > old else What.LESS
        told = f"{point.name}: {change(metric, old, new)}"
        out.append(Difference(EXACT, what, told, *which, metric, point.key, old, new))
    return out


def _status(point: Point) -> str:
    return "counted" if point.status == "ok" else point.status


def _ratios(before: Baseline, after: Baseline) -> list[Difference]:
    """The ratios of latency; intervals that overlap are equal where they are the same, and other where they are not."""
    words = {Reason.NEW_POINT: What.ONLY_B, Reason.VANISHED: What.ONLY_A, Reason.CLEAR_GAP: What.MORE, Reason.LOWER: What.LESS}
    out = []
    for row in ratio_rows.differences(before, after):
        same = row.reason is Reason.WITHIN_TOL and row.before == row.after
        what = words.get(row.reason, What.EQUAL if same else What.OTHER)
        only = what in (What.ONLY_A, What.ONLY_B)
        told = f"{row.label} {row.point}: latency ratio {what}" if only else row.sentence
        out.append(Difference(RATIO, what, told, row.label, row.point, row.metric, row.key, row.before, row.after))
    return out


def table(found: Differences) -> str:
    """A sentence per number that differs, then how many do."""
    lines = [*wrap(f"A is {found.a}, B is {found.b}."), ""] if found.other else []
    lines += [line for row in found.other for line in wrap(row.sentence, indent="  ")]
    return "\n".join([*lines, *(line for note in found.notes for line in wrap(note)), *wrap(found.verdict)]) + "\n"


def markdown(found: Differences) -> str:
    """The same under a heading per word. It has no marker: it is no comment of the gate."""
    lines = [f"## {escape(f'{found.a} (A) and {found.b} (B)')}", "", escape(found.verdict), ""]
    lines += [f"> {escape(note)}\n" for note in found.notes]
    for what in What:
        rows = [row for row in found.other if row.what is what]
        lines += [f"### {what}: {len(rows):,}", "", *_items(rows), ""] if rows else []
    return "\n".join(lines).rstrip("\n") + "\n"


def _items(rows: Sequence[Difference]) -> list[str]:
    return [f"- {escape(row.sentence)}" for row in rows]


def data(found: Differences) -> dict[str, Any]:
    """All rows as plain JSON types; `before` and `after` are `from` and `to`."""
    counts = Counter(row.what for row in found.rows)
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "a": str(found.a),
        "b": str(found.b),
        "made_a": asdict(found.before.made),
        "made_b": asdict(found.after.made),
        "verdict": found.verdict,
        "counts": {what.value: counts[what] for what in What},
        "notes": [clean(note) for note in found.notes],
        "rows": [_row_data(row) for row in found.rows],
    }


def _row_data(row: Difference) -> dict[str, Any]:
    fields = asdict(row)
    named = {"class": fields.pop("kind"), "from": fields.pop("before"), "to": fields.pop("after")}
    return {**named, **fields, "what": row.what.value}
