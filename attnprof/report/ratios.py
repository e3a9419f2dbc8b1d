"""The ratio of one metric between two cases, with its interval or the reason why there is none.

Traced numbers are exact, so their ratio is. Latencies (and throughputs) are compared only by rounds of one block in which both
were timed, never by the medians of separate runs: shared machines shift those by tens of percent. Nothing that was measured is
compared over devices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from attnprof import stats
from attnprof.records import Record
from attnprof.report.devices import DIFFERENT, device_of, place_of
from attnprof.report.metrics import FEWEST_PAIRS, Metric, caveat, why_missing

EXACT = "exact"
NOT_PAIRED = "not timed in the same block"


@dataclass(frozen=True)
class Ratio:
    """first / second. `covers` says what the interval covers; `reason` why there is no value, or what a count leaves out."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    covers: str = ""
    pairs: int | None = None
    processes: int | None = None
    reason: str = ""
    delta: float | None = None  # first - second, in the metric's base unit; of timings only where both stand in one block


def ratio_of(first: Record, second: Record, metric: Metric) -> Ratio:
    """The ratio first / second of one metric."""
    a, b = metric.read(first), metric.read(second)
    if a is None or b is None:
        lacking = first if a is None else second
        return Ratio(reason=f"{lacking.case.label}: {why_missing(lacking, metric)}")
    if metric.key == "bound_ratio":
        return Ratio(reason="latencies are compared by their own column, each bound is another")
    if place_of(first, metric) != place_of(second, metric):
        return Ratio(reason="bounds by different rates" if metric.traced else DIFFERENT)
    delta = a.value - b.value
    if metric.key in ("latency", "throughput"):
        return _paired(first, second, metric.key == "throughput", delta)
    if b.value == 0:
        return Ratio(reason="both are zero" if a.value == 0 else f"{second.case.label} is zero", delta=delta)
    value = a.value / b.value
    if metric.traced:
        return Ratio(value, value, value, EXACT, reason=_caveats(first, second, metric), delta=delta)
    return Ratio(value, covers="single readings, no interval", delta=delta)


def _caveats(first: Record, second: Record, metric: Metric) -> str:
    """What the two counts leave out or take for granted: 'a: NOT COUNTED, no formula: sparse 1'; '' where both are whole."""
    found = {record.case.label: caveat(record, metric) for record in (first, second)}
    return "; ".join(f"{label}: {text}" for label, text in found.items() if text)


def _paired(first: Record, second: Record, inverse: bool, delta: float) -> Ratio:
    if first is second:
        return Ratio(1.0, 1.0, 1.0, EXACT, delta=delta)
    found = paired(second, first) if inverse else paired(first, second)
    if not found:
        return Ratio(reason=NOT_PAIRED)
    ratio = _over(found)
    if min(len(left) for left, _ in found) < FEWEST_PAIRS:
        few = "too few pairs for an interval"
        return Ratio(ratio.value, covers=few, pairs=ratio.pairs, processes=ratio.processes, delta=delta)
    return Ratio(ratio.value, ratio.low, ratio.high, ratio.covers, ratio.pairs, ratio.processes, delta=delta)


Samples = tuple[float, ...]


def paired(first: Record, second: Record) -> tuple[tuple[Samples, Samples], ...]:
    """Latencies of the two in rounds of one block in which both were timed, for each process that has any; () where none.

    A latency that is not above zero, or has no end, is no half of a pair.
    """
    a, b = first.timing, second.timing
    if a is None or b is None or not a.block or a.block != b.block or device_of(first) != device_of(second):
        return ()
    left, right = a.by_process, b.by_process
    out = []
    for process in sorted(left.keys() & right.keys()):
        own, other = left[process], right[process]
        shared = sorted(number for number in own.keys() & other.keys() if _timed(own[number]) and _timed(other[number]))
        if shared:
            out.append((tuple(own[number] for number in shared), tuple(other[number] for number in shared)))
    return tuple(out)


def _timed(latency: float) -> bool:
    return 0 < latency < math.inf


@lru_cache(maxsize=4096)
def _over(pairs: tuple[tuple[Samples, Samples], ...]) -> stats.Ratio:
    """Kept, since one run's table, comparison and sentences ask for the same pairs."""
    return stats.ratio_over_processes(pairs)
