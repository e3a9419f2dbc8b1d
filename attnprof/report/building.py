"""Records of one run -> a Report of tables: one table per block (same shape, dtype, mode, device, host, settings).

Mechanisms are rows; every metric is a value column and, with a baseline, a delta and a ratio column beside it (the console
leaves the deltas out, and in a network the ratios). A count that leaves ops out has a footnote, as have its ratios, and is
never the best. A ratio is value / baseline's value (the inverse for `compare`, without deltas); that of a latency comes only
from rounds in which both were timed side by side.

What was measured on several devices has a column that says on which (devices.py), no ratio and no rank across them. A table
with rows that were not measured yet, or with rows of one module from different code (code.py), has no ranks.

Where no mechanism stands at two shapes (a survey) and nothing is a baseline, all shapes share a table: the shape is a column,
every cell has a unit of its own, and none is the best.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from attnprof import units
from attnprof.records import Record
from attnprof.report.blocks import axes, axis_text, by_block, by_kind, find, set_by, title_of_kind, titles
from attnprof.report.cells import Worse, decimals, delta_text, ranks, ratio_text, signed, value_text
from attnprof.report.code import comparable, different_code
from attnprof.report.columns import picked
from attnprof.report.devices import MEASURED_ON, Device, by_place, letter_of, lettered
from attnprof.report.metrics import DEFAULT_METRICS, Metric, Reading, caveat, metric, select, why_missing
from attnprof.report.notes import notes_of
from attnprof.report.ratios import ratio_of
from attnprof.report.table import MISSING, Cell, Column, Look, Report, Row, Table, numbered, sort
from attnprof.report.text import clean


@dataclass(frozen=True)
class _Plan:
    """What the tables of a report share."""

    metrics: tuple[Metric, ...]
    scales: Mapping[str, tuple[str, float]]
    axes: tuple[str, ...]
    setters: Mapping[str, Collection[str]]  # of the axes
    baseline: str | None
    inverse: bool
    mixed: bool = False  # several shapes in one table
    picked: frozenset[tuple[str, str]] = frozenset()
    highlight: str = "significant"
    placed: bool = False  # in networks, where a delta is small beside its value: it has a unit of its own
    letters: Mapping[Device, str] = field(default_factory=dict)  # of several devices


def build(
    records: Sequence[Record],
    *,
    name: str = "report",
    baseline: str | None = None,
    metrics: Iterable[str] = DEFAULT_METRICS,
    inverse: bool = False,
    columns: Iterable[str] = (),
    order: str | None = None,
    look: Look | None = None,
    source: str = "",
    commit: str = "",
) -> Report:
    """The report of one run. `baseline` is a label or a mechanism's name; `inverse` gives ratios as baseline / value.

    `columns` are the words of columns.py, of which `metrics` has the metrics; `order` is the metric that rows are sorted by.
    """
    look = look or Look()
    wanted = picked(columns, [metric(name).key for name in metrics], baseline)
    chosen = select(metrics, records)
    if wanted:
        chosen = tuple(each for each in chosen if any(key == each.key for key, _ in wanted))
    blocks = by_block(records)
    placed = any(record.case.host is not None for record in records)
    plan = _Plan(chosen, _scales(chosen, records), axes(records), set_by(records), baseline, inverse)
    letters = lettered(records)
    plan = replace(plan, placed=placed, picked=wanted, highlight=look.highlight, letters=letters)
    heads = titles([members[0].case for members in blocks])
    kinds = None if baseline else by_kind(records)
    if kinds is not None:
        blocks, heads = kinds, [title_of_kind([record.case for record in members]) for members in kinds]
        plan = replace(plan, mixed=True)
    tables = tuple(_table(title, members, plan) for title, members in zip(heads, blocks, strict=True))
    if order is not None:
        tables = tuple(sort(each, order) for each in tables)
    notes = (*different_code(records), *notes_of(records, chosen, baseline, inverse, letters))
    return Report(name, tables, notes, tuple(records), baseline, look, source, commit, letters)


def _scales(chosen: Iterable[Metric], records: Sequence[Record]) -> dict[str, tuple[str, float]]:
    """One unit per metric for the whole report, so that tables can be read against each other; operations: per table."""
    out = {}
    for each in chosen:
        readings = [each.read(record) for record in records]
        out[each.key] = units.column_unit(each.kind, max((abs(r.value) for r in readings if r is not None), default=0.0))
    return out


def _operations(chosen: Iterable[Metric], members: Sequence[Record]) -> dict[str, tuple[str, float]]:
    """One unit for the MACs and FLOPs of a table: small enough that the smallest value reads as a number, not as '<0.001'.

    But the largest reads as no more than four digits: 33 K beside 50 G are 50.0 and '<0.001' G, not 50000 and 0.033 M.
    """
    counted = [each for each in chosen if each.kind == "operations"]
    readings = [each.read(record) for each in counted for record in members]
    sizes = [abs(reading.value) for reading in readings if reading is not None and reading.value]
    # the unit of this has the smallest at a thousandth or more, or the largest below ten thousand
    shown = min(max(sizes), max(100 * min(sizes), max(sizes) / 100)) if sizes else 0.0
    return {each.key: units.column_unit(each.kind, shown) for each in counted}


def _table(title: str, members: Sequence[Record], plan: _Plan) -> Table:
    columns = [Column("label", "Mechanism", "", "", "label")]
    parts = [[Cell(clean(record.case.label)) for record in members]]
    if plan.mixed:
        columns.append(Column("shape", "Shape", "", "", "size"))
        parts.append([Cell(record.case.shape.text()) for record in members])
    for axis in () if plan.mixed else plan.axes:  # the labels have them
        columns.append(Column(axis, clean(axis), "", "", "axis"))
        parts.append([Cell(axis_text(record.case, axis, plan.setters)) for record in members])
    if plan.letters:
        columns.append(Column(MEASURED_ON, "Measured on", "", "", "device"))
        parts.append([Cell(letter_of(record, plan.letters) or MISSING) for record in members])
    base = find(members, plan.baseline) if plan.baseline else None
    scales = {**plan.scales, **_operations(plan.metrics, members)}
    highlight = plan.highlight if comparable(members) else "none"
    for each in plan.metrics:
        readings = [each.read(record) for record in members]
        if plan.mixed:
            columns.append(Column(each.key, each.head, "", each.direction, "value"))
            parts.append([_own_unit(record, each) for record in members])
            continue
        unit, divisor = scales[each.key]
        columns.append(Column(each.key, each.head, unit, each.direction, "value"))
        places = decimals([reading for reading in readings if reading is not None], divisor)
        parts.append(_values(members, readings, each, places, divisor, highlight))
        if plan.baseline:
            ratios = [_ratio(record, base, each, plan) for record in members]
            if not plan.inverse:
                columns.append(Column(each.key, "delta", "" if plan.placed else unit, "", "delta"))
                parts.append([_delta(cell, each, places, divisor, plan.placed) for cell in ratios])
            columns.append(Column(each.key, "ratio", "", "", "ratio"))
            parts.append(ratios)
    rows = tuple(Row(record, tuple(part[i] for part in parts)) for i, record in enumerate(members))
    return numbered(Table(title, tuple(columns), rows, picked=plan.picked))


def _values(
    members: Sequence[Record],
    readings: Sequence[Reading | None],
    each: Metric,
    places: int,
    divisor: float,
    highlight: str = "none",
) -> list[Cell]:
    out = []
    fits = (not caveat(record, each) and not record.case.alone for record in members)  # what is placed, not the network
    whole = [reading if fit else None for fit, reading in zip(fits, readings, strict=True)]
    ranked = [record for record, reading in zip(members, whole, strict=True) if reading is not None]
    if len(by_place(ranked, each)) > 1:
        highlight = "none"
    places_taken = ranks(whole, each.higher_is_better, highlight, _worse(members, each))
    for record, reading, rank in zip(members, readings, places_taken, strict=True):
        if reading is None:
            text = MISSING if record.status == "ok" else clean(record.status)
            out.append(Cell(text, reason=why_missing(record, each)))
        else:
            out.append(Cell(value_text(reading, places, divisor), reading, reason=caveat(record, each), rank=rank))
    return out


def _worse(members: Sequence[Record], each: Metric) -> Worse | None:
    """What tells two timings apart: the interval of their ratio, which the table shows, rather than those of each alone."""
    if each.key not in ("latency", "throughput"):
        return None

    def worse(best: int, other: int) -> bool | None:
        ratio = ratio_of(members[other], members[best], each)
        if ratio.low is None or ratio.high is None:
            return None
        return ratio.high < 1 if each.higher_is_better else ratio.low > 1

    return worse


def _own_unit(record: Record, each: Metric) -> Cell:
    """A value with its unit, which is no rank beside values at other shapes."""
    reading = each.read(record)
    if reading is None:
        return _values([record], [None], each, 0, 1.0)[0]
    if each.kind in ("count", "operations"):
        return Cell(units.format_count(reading.value), reading, reason=caveat(record, each))
    unit, divisor = units.column_unit(each.kind, abs(reading.value))
    return Cell(f"{value_text(reading, decimals([reading], divisor), divisor)} {unit}".rstrip(), reading)


def _ratio(record: Record, base: Record | None, each: Metric, plan: _Plan) -> Cell:
    if base is None:
        return Cell(MISSING, reason=f"not compared: the baseline '{clean(plan.baseline or '')}' is not in this table")
    if each.read(record) is None:
        return Cell(MISSING, reason=why_missing(record, each))
    ratio = ratio_of(base, record, each) if plan.inverse else ratio_of(record, base, each)
    if ratio.value is None:
        return Cell(MISSING, ratio=ratio, reason=f"{'not compared' if ratio.delta is None else 'no ratio'}: {ratio.reason}")
    return Cell(ratio_text(ratio.value, ratio.low, ratio.high), ratio=ratio, reason=ratio.reason)


def _delta(ratio: Cell, each: Metric, places: int, divisor: float, own_unit: bool) -> Cell:
    """Value - baseline's value, beside the ratio of the same two; what has neither shares its reason."""
    delta = None if ratio.ratio is None else ratio.ratio.delta
    if delta is None:
        return Cell(MISSING, reason=ratio.reason)
    text = signed(delta, each.kind) if own_unit else delta_text(delta, places, divisor, each.traced)
    return Cell(text, reason=ratio.reason if ratio.text != MISSING else "")
