"""The nouns of a report and what is done with a finished table: Report, Table, Row, Cell, Column, Look; sort, visible, narrow.

Cells carry the raw reading beside their text, so that a renderer only lays out. No cell is empty: a failure shows its status,
what was not measured '-', and both refer to a footnote. building.py makes them of records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from attnprof.errors import UsageError
from attnprof.records import Record
from attnprof.report.devices import Device, place_of, tied
from attnprof.report.metrics import NOT_MEASURED_DEVICE, Reading, metric
from attnprof.report.ratios import Ratio
from attnprof.report.text import clean, clip

MISSING = "-"
HEADS = ("label", "axis", "size", "device")  # kinds of columns that say whose row it is
HIGHLIGHTS = ("significant", "best", "none")
FOOTNOTE_ROOM = 200


@dataclass(frozen=True)
class Look:
    """How a report is to look: what is marked as best; LaTeX: which package aligns, a whole document or not; CSV: its form."""

    highlight: str = "significant"  # one of HIGHLIGHTS: where intervals tell them apart, on the values alone, nothing
    latex: str = "booktabs"  # or siunitx
    standalone: bool = False
    wide: bool = False  # CSV with a row per case, not one per case and metric


@dataclass(frozen=True)
class Column:
    """One column. `key` is the metric's or argument's name, `kind` is label, axis, size, device, value, delta or ratio."""

    key: str
    head: str
    unit: str
    direction: str
    kind: str


@dataclass(frozen=True)
class Cell:
    """One cell: its text, the reading or ratio behind it, why it has none, the footnote's number, the rank in the column."""

    text: str
    reading: Reading | None = None
    ratio: Ratio | None = None
    reason: str = ""
    marker: int = 0
    rank: int = 0

    @property
    def marked(self) -> str:
        """The text with the number of its footnote."""
        return f"{self.text} ({self.marker})" if self.marker else self.text


@dataclass(frozen=True)
class Row:
    """One case: its record, and one cell per column of the table."""

    record: Record
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """The cases of one block; cells refer to the footnotes by number, from 1. `visible` shows what is `picked`, or all."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[str, ...] = ()
    picked: frozenset[tuple[str, str]] = frozenset()  # (key, kind) of columns, where some were asked for


@dataclass(frozen=True)
class Report:
    """All tables of a run, the notes that hold for all of them, and the records they were made from, in order.

    `source` and `commit`: hash of the spec's text and commit of its repository at the time of the run; '' where not known.
    `letters`: of the devices that measured, where there are several. `missing`: sentences on cases that are not there.
    """

    name: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    records: tuple[Record, ...]
    baseline: str | None = None
    look: Look = field(default_factory=Look)
    source: str = ""
    commit: str = ""
    letters: Mapping[Device, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def sort(table: Table, key: str) -> Table:
    """Rows by the value of a metric, the better first, those without a value last; what devices measured, device by device.

    Raises UsageError for no such metric, and for one that is not to be seen in the table.
    """
    wanted = metric(key)
    shown = [column.key for column in visible(replace(table, picked=frozenset())).columns if column.kind == "value"]
    if wanted.key not in shown:
        raise UsageError(f"the table cannot be sorted by '{key}', which it does not show: it shows {', '.join(shown)}.")
    at = next(i for i, column in enumerate(table.columns) if (column.key, column.kind) == (wanted.key, "value"))
    sign = -1 if wanted.higher_is_better else 1

    places: dict[object, int] = {}
    for row in table.rows:
        if row.cells[at].reading is not None:
            places.setdefault(place_of(row.record, wanted), len(places))

    def place(row: Row) -> tuple[bool, int, float]:
        reading = row.cells[at].reading
        if reading is None:
            return (True, 0, 0.0)
        return (False, places[place_of(row.record, wanted)], sign * reading.value)

    return replace(table, rows=tuple(sorted(table.rows, key=place)))


def visible(table: Table) -> Table:
    """Without the metrics that the whole table lacks because nothing was to be measured (device none; the notes say so).

    Of the others the columns that were picked, where any were.
    """
    hidden = {
        column.key
        for i, column in enumerate(table.columns)
        if column.kind == "value" and table.rows and all(row.cells[i].reason == NOT_MEASURED_DEVICE for row in table.rows)
    }
    asked = [i for i, column in enumerate(table.columns) if column.kind in HEADS or _picked(table, column)]
    keep = [i for i in asked if table.columns[i].kind in HEADS or table.columns[i].key not in hidden]
    if all(table.columns[i].kind in HEADS for i in keep):
        keep = asked
    if not any(tied(table.columns[i].key) for i in keep):
        keep = [i for i in keep if table.columns[i].kind != "device"]
    return narrow(table, keep)


def narrow(table: Table, keep: Sequence[int]) -> Table:
    """The table with these columns alone; its footnotes are numbered anew."""
    rows = tuple(Row(row.record, tuple(row.cells[i] for i in keep)) for row in table.rows)
    return numbered(replace(table, columns=tuple(table.columns[i] for i in keep), rows=rows))


def _picked(table: Table, column: Column) -> bool:
    return not table.picked or (column.key, column.kind) in table.picked


def numbered(table: Table) -> Table:
    """The table with its footnotes: reasons numbered in reading order, equal ones once."""
    numbers: dict[str, int] = {}
    rows = []
    for row in table.rows:
        marked = []
        for cell in row.cells:
            marker = numbers.setdefault(cell.reason, len(numbers) + 1) if cell.reason else 0
            marked.append(cell if cell.marker == marker else replace(cell, marker=marker))
        rows.append(Row(row.record, tuple(marked)))
    return replace(table, rows=tuple(rows), footnotes=tuple(clip(clean(reason), FOOTNOTE_ROOM) for reason in numbers))
