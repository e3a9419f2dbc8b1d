"""Literal records for the tests of charts and of the page: three sizes, two modes, known powers of N, hostile names."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from attnprof import report
from attnprof.records import Case, Counts, Holder, OpCost, Placement, Record, Shape, Timeline, Timing

SIDES = (16, 32, 64)
HOSTILE = (
    "<script>alert(1)</script>",
    '"onmouseover="alert(1)" x="',
    "</script><img src=x onerror=alert(1)>",
    "{{ 7*7 }}",
    "a'); alert(1); ('",
    "http://example.com/x.js",
)


def counts(macs: int, peak: int, **more: Any) -> Counts:
    half = peak // 2
    holders = (Holder(half, "bmm", "head", "forward", (1, 8, 8)), Holder(peak - half, "softmax", "", "forward", (1, 8, 8)))
    return Counts(1_000, macs, 2 * macs, 4 * peak, peak, peak, peak, peak, at_peak=holders, **more)


def timing(seconds: float, block: str) -> Timing:
    """Twenty samples that go up and down by two percent."""
    return Timing(tuple(seconds * (1 + 0.02 * math.sin(i)) for i in range(20)), tuple(range(20)), block, 5)


def record(label: str, side: int, found: Counts | None, mode: str = "inference", **more: Any) -> Record:
    settings = {key: more.pop(key) for key in ("args", "host", "mechanism") if key in more}
    mechanism = settings.pop("mechanism", f"mine/{label.partition('[')[0]}")
    case = Case(mechanism, label, settings.pop("args", {}), Shape(1, 8, side, side), "float32", mode, **settings)
    return Record(case, counts=found, environment={"torch": "2.13.0", "flags": {"threads": 1}}, **more)


def grown(label: str, power: float, scale: int, mode: str = "inference", **more: Any) -> list[Record]:
    """One mechanism whose MACs and peak grow as N**power, timed as well."""
    out = []
    for side in SIDES:
        cost = round(scale * (side * side) ** power)
        found = counts(cost, 4 * cost)
        out.append(record(label, side, found, mode, timing=timing(1e-9 * cost, f"{side} {mode}"), **more))
    return out


def run() -> list[Record]:
    """Both modes: a square, a linear and a constant cost, one without MACs, one that failed at the largest size."""
    out: list[Record] = []
    for mode, scale in (("inference", 10), ("training", 30)):
        out += grown("square", 2.0, scale, mode) + grown("linear", 1.0, 7 * scale, mode) + grown("flat", 0.0, 900, mode)
        out += [record("free", side, counts(0, 40 * side * side), mode) for side in SIDES]
        failed = {"status": "oom", "detail": "host: 61 GiB wanted"}
        out += [*grown("fails", 1.5, scale, mode)[:2], record("fails", SIDES[-1], None, mode, **failed)]
    return out


def passed(found: Record, op: str = "bmm", module: str = "head") -> Record:
    """The record with a timeline of six events: the peak at the third, the fifth and sixth in a backward pass."""
    assert found.counts is not None
    ops = (OpCost(op, module, "forward", 1, 8, 16, 24), OpCost("softmax", "", "forward", 1, 0, 8, 16))
    peak = found.counts.peak_bytes
    sizes = (peak // 4, peak // 2, peak, peak // 2, peak // 4, 0)
    others = (("backward", "", "gradient of output"), ("backward", module, f"{op} backward"))
    line = Timeline(6, (1, 2, 3, 4, 5, 6), sizes, (0, 0, 1, 1, 2, 3), others)
    return replace(found, counts=replace(found.counts, ops=ops), memory_timeline=line)


def passes(count: int = 2) -> list[Record]:
    """Records with timelines at one size, peaks of 4 MiB, 8 MiB, ..., and one without a timeline."""
    found = [passed(record(f"m{i}", 64, counts(1000 * i, 4 * i * 2**20))) for i in range(1, count + 1)]
    return [*found, record("old", 64, counts(500, 2**20))]


def hostile() -> list[Record]:
    """Records with names that try to get out of HTML, scripts, templates and expressions."""
    return [passed(each, name, name) for i, name in enumerate(HOSTILE) for each in grown(name, 1.0 + i / 4, 5 + i)]


def placed() -> list[Record]:
    """A network alone and with two mechanisms in it."""
    alone = record("resnet50", 64, counts(4_000_000, 1_000_000), mechanism="none", host=Placement("resnet50"))
    others = [
        record(label, 64, counts(macs, 1_100_000), host=Placement("resnet50", at="block"))
        for label, macs in (("se", 4_004_000), ("eca", 4_000_400))
    ]
    return [alone, *others]


def built(records: list[Record], name: str = "charted", baseline: str | None = "square") -> report.Report:
    return report.build(records, name=name, baseline=baseline, metrics=("params", "macs", "peak_memory", "latency"))
