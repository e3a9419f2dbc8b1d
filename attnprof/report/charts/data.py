"""What the charts show, as plain numbers: series over sizes with their exponents, Pareto fronts, ratios, holders. Pure.

A *context* is what must be equal for two cases to stand in one panel, apart from the size of the map: batch, channels, dtype,
mode, device, network and settings. A *series* is one mechanism with its arguments (and its place in a network). What several
devices measured of it is as many lines, and no front holds two of them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from attnprof.profiling.forms import kept
from attnprof.records import Case, Holder, Record
from attnprof.report.blocks import arguments_of, by_block, by_kind, distinctions, find
from attnprof.report.charts.exponents import exponent, exponent_ends, few_for
from attnprof.report.devices import Device, by_place, letter_of, lettered, tied
from attnprof.report.metrics import Metric, Reading, caveat
from attnprof.report.ratios import Ratio, ratio_of
from attnprof.report.text import clean, clip

LABEL_ROOM = 30  # characters of a label in a chart
_FORM_OF = {  # metric -> the closed form's name
    "macs": "macs",
    "flops": "flops",
    "bytes_moved": "bytes_moved",
    "activation_memory": "activation_bytes",
    "resident_memory": "resident_bytes",
    "peak_memory": "peak_bytes",
    "peak_cuda_memory": "peak_cuda_bytes",
}
_POWER_OF_N = re.compile(r"\bN\b(?:\*\*([0-9.]+))?")

Series = dict[tuple[str, str, str], int]


@dataclass(frozen=True)
class Context:
    """Cases that differ in size and mechanism only, and what tells them from the other contexts ('' for a single one).

    `letters`: of the devices of the whole report, where several measured.
    """

    title: str
    records: tuple[Record, ...]
    letters: Mapping[Device, str] = field(default_factory=dict)

    @property
    def blocks(self) -> list[list[Record]]:
        """Records of one size each, the smallest size first."""
        return sorted(by_block(self.records), key=lambda block: area(block[0].case))


@dataclass(frozen=True)
class Point:
    """One reading at a size: `n` = H*W of the input."""

    n: int
    size: str
    reading: Reading


@dataclass(frozen=True)
class Line:
    """One series over the sizes, ascending; `exponent` p of value ~ N**p, fitted; `order` of the closed form, '' for none.

    `ends`: the least and the largest exponent of a measured cost that the ends of its readings' intervals allow.
    """

    series: int
    label: str
    points: tuple[Point, ...]
    exponent: float | None = None
    order: str = ""
    ends: tuple[float, float] | None = None

    @property
    def power(self) -> str:
        """The power of N in `order`: '2', '1.5', '0' where N does not occur; '' without an order."""
        if not self.order:
            return ""
        powers = [float(text or 1) for text in _POWER_OF_N.findall(self.order)]
        return f"{max(powers, default=0.0):g}"


@dataclass(frozen=True)
class Spot:
    """One case between two metrics; `ranked` where both values are whole, so that it may stand on the front."""

    series: int
    label: str
    x: Reading
    y: Reading
    ranked: bool
    on_front: bool = False


@dataclass(frozen=True)
class Bar:
    """The ratio of one metric of a case to the baseline's."""

    series: int
    label: str
    ratio: Ratio


@dataclass(frozen=True)
class Share:
    """Storage alive at the peak that one op made: its bytes, of the peak's, and who holds them (largest first)."""

    op: str
    bytes: int
    holders: tuple[Holder, ...]


def area(case: Case) -> int:
    """H*W of a case's input."""
    return case.shape.height * case.shape.width


def size_text(case: Case) -> str:
    """'97x97'."""
    return f"{case.shape.height}x{case.shape.width}"


def name_of(record: Record) -> str:
    """A record's label as charts show it."""
    return clip(clean(record.case.label), LABEL_ROOM)


def slug(text: str) -> str:
    """A context's title as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()


def series_of(records: Iterable[Record]) -> Series:
    """A number for every mechanism with its arguments, in the order in which they first come."""
    found: Series = {}
    for record in records:
        found.setdefault(identity(record.case), len(found))
    return found


def identity(case: Case) -> tuple[str, str, str]:
    """What makes two cases points of one series."""
    return (case.mechanism, case.label, json.dumps(arguments_of(case), sort_keys=True, default=str))


def contexts(records: Sequence[Record]) -> list[Context]:
    """Records by everything but size and mechanism, in the order in which they come."""
    groups: dict[object, list[Record]] = {}
    for record in records:
        groups.setdefault(_sizeless(record.case).block, []).append(record)
    titles, letters = distinctions([_sizeless(members[0].case) for members in groups.values()]), lettered(records)
    return [Context(title, tuple(members), letters) for title, members in zip(titles, groups.values(), strict=True)]


def survey(records: Sequence[Record]) -> bool:
    """Whether each mechanism stands at a size of its own, where nothing can be read against its neighbour."""
    return by_kind(records) is not None


Sized = tuple[str, list[tuple[str, list[Record]]]]  # (size, [(title of the context, block)])


def by_size(records: Sequence[Record], every_size: bool) -> list[Sized]:
    """Blocks by size, the largest first and alone unless `every_size`; the size is '' where there is only one."""
    found: dict[str, list[tuple[str, list[Record]]]] = {}
    areas: dict[str, int] = {}
    for context in contexts(records):
        for block in context.blocks if every_size else context.blocks[-1:]:
            size = size_text(block[0].case)
            found.setdefault(size, []).append((context.title, block))
            areas[size] = area(block[0].case)
    single = len({size_text(record.case) for record in records}) == 1
    return [("" if single else size, found[size]) for size in sorted(found, key=lambda size: -areas[size])]


def _sizeless(case: Case) -> Case:
    return replace(case, shape=replace(case.shape, height=1, width=1))


def lines(context: Context, metric: Metric, series: Series) -> list[Line]:
    """Every series of a context that has a positive value; what belongs to a device has a line for each of them.

    A traced cost has an exponent from two sizes on, a measured one from three.
    """
    found: dict[int, list[Record]] = {}
    for record in context.records:
        reading = metric.read(record)
        if reading is not None and reading.value > 0:
            found.setdefault(series[identity(record.case)], []).append(record)
    out = []
    for number, members in ((number, each) for number, every in found.items() for each in by_place(every, metric)):
        points = []
        for record in sorted(members, key=lambda one: area(one.case)):
            reading = metric.read(record)
            assert reading is not None
            points.append(Point(area(record.case), size_text(record.case), reading))
        order = order_of(members[0], metric)
        fitted = None if few_for(metric, points) else exponent(points)
        ends = None if fitted is None or metric.traced else exponent_ends(points)
        out.append(Line(number, _name_on(members[0], metric, context.letters), tuple(points), fitted, order, ends))
    return out


def _name_on(record: Record, metric: Metric, letters: Mapping[Device, str]) -> str:
    """'ccnet (B)': a record's name with the letter of its device, where the metric belongs to one."""
    sign = letter_of(record, letters) if tied(metric.key) else ""
    return f"{name_of(record)} ({sign})" if sign else name_of(record)


def by_device(
    blocks: Sequence[tuple[str, list[Record]]], metrics: Sequence[Metric], letters: Mapping[Device, str]
) -> list[tuple[str, list[Record]]]:
    """(title, block): blocks in which several devices measured any of these metrics are as many, with the device's letter."""
    if not letters or not any(tied(metric.key) for metric in metrics):
        return list(blocks)
    out = []
    for title, block in blocks:
        read = [record for record in block if all(metric.read(record) is not None for metric in metrics)]
        for members in by_place(read, *metrics):
            sign = letter_of(members[0], letters)
            out.append((", ".join(filter(None, (title, sign and f"measured on {sign}"))), members))
    return out


def order_of(record: Record, metric: Metric) -> str:
    """The order of the kept closed form, where the record was counted by the code that the form was made from; else ''."""
    case = record.case
    if metric.key not in _FORM_OF or case.imported or case.alone or case.host is not None:
        return ""
    made = record.environment.get("provenance", {})
    now = kept.made_from(case.mechanism)
    if any(made.get(key) != now[key] for key in ("source", "counting")):
        return ""
    forms = kept.forms_for(case)
    form = None if forms is None else forms.forms.get(_FORM_OF[metric.key])
    return "" if form is None else form.order


def spots(block: Sequence[Record], x: Metric, y: Metric, series: Series) -> list[Spot]:
    """Every case of a block that has both values, and which of them no other one beats in one without losing in the other."""
    found = []
    for record in block:
        across, up = x.read(record), y.read(record)
        if across is not None and up is not None:
            whole = not caveat(record, x) and not caveat(record, y) and not record.case.alone
            found.append(Spot(series[identity(record.case)], name_of(record), across, up, whole))
    ranked = [spot for spot in found if spot.ranked]
    best = {id(ranked[i]) for i in front([(spot.x.value, spot.y.value) for spot in ranked])}
    return [replace(spot, on_front=id(spot) in best) for spot in found]


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other point is below or equal in both coordinates and below in one, by x."""
    out: list[int] = []
    lowest = math.inf
    order = sorted(range(len(points)), key=lambda i: points[i])
    for i in order:
        x, y = points[i]
        if y < lowest or (out and points[out[-1]] == (x, y)):
            out.append(i)
            lowest = min(lowest, y)
    return out


def base_of(block: Sequence[Record], baseline: str | None) -> Record | None:
    """What bars of a block are held against: the baseline, the network alone, or the first of a single mechanism's cases."""
    named = find(block, baseline) if baseline else None
    if named is not None:
        return named
    alone = next((record for record in block if record.case.alone), None)
    if alone is not None or baseline:
        return alone
    return block[0] if len(block) > 1 and len({record.case.mechanism for record in block}) == 1 else None


def bars(block: Sequence[Record], base: Record, metric: Metric, series: Series) -> list[Bar]:
    """Ratios to `base` of every other case of a block; one without a value has the reason."""
    others = [record for record in block if record is not base]
    return [Bar(series[identity(record.case)], name_of(record), ratio_of(record, base, metric)) for record in others]


def shares(record: Record) -> list[Share]:
    """What is alive at the traced peak, by the op that made it, the largest first; nothing for a record without a trace."""
    if record.counts is None:
        return []
    found: dict[str, list[Holder]] = {}
    for holder in record.counts.at_peak:
        found.setdefault(clean(holder.op), []).append(holder)
    out = [
        Share(op, sum(one.bytes for one in held), tuple(sorted(held, key=lambda one: -one.bytes))) for op, held in found.items()
    ]
    return sorted(out, key=lambda share: -share.bytes)
