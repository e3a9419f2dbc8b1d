"""What other counters say: text, Markdown, CSV rows and JSON of the opinions that records hold.

An error is macs / traced macs - 1 in percent. A disagreement has its sentence beside it everywhere; `unexplained` is a
verdict like any other and stands out by its word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from attnprof import units
from attnprof.records import SCHEMA_VERSION, VERDICTS, Opinion, Record, to_json
from attnprof.report.metrics import assumption
from attnprof.report.notes import traced_by_text
from attnprof.report.text import WIDTH, clean, clip, fit, grid, wrap

NOTE = (
    "Every counter gets the same module with the same input, in evaluation, and one forward pass; MACs throughout (torch's"
    " FLOPs halved). Error: against the traced MACs. Took: with the counter's own imports, and a second pass to see what ran."
)
_WARNED = 3
_ROOM = 120


def data(records: Sequence[Record]) -> dict[str, Any]:
    """{"schema", "crosscheck": [{"mechanism", "label", "shape", "dtype", "macs", "status", "detail", "counters": [...]}]}."""
    return {"schema": SCHEMA_VERSION, "crosscheck": [_entry(record) for record in records]}


def _entry(record: Record) -> dict[str, Any]:
    case = record.case
    return {
        "mechanism": case.public.mechanism,
        "label": case.label,
        "args": dict(case.args),
        "shape": case.shape.text(),
        "dtype": case.dtype,
        "macs": None if record.counts is None else record.counts.macs,
        "uncounted": {} if record.counts is None else dict(record.counts.uncounted),
        "assumed": {} if record.counts is None else dict(record.counts.assumed),
        "traced_by": None if record.counts is None else record.counts.traced_by,
        "status": record.status,
        "detail": record.detail,
        "counters": [to_json(opinion) for opinion in record.crosscheck],
    }


def error_text(opinion: Opinion) -> str:
    """'0', '-90.2 %', '+0.16 %'; '-' without a number, 'x of none' words where the trace has no MACs."""
    if opinion.macs is None:
        return "-"
    if opinion.error is None:
        return "none traced"
    percent = 100 * opinion.error
    if percent == 0:
        return "0"
    if abs(percent) < 0.005:
        return f"{'+' if percent > 0 else '-'}<0.01 %"
    return f"{percent:+.2f} %" if abs(percent) < 10 else f"{percent:+.1f} %" if abs(percent) < 1000 else f"{percent:+,.0f} %"


def render(records: Sequence[Record]) -> str:
    """What `crosscheck` prints: at most 80 columns."""
    lines: list[str] = []
    for record in records:
        lines += [*record_lines(record), ""]
    return "\n".join([*lines, *wrap(NOTE)]) + "\n"


def record_lines(record: Record) -> list[str]:
    """One module: a table of the counters, a sentence for each, and what they warned of."""
    case = record.case
    head = f"{clean(case.label)}: {case.shape.text()}, {case.dtype}, inference"
    if record.counts is None:
        return [*wrap(head), *wrap(f"not traced, {clean(record.status)}: {clean(record.detail)}")]
    rows = [("attnprof", f"{record.counts.macs:,}", "", "the trace", "")]
    for opinion in record.crosscheck:
        macs = "-" if opinion.macs is None else f"{opinion.macs:,}"
        rows.append(
            (clean(opinion.counter), macs, error_text(opinion), clean(opinion.status), units.format_seconds(opinion.seconds))
        )
    heads = [("counter", "MACs", "error", "verdict", "took")]
    widths = fit(list(zip(*heads, *rows, strict=True)), [20, 26, 12, 14, 10])
    lines = [*wrap(head), "", *grid(heads, rows, widths), ""]
    lines += caveats(record)
    for opinion in record.crosscheck:
        lines += wrap(f"{opinion.counter}: {clean(opinion.sentence)}", indent="  ")
    for opinion in record.crosscheck:
        lines += _warned(opinion)
    return lines


def caveats(record: Record) -> list[str]:
    """What the trace itself could not count, or counted otherwise than without data."""
    counts, lines = record.counts, list[str]()
    if counts is None:
        return lines
    assumed = assumption(counts)
    for ledger, text in (
        (counts.uncounted, "Not counted by the trace (no formula)"),
        (counts.assumed, assumed[0].upper() + assumed[1:]),
    ):
        if ledger:
            lines += wrap(f"{text}: {', '.join(f'{clean(op)} {calls}' for op, calls in ledger.items())}", indent="  ")
    if counts.traced_by != "meta":
        lines += wrap(traced_by_text(clean(counts.traced_by)))
    return lines


def _warned(opinion: Opinion) -> list[str]:
    if not opinion.warnings:
        return []
    shown = [clip(clean(text), _ROOM) for text in opinion.warnings[:_WARNED]]
    more = len(opinion.warnings) - len(shown)
    text = " | ".join([*shown, *([f"and {more} more (--json has them)"] if more else [])])
    return wrap(f"{opinion.counter} said: {text}", indent="  ")


def section(records: Sequence[Record], room: int = WIDTH) -> list[str]:
    """The cross-check of a run for the console; nothing where no record has one."""
    held = [record for record in records if record.crosscheck]
    if not held:
        return []
    lines = ["Cross-check", ""]
    for record in held:
        lines += [*record_lines(record), ""]
    return [*lines, *wrap(NOTE, room), ""]


def markdown(records: Sequence[Record], escape: Any) -> list[str]:
    """The cross-check of a run as Markdown; nothing where no record has one. `escape` makes a cell safe."""
    held = [record for record in records if record.crosscheck]
    if not held:
        return []
    heads = ("Mechanism", "Shape", "Counter", "MACs", "error", "verdict", "why")
    lines = ["## Cross-check", "", "| " + " | ".join(heads) + " |", "| --- | --- | --- | ---: | ---: | --- | --- |"]
    for record in held:
        counts, case = record.counts, record.case
        where = (clean(case.label), f"{case.shape.text()} {case.dtype}")
        notes = " ".join(line.strip() for line in caveats(record))
        macs = "-" if counts is None else f"{counts.macs:,}"
        lines.append(_cells((*where, "attnprof", macs, "", "the trace", notes or ""), escape))
        for opinion in record.crosscheck:
            macs = "-" if opinion.macs is None else f"{opinion.macs:,}"
            cells = (*where, opinion.counter, macs, error_text(opinion), opinion.status, opinion.sentence)
            lines.append(_cells(cells, escape))
    return [*lines, "", escape(NOTE), ""]


def _cells(cells: Iterable[str], escape: Any) -> str:
    return "| " + " | ".join(escape(cell) if cell else "" for cell in cells) + " |"


def csv_rows(record: Record) -> list[dict[str, Any]]:
    """Rows of the tidy CSV: metric 'macs:fvcore' with its value, difference and ratio, the verdict as status."""
    ours = None if record.counts is None else record.counts.macs
    rows = []
    for opinion in record.crosscheck:
        known = opinion.macs is not None and ours is not None
        rows.append(
            {
                "metric": f"macs:{opinion.counter}",
                "value": opinion.macs,
                "unit": "1",
                "baseline": "attnprof",
                "delta": opinion.macs - ours if known and opinion.macs is not None and ours is not None else None,
                "ratio": None if opinion.error is None else 1 + opinion.error,
                "status": opinion.status,
                "reason": opinion.sentence,
            }
        )
    return rows


def summary(records: Sequence[Record]) -> list[tuple[str, Counter[str]]]:
    """(counter, verdicts) over all records, in the order in which counters first appear."""
    found: dict[str, Counter[str]] = {}
    for record in records:
        for opinion in record.crosscheck:
            found.setdefault(opinion.counter, Counter(dict.fromkeys(VERDICTS, 0)))[opinion.status] += 1
    return list(found.items())
