"""The ratio of one metric between two cases, with its interval or the reason why there is none.

Traced numbers are exact, so their ratio is. Latencies (and throughputs) are compared only by rounds of one block in which both
were timed, never by the medians of separate runs: shared machines shift those by tens of percent.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from attnprof import stats
from attnprof.records import Record
from attnprof.report.metrics import FEWEST_PAIRS, Metric, pairs, why_missing

EXACT = "exact"
NOT_PAIRED = "not timed in the same block"


@dataclass(frozen=True)
class Ratio:
    """first / second. `covers` says what the interval covers; `reason` why there is no value."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    covers: str = ""
    pairs: int | None = None
    reason: str = ""
    delta: float | None = None  # first - second, in the metric's base unit; of timings only where both stand in one block


def ratio_of(first: Record, second: Record, metric: Metric) -> Ratio:
    """The ratio first / second of one metric."""
    a, b = metric.read(first), metric.read(second)
    if a is None or b is None:
        lacking = first if a is None else second
        return Ratio(reason=f"{lacking.case.label}: {why_missing(lacking, metric)}")
    delta = a.value - b.value
    if metric.key in ("latency", "throughput"):
        return _paired(first, second, metric.key == "throughput", delta)
    if b.value == 0:
        return Ratio(reason="both are zero" if a.value == 0 else f"{second.case.label} is zero", delta=delta)
    value = a.value / b.value
    if metric.traced:
        return Ratio(value, value, value, EXACT, delta=delta)
    return Ratio(value, covers="single readings, no interval", delta=delta)


def _paired(first: Record, second: Record, inverse: bool, delta: float) -> Ratio:
    if first is second:
        return Ratio(1.0, 1.0, 1.0, EXACT, delta=delta)
    left, right = pairs(second, first) if inverse else pairs(first, second)
    if not left:
        return Ratio(reason=NOT_PAIRED)
    ratio = _bootstrap(tuple(left), tuple(right))
    if ratio.pairs < FEWEST_PAIRS:
        return Ratio(ratio.value, covers="too few pairs for an interval", pairs=ratio.pairs, delta=delta)
    return Ratio(ratio.value, ratio.low, ratio.high, ratio.covers, ratio.pairs, delta=delta)


@lru_cache(maxsize=4096)
def _bootstrap(left: tuple[float, ...], right: tuple[float, ...]) -> stats.Ratio:
    """Kept, since one run's table, comparison and sentences ask for the same pairs."""
    return stats.paired_ratio(left, right)
