"""What a mechanism adds to a network: with it minus without it, per metric, as sentences and as JSON.

Traced numbers are exact, so their differences are. A latency is compared only where both were timed side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from attnprof.records import Record
from attnprof.report.blocks import by_block, distinctions
from attnprof.report.cells import signed
from attnprof.report.metrics import NOT_MEASURED_DEVICE, Metric, caveat, select, why_missing
from attnprof.report.ratios import Ratio, ratio_of
from attnprof.report.text import clean


@dataclass(frozen=True)
class Delta:
    """The network with a mechanism against the network alone. `ratio` is with / alone, its `delta` with - alone."""

    metric: Metric
    alone: Record
    placed: Record
    ratio: Ratio
    where: str  # tells the block from the others; '' for a single one


def deltas_of(records: Sequence[Record], metrics: Iterable[str]) -> tuple[Delta, ...]:
    """Every metric of every placed mechanism against the network alone, where a block has that."""
    chosen, blocks, out = select(metrics, records), by_block(records), list[Delta]()
    for where, members in zip(distinctions([members[0].case for members in blocks]), blocks, strict=True):
        alone = next((record for record in members if record.case.alone), None)
        for metric in chosen if alone is not None else ():
            assert alone is not None
            placed = [record for record in members if not record.case.alone and record.case.host is not None]
            out += [Delta(metric, alone, record, ratio_of(record, alone, metric), where) for record in placed]
    return tuple(out)


def data(deltas: Iterable[Delta]) -> list[dict[str, Any]]:
    """JSON: a value that is not there is null, with a reason."""
    out = []
    for each in deltas:
        case, ratio = each.placed.case, each.ratio
        assert case.host is not None
        readings = {"alone": each.metric.read(each.alone), "with": each.metric.read(each.placed)}
        values = {name: None if reading is None else reading.value for name, reading in readings.items()}
        head = {"metric": each.metric.key, "mode": case.mode, "network": each.alone.case.label, "label": case.label}
        place = {"at": case.host.at, "how": case.host.how}
        found = {"delta": ratio.delta, "ratio": ratio.value, "low": ratio.low, "high": ratio.high, "covers": ratio.covers}
        out.append(
            {**head, **place, **values, **found, "reason": ratio.reason, "shape": case.shape.text(), "dtype": case.dtype}
        )
    return out


def sentences(deltas: Sequence[Delta]) -> tuple[str, ...]:
    """'se adds 2.51 M parameters to resnet50 (+9.84 %)'; one per metric, mechanism and block."""
    said = [_sentence(each) for each in deltas if each.metric.kind != "ratio"]
    where = [each.where for each in deltas if each.metric.kind != "ratio"]
    blocks = len(set(where))
    out = []
    for text, block in zip(said, where, strict=True):
        everywhere = said.count(text) == blocks
        out.append(text if everywhere or not block else f"{text} ({block})")
    return tuple(dict.fromkeys(out))


def _sentence(each: Delta) -> str:
    label, network, metric = clean(each.placed.case.label), clean(each.alone.case.label), each.metric
    lacking = next((record for record in (each.alone, each.placed) if metric.read(record) is None), None)
    if lacking is not None:
        reason = clean(why_missing(lacking, metric))
        if lacking.status != "ok" and lacking.counts is None:
            return f"{clean(lacking.case.label)} has no numbers: {reason}"
        return (
            f"{metric.noun}: {reason}"
            if reason == NOT_MEASURED_DEVICE
            else f"{metric.noun} of {network} with {label}: {reason}"
        )
    delta = each.ratio.delta
    if delta is None:
        return f"{metric.noun}: {network} with and without {label} are not compared ({clean(each.ratio.reason)})"
    if delta == 0:
        return f"{label} does not change the {metric.noun} of {network}"
    if metric.key in ("latency", "throughput"):
        return _timed(each, label, network)
    verb, to = ("adds", "to") if delta > 0 else ("takes", "from")
    percent = "" if each.ratio.value is None else f" ({_percent(each.ratio.value)})"
    notes = [text for record in (each.alone, each.placed) if (text := caveat(record, metric))]
    single = "" if metric.traced else "; single readings, no interval"
    return f"{label} {verb} {_amount(abs(delta), metric)} {to} {network}{percent}{single}{'; ' + notes[0] if notes else ''}"


def _amount(value: float, metric: Metric) -> str:
    of = "" if metric.kind in ("count", "operations") else "of "
    return f"{signed(value, metric.kind)[1:]} {of}{metric.noun}"


def _percent(ratio: float) -> str:
    percent = (ratio - 1) * 100
    return f"{percent:+.1f} %" if abs(percent) >= 1 else f"{percent:+.2g} %"


def _timed(each: Delta, label: str, network: str) -> str:
    ratio = each.ratio
    assert ratio.value is not None
    noun = each.metric.noun
    if ratio.low is None or ratio.high is None:
        return f"the {noun} of {network} with {label} is {ratio.value:.3f}x that without (n={ratio.pairs} pairs, no interval)"
    interval = f"95 % interval {ratio.low:.3f} to {ratio.high:.3f}, {ratio.covers}, n={ratio.pairs} pairs"
    if ratio.low <= 1 <= ratio.high:
        return f"a difference in {noun} between {network} with {label} and without could not be told ({interval})"
    return f"the {noun} of {network} with {label} is {ratio.value:.3f}x that without ({interval})"
