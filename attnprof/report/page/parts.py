"""What the page's template lays out: tables with the raw values behind their cells, cross-checks, what stood around the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attnprof.report.blocks import argument_text
from attnprof.report.crosscheck import error_text
from attnprof.report.metrics import METRICS
from attnprof.report.table import HEADS, Cell, Column, Report, Table, visible
from attnprof.report.text import clean, clip

_WORDS = {"lower": "less is better", "higher": "more is better", "": ""}
_MOST_SAID = 3
_ROOM = 120


def tables_of(report: Report) -> list[dict[str, Any]]:
    """Every table: title, heads, rows of cells with text, raw value and rank, footnotes."""
    out = []
    for number, table in enumerate(map(visible, report.tables), 1):
        rows = [[_cell(cell, column) for cell, column in zip(row.cells, table.columns, strict=True)] for row in table.rows]
        heads = [_head(column) for column in table.columns]
        out.append({"id": f"table-{number}", "title": table.title, "heads": heads, "rows": rows, "notes": table.footnotes})
    return out


def texts_of(tables: Sequence[Mapping[str, Any]], best: Mapping[str, Any] | None) -> list[tuple[str, list[list[str]]]]:
    """(id, rows of texts with the heads first) of the tables whose columns follow from the report."""
    out = []
    for table in tables:
        heads = [
            " ".join(filter(None, (head["of"], head["text"], head["unit"] and f"({head['unit']})"))) for head in table["heads"]
        ]
        out.append((table["id"], [heads, *([cell["text"] for cell in row] for row in table["rows"])]))
    if best is not None:
        out.append(("best", [["Where", *best["heads"]], *([row["title"], *row["texts"]] for row in best["rows"])]))
    return out


def _head(column: Column) -> dict[str, str]:
    name = METRICS[column.key].head if column.kind in ("delta", "ratio") and column.key in METRICS else ""
    return {
        "text": column.head,
        "of": name,  # a delta or ratio says of what
        "unit": column.unit,
        "word": _WORDS[column.direction],
        "kind": "text" if column.kind in HEADS else "number",
    }


def _cell(cell: Cell, column: Column) -> dict[str, Any]:
    value = None
    if column.kind == "value" and cell.reading is not None:
        value = cell.reading.value
    elif column.kind in ("delta", "ratio") and cell.ratio is not None:
        value = cell.ratio.delta if column.kind == "delta" else cell.ratio.value
    kind = "text" if column.kind in HEADS else "number"
    return {
        "text": cell.text,
        "value": "" if value is None else repr(value),
        "kind": kind,
        "rank": cell.rank,
        "note": cell.marker,
    }


def glance(report: Report) -> dict[str, Any] | None:
    """The best of each metric in each table; None where nothing is ranked."""
    tables = [visible(table) for table in report.tables]
    keys = dict.fromkeys(column.key for table in tables for column in table.columns if column.kind == "value")
    rows = [(table.title, [_best(table, key) for key in keys]) for table in tables]
    if not any(text for _, texts in rows for text in texts):
        return None
    shown = [i for i, _ in enumerate(keys) if any(texts[i] for _, texts in rows)]
    heads = [METRICS[key].head for key in keys]
    return {
        "heads": [heads[i] for i in shown],
        "rows": [{"title": title, "texts": [texts[i] or "-" for i in shown]} for title, texts in rows],
    }


def _best(table: Table, key: str) -> str:
    """'se (0.51 K)', of several the first and how many share its place."""
    at = [i for i, column in enumerate(table.columns) if (column.key, column.kind) == (key, "value")]
    best = [row for row in table.rows if at and row.cells[at[0]].rank == 1]
    if not best:
        return ""
    column, cell = table.columns[at[0]], best[0].cells[at[0]]
    more = f" and {len(best) - 1} more" if len(best) > 1 else ""
    return f"{clip(clean(best[0].record.case.label), 30)}{more} ({f'{cell.text} {column.unit}'.rstrip()})"


def crosschecks(report: Report) -> list[list[str]]:
    """A row per opinion of another counter: mechanism, shape, counter, MACs, error, verdict, why."""
    return [
        [
            clean(record.case.label),
            f"{record.case.shape.text()} {record.case.dtype}",
            opinion.counter,
            "-" if opinion.macs is None else f"{opinion.macs:,}",
            error_text(opinion),
            opinion.status,
            clean(opinion.sentence) if opinion.sentence else "-",
        ]
        for record in report.records
        for opinion in record.crosscheck
    ]


def surroundings(report: Report) -> list[tuple[str, str]]:
    """(key, value) of all environments of the records: nested keys with dots, of several values the first ones."""
    found: dict[str, dict[str, None]] = {}
    for record in report.records:
        for key, value in _flat(record.environment):
            found.setdefault(key, {})[clip(clean(argument_text(value)), _ROOM)] = None
    out = []
    for key, values in found.items():
        said = ", ".join(list(values)[:_MOST_SAID])
        out.append((clean(key), said if len(values) <= _MOST_SAID else f"{said} and {len(values) - _MOST_SAID} more"))
    return out


def _flat(environment: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = []
    for key, value in environment.items():
        if isinstance(value, Mapping):
            out += _flat(value, f"{before}{key}.")
        elif value not in (None, ""):
            out.append((f"{before}{key}", value))
    return out
