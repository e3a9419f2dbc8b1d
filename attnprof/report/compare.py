"""`compare A B...`: ratios first / other per metric and block, sentences that say them, one table per block.

Every sentence is either backed by a ratio with what its interval covers, or says why there is none. A difference that the
interval does not separate from none is not called one; nor is "no difference" said where the interval would leave room for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from attnprof.errors import NothingSelectedError
from attnprof.records import Record
from attnprof.report import building, console, deltas, json, table
from attnprof.report.blocks import by_block, distinctions
from attnprof.report.cells import factor_text
from attnprof.report.metrics import DEFAULT_METRICS, NOT_MEASURED_DEVICE, Metric, caveat, select, why_missing
from attnprof.report.ratios import Ratio, ratio_of
from attnprof.report.text import clean, clip, wrap

_REASON_ROOM = 200
_SAME = 1.05  # an interval around 1 that reaches farther leaves open whether there is a difference
_COUNTED = {"params": "parameter counts", "macs": "MACs", "flops": "FLOPs"}


@dataclass(frozen=True)
class Pair:
    """The ratio first / other of one metric in one block; `where` tells the block from the others ('' for a single one)."""

    metric: Metric
    first: Record
    other: Record
    ratio: Ratio
    where: str


@dataclass(frozen=True)
class Comparison:
    """Everything that `compare` prints: the pairs, a sentence each, and the tables with ratios first / row."""

    first: str
    records: tuple[Record, ...]
    pairs: tuple[Pair, ...]
    sentences: tuple[str, ...]
    report: table.Report


def comparison(records: Sequence[Record], first_label: str, metrics: Iterable[str] = DEFAULT_METRICS) -> Comparison:
    """Compare all records with the one labelled `first_label`, block by block. Raises NothingSelectedError without it."""
    if not any(record.case.label == first_label for record in records):
        raise NothingSelectedError(f"there is no record of '{first_label}' to compare with.")
    names = tuple(metrics)
    blocks = by_block(records)
    pairs: list[Pair] = []
    for where, members in zip(distinctions([members[0].case for members in blocks]), blocks, strict=True):
        first = next((record for record in members if record.case.label == first_label), None)
        others = [] if first is None else [record for record in members if record is not first]
        for metric in select(names, records):
            pairs += [Pair(metric, first, other, ratio_of(first, other, metric), where) for other in others if first]
    placed = any(record.case.host is not None for record in records)
    report = building.build(records, name="compare", baseline=first_label, metrics=names, inverse=not placed)
    said = deltas.sentences(deltas.deltas_of(records, names)) if placed else _sentences(pairs)
    return Comparison(first_label, tuple(records), tuple(pairs), said, report)


def data(compared: Comparison) -> dict[str, Any]:
    """JSON: {"schema", "name", "records", "first", "ratios": [...]}; a ratio that does not exist is null with a reason.

    With a host also "deltas": every metric with a mechanism, without it, and the difference.
    """
    ratios = []
    for pair in compared.pairs:
        case, ratio = pair.first.case, pair.ratio
        entry = {"metric": pair.metric.key, "mode": case.mode, "first": case.label, "other": pair.other.case.label}
        found = {"value": ratio.value, "low": ratio.low, "high": ratio.high, "covers": ratio.covers, "pairs": ratio.pairs}
        found["processes"] = ratio.processes
        ratios.append({**entry, **found, "reason": ratio.reason, "shape": case.shape.text(), "dtype": case.dtype})
    out = json.data(compared.records, "compare") | {"first": compared.first, "ratios": ratios}
    if any(record.case.host is not None for record in compared.records):
        metrics = dict.fromkeys(pair.metric.key for pair in compared.pairs)
        out["deltas"] = deltas.data(deltas.deltas_of(compared.records, metrics))
    return out


def render(compared: Comparison, sort: str | None = None) -> str:
    """Tables, notes, then the sentences: at most 80 columns. `sort` is a metric: the better rows come first."""
    report = compared.report
    if sort is not None:
        report = replace(report, tables=tuple(table.sort(each, sort) for each in report.tables))
    lines: list[str] = []
    for each in report.tables:
        lines += [*console.table_lines(each), ""]
    lines += [*console.note_lines(report.notes), ""]
    for sentence in compared.sentences:
        lines += wrap(sentence, indent="  ")
    return "\n".join(lines).rstrip() + "\n"


def _sentences(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """One per metric, other and block; what holds alike in all blocks is said once. Latency / bound is for the table alone."""
    pairs = [pair for pair in pairs if pair.metric.kind != "ratio"]
    said = [_sentence(pair) for pair in pairs]
    blocks = len({pair.where for pair in pairs})
    out = []
    for pair, text in zip(pairs, said, strict=True):
        alone = said.count(text) == blocks and (pair.metric.key == "params" or not pair.metric.traced)
        out.append(text if alone or not pair.where else f"{text} ({pair.where})")
    return tuple(dict.fromkeys(out))


def _sentence(pair: Pair) -> str:
    first, other = clean(pair.first.case.label), clean(pair.other.case.label)
    if pair.metric.read(pair.first) is None or pair.metric.read(pair.other) is None:
        return _unmeasured(pair, first, other)
    if pair.metric.key in ("latency", "throughput"):
        return _speed(pair, first, other)
    return _need(pair, first, other)


def _unmeasured(pair: Pair, first: str, other: str) -> str:
    """What is missing is said once: for a failed case, not for each of its metrics; for `device none`, not for each case."""
    gone = [record for record in (pair.first, pair.other) if pair.metric.read(record) is None]
    failed = next((record for record in gone if record.status != "ok" and record.counts is None), None)
    if failed is not None:
        reason = clip(clean(why_missing(failed, pair.metric)), _REASON_ROOM)
        return (
            f"{other} is not compared with {first}: {reason}" if failed is pair.other else f"{first} has no numbers: {reason}"
        )
    reasons = {clean(record.case.label): clip(clean(why_missing(record, pair.metric)), _REASON_ROOM) for record in gone}
    if set(reasons.values()) == {NOT_MEASURED_DEVICE}:
        return f"{pair.metric.noun}: {NOT_MEASURED_DEVICE}"
    texts = ", ".join(f"{label}: {reason}" for label, reason in reasons.items())
    return f"{pair.metric.noun}: {first} and {other} are not compared ({texts})"


def _need(pair: Pair, first: str, other: str) -> str:
    """'ccnet needs 6.54x fewer MACs than nonlocal'."""
    metric, ratio = pair.metric, pair.ratio
    noun, less = metric.noun, "less" if metric.kind in ("bytes", "joules", "seconds") else "fewer"
    single = "" if metric.traced else " (single readings, no interval)"
    for record in (pair.first, pair.other):
        text = caveat(record, metric)
        single += f" ({clean(record.case.label)}: {clean(text)})" if text else ""
    if ratio.delta is None:
        return f"{noun}: {first} and {other} are not compared ({clean(ratio.reason)})"
    if ratio.delta == 0:
        if metric.key in _COUNTED:
            return f"the {_COUNTED[metric.key]} are equal ({first}, {other}){single}"
        return f"{first} and {other} need equal {noun}{single}"
    if not ratio.value:
        many, none = (first, other) if ratio.value is None else (other, first)
        return f"{many} needs {noun}, {none} needs none{single}"
    if metric.key == "bound":
        return f"the time that nothing beats is {_times(ratio.value, less)} for {other} than for {first}{single}"
    return f"{other} needs {_times(ratio.value, less)} {noun} than {first}{single}"


def _times(ratio: float, less: str) -> str:
    """First / other in words: '6.54x fewer', '2.10x more'; below 1.1x as percent of the first."""
    word, factor = (less, ratio) if ratio > 1 else ("more", 1 / ratio)
    if factor >= 1.1:
        return f"{factor_text(factor)}x {word}"
    percent = abs(1 - 1 / ratio) * 100
    return f"{percent:.1f} % {word}" if percent >= 0.05 else f"less than 0.1 % {word}"


def _speed(pair: Pair, first: str, other: str) -> str:
    """'ccnet is 3.1x faster than nonlocal (95 % interval 2.9 to 3.3, within one process, n=40 pairs)'."""
    ratio = pair.ratio
    if ratio.value is None:
        return f"{pair.metric.noun}: {first} and {other} are not compared ({clean(ratio.reason)})"
    value, low, high = ratio.value, ratio.low, ratio.high
    if pair.metric.key == "throughput":  # first / other of throughput is other / first of latency
        value, low, high = 1 / value, high and 1 / high, low and 1 / low
    if low is None or high is None:
        return f"{other} is {_faster(value)} than {first} (n={ratio.pairs} pairs, too few for an interval)"
    covers = f"{ratio.covers}, n={ratio.pairs} pairs"
    if low <= 1 <= high:
        interval = f"ratio {value:.3f}, 95 % interval {low:.3f} to {high:.3f}"
        if low >= 1 / _SAME and high <= _SAME:
            return f"{first} and {other} show no difference in {pair.metric.noun} ({interval}, {covers})"
        return f"a difference in {pair.metric.noun} between {first} and {other} could not be told ({interval}, {covers})"
    if value < 1:
        low, high = 1 / high, 1 / low
    digits = 3 if low < 1.1 else 2
    return f"{other} is {_faster(value, digits)} than {first} (95 % interval {low:.{digits}f} to {high:.{digits}f}, {covers})"


def _faster(ratio: float, digits: int = 2) -> str:
    return f"{ratio:.{digits}f}x faster" if ratio >= 1 else f"{1 / ratio:.{digits}f}x slower"
