"""What a table in a paper says of itself: its title, what the marks mean, conventions, intervals, and what it was made with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attnprof.records import ALONE, Record
from attnprof.report.code import different_code
from attnprof.report.devices import device_notes, tied
from attnprof.report.kernels import kernel_notes
from attnprof.report.metrics import METRICS
from attnprof.report.notes import conventions, environment_notes, settings_notes, unsteady
from attnprof.report.table import Look, Report, Table
from attnprof.report.tex import breakable
from attnprof.report.text import clean

_SHARED = "values that no interval tells apart (of timings side by side: that of their ratio) share a mark"
_TIMED = {"latency", "throughput", "bound_ratio"}
_IN_CAPTION = {"flops", "latency", "throughput"}


def caption(report: Report, table: Table, of: str = "") -> str:
    """Title, which part (`of`), what bold means, the convention of operations, what ± is, how many samples; in TeX."""
    keys = {column.key for column in table.columns}
    kinds = {column.kind for column in table.columns}
    baseline = "the network alone" if report.baseline == ALONE else clean(report.baseline or "")
    said = [f"{clean(report.name)}: {table.title}" + (f" ({of})" if of else ""), *_marks(table, report.look)]
    said += ["FLOPs: 2 per MAC, plus element-wise and softmax work"] if "flops" in keys else []
    said += [f"{kind.capitalize()}: {text}" for kind, text in _held_against(baseline) if report.baseline and kind in kinds]
    timed = [row.record for row in table.rows if row.record.timing is not None and row.record.timing.n]
    if keys & _TIMED and timed:
        said += _sampled(timed, table, report.look)
    return " ".join(f"{breakable(text)}." for text in said)


def _held_against(baseline: str) -> Iterable[tuple[str, str]]:
    return (("delta", f"value - value of {baseline}"), ("ratio", f"value / value of {baseline}"))


def foot(report: Report, table: Table) -> str:
    """What is not there, what the columns mean and what the numbers were made with, as far as it is known: to spec and commit.

    A document of its own has the meanings among its notes.
    """
    records = [row.record for row in table.rows]
    said = [*report.missing, *different_code(report.records)]
    said += [] if report.look.standalone else _meanings(table, records)
    said += device_notes(records, report.letters) if any(tied(column.key) for column in table.columns) else []
    said += [*environment_notes(records), *settings_notes(records), *_caches(records)]
    said += [f"Spec: SHA-256 {report.source}."] if report.source else []
    said += [f"Commit: {report.commit}."] if report.commit else []
    return " ".join(said)


def _meanings(table: Table, records: Sequence[Record]) -> list[str]:
    """What a reader of the table alone has to know: conventions, whose kernel was traced, which warm-up was not steady."""
    keys = {column.key for column in table.columns}
    said = conventions([each for each in METRICS.values() if each.key in keys - _IN_CAPTION], records)
    said += kernel_notes(records) if any(key in METRICS and METRICS[key].traced for key in keys) else []
    return said + (unsteady(records) if keys & _TIMED else [])


def _marks(table: Table, look: Look) -> list[str]:
    """What bold and underlined mean, where anything is."""
    cells = [cell for row in table.rows for cell in row.cells if cell.rank]
    if not any(cell.rank == 1 for cell in cells):
        return []
    second = ", second underlined" if look.latex == "booktabs" and any(cell.rank == 2 for cell in cells) else ""
    how = ""
    if any(cell.reading is not None and cell.reading.low is not None for cell in cells):
        how = ", whatever their intervals" if look.highlight == "best" else f"; {_SHARED}"
    unrounded = ", by the unrounded values" if _close(table, look) else ""
    return [f"Best of a column in bold{second}{unrounded}{how}"]


def _close(table: Table, look: Look) -> bool:
    """Whether two cells of a column read alike and are not marked alike."""
    shown = (1, 2) if look.latex == "booktabs" else (1,)
    cells = [(i, cell) for row in table.rows for i, cell in enumerate(row.cells) if cell.reading is not None]
    marks = {(i, cell.text, cell.rank if cell.rank in shown else 0) for i, cell in cells}
    return len({(i, text) for i, text, _ in marks}) < len(marks)


def _sampled(records: Sequence[Record], table: Table, look: Look) -> list[str]:
    """'Latency: median; ± is ...; n = 12 to 40 samples, K = 1 process'; what the interval of a ratio of latencies is."""
    n = sorted(record.timing.n for record in records if record.timing is not None)
    k = sorted(record.timing.k for record in records if record.timing is not None)
    covers = "within one process" if k[-1] == 1 else "over processes" if k[0] > 1 else "within one process or over several"
    texts = [
        (column, row.cells[i].text) for row in table.rows for i, column in enumerate(table.columns) if column.key in _TIMED
    ]
    parts = ["Latency: median"]
    if any("±" in text for column, text in texts if column.kind == "value"):
        sign = "the digits in parentheses are" if look.latex == "siunitx" else "± is"
        few = " (below 6 samples: the range)" if n[0] < 6 else ""
        parts.append(f"{sign} the larger side of its 95 % interval {covers}{few}")
    if any("[" in text for column, text in texts if column.kind == "value"):
        parts.append("[low, high] where one side of the interval is over 1.5 times the other")
    parts.append(f"n = {_range(n)} samples, K = {_range(k)} process{'' if k[-1] == 1 else 'es'}")
    said = ["; ".join(parts)]
    if any("[" in text for column, text in texts if column.kind == "ratio"):
        said.append("Latency ratio: over rounds timed side by side, with its 95 % interval")
    return said


def _caches(records: Sequence[Record]) -> list[str]:
    """Whether caches were flushed before each timed pass, where the records know."""
    timed = [record for record in records if record.timing is not None and "flush_bytes" in record.environment]
    sizes = [record.environment["flush_bytes"] for record in timed]
    found = sorted({size for size in sizes if isinstance(size, int) and size >= 0})
    if not found:
        return []
    cold = [f"cold, {size / 2**20:g} MiB written before each pass" for size in found if size]
    return [f"Caches: {' or '.join([*(['warm'] if 0 in found else []), *cold])}."]


def _range(values: Sequence[int]) -> str:
    return f"{values[0]}" if values[0] == values[-1] else f"{values[0]} to {values[-1]}"
