"""Report -> Markdown: a pipe table per block, best in bold and second underlined per column, footnotes under each table."""

from __future__ import annotations

import re
from functools import lru_cache

from attnprof.report import crosscheck
from attnprof.report.table import HEADS, Cell, Column, Report, Table, visible
from attnprof.report.text import clean

_ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}
_SPECIAL = re.compile(r"[\\`*|~]|(?<![^\W_])_|_(?![^\W_])|(?<=\])\(")


def render(report: Report) -> str:
    """The whole report as Markdown, tables as pipe tables, ending with its notes."""
    lines = [f"# {escape(report.name)}", ""]
    for table in report.tables:
        lines += _table(visible(table))
    if not report.tables:
        lines += ["No cases.", ""]
    lines += crosscheck.markdown(report.records, escape)
    if report.notes:
        lines += ["## Notes", "", *(f"- {escape(note)}" for note in report.notes), ""]
    return "\n".join(lines)


@lru_cache(maxsize=4096)  # most cells of a large table say what others say
def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line: no cell, emphasis, link or tag can begin in it."""
    plain = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(lambda match: "\\" + match.group(), plain)


def _table(table: Table) -> list[str]:
    from tabulate import tabulate  # 50 ms that `list` and the console do not need

    sides = ["left" if column.kind in HEADS else "right" for column in table.columns]
    rows = [[_cell(cell) for cell in row.cells] for row in table.rows]
    heads = [_head(column) for column in table.columns]
    grid = tabulate(rows, heads, tablefmt="pipe", colalign=sides, disable_numparse=True)
    lines = [f"## {escape(table.title)}", "", *grid.split("\n"), ""]
    if table.footnotes:
        lines += [f"({i}) {escape(note)}  " for i, note in enumerate(table.footnotes, 1)] + [""]
    return lines


def _head(column: Column) -> str:
    unit = f" ({column.unit})" if column.unit else ""
    return f"{escape(column.head)}{unit}{_ARROWS[column.direction]}"


def _cell(cell: Cell) -> str:
    text = escape(cell.marked)
    less, number = ("&lt;", text[4:]) if text.startswith("&lt;") else ("", text)  # a line under it would make it less or equal
    return {1: f"**{text}**", 2: f"{less}<u>{number}</u>"}.get(cell.rank, text)
