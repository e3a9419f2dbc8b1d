"""Report -> plain text of at most 80 columns: metrics that do not fit side by side go into a further panel of the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attnprof.report import crosscheck
from attnprof.report.devices import tied
from attnprof.report.table import Report, Table, visible
from attnprof.report.text import WIDTH, clean, clip, fit, grid, width, wrap

_LABEL_ROOM = 26
_WIDE_LABEL_ROOM = 40
_GAP = 2


def render(report: Report) -> str:
    """The whole report for a terminal or a log."""
    lines = [clip(clean(report.name), WIDTH), ""]
    for table in report.tables:
        lines += [*table_lines(table), ""]
    if not report.tables:
        lines += ["No cases.", ""]
    lines += crosscheck.section(report.records)
    return "\n".join(lines + note_lines(report.notes)) + "\n"


def table_lines(table: Table) -> list[str]:
    """Title, panels and footnotes of one table; arguments of an axis stand in the label here."""
    table = visible(table)
    lines = [*wrap(table.title), ""]
    for i, panel in enumerate(_panels(table)):
        lines += ([""] if i else []) + _panel(table, panel)
    if table.footnotes:
        lines.append("")
        for i, note in enumerate(table.footnotes, 1):
            lines += wrap(f"({i}) {note}", indent="    ")
    return lines


def note_lines(notes: Iterable[str]) -> list[str]:
    """Notes, wrapped."""
    return [line for note in notes for line in wrap(f"- {note}", indent="  ")]


def _text(table: Table, column: int) -> list[str]:
    """Both head lines of a column, then its cells."""
    head = table.columns[column]
    unit = f"({head.unit})" if head.unit else ""
    lines = [head.head, unit] if head.kind not in ("ratio", "delta") else ["", head.head]
    return lines + [row.cells[column].marked for row in table.rows]


def _label_room(table: Table) -> int:
    labels = _text(table, 0)
    short = {clip(label, _LABEL_ROOM) for label in labels}
    placed = any(row.record.case.host is not None for row in table.rows)  # labels say where: the question of such a table
    room = _LABEL_ROOM if len(short) == len(set(labels)) and not placed else _WIDE_LABEL_ROOM
    return fit([labels], [room])[0]


def _panels(table: Table) -> list[list[int]]:
    """Columns per panel: a value keeps its ratio (in a network its delta) beside it where the two fit; as many as fit.

    The column of devices stands before the first metric of a panel that belongs to one.
    """
    room = WIDTH - _label_room(table)
    beside = "delta" if any(row.record.case.host is not None for row in table.rows) else "ratio"
    groups: list[list[int]] = []
    for i, column in enumerate(table.columns):
        if column.kind in ("size", "value"):
            groups.append([i])
        elif column.kind == beside and _taken(table, [*groups[-1], i]) <= room:
            groups[-1].append(i)
        elif column.kind == beside:
            groups.append([i])
    panels: list[list[int]] = []
    device = [i for i, column in enumerate(table.columns) if column.kind == "device"]
    for group in groups:
        before = device if tied(table.columns[group[0]].key) else []
        more = [*(i for i in before if not panels or i not in panels[-1]), *group]
        if panels and _taken(table, [*panels[-1], *more]) <= room:
            panels[-1] += more
        else:
            panels.append([*before, *group])
    return panels or [[]]


def _taken(table: Table, columns: Sequence[int]) -> int:
    return sum(_GAP + max(map(width, _text(table, i))) for i in columns)


def _panel(table: Table, columns: Sequence[int]) -> list[str]:
    label = _label_room(table)
    texts = [_text(table, i) for i in (0, *columns)]
    widths = [label, *fit(texts[1:], [WIDTH - label - _GAP] * len(columns))]
    lines = list(zip(*texts, strict=True))
    heads = lines[:2] if any(lines[1]) else lines[:1]
    return grid(heads, lines[2:], widths)
