"""What a column can show: every metric with its name, head, unit, direction and how it is read from a Record.

One table, `METRICS`, is the only place that knows them; tables, CSV, comparisons and their sentences all read it. A reading
is in base units with its interval where there is one; what is missing comes with its reason, never as a zero.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from attnprof.errors import UsageError
from attnprof.profiling import bounds
from attnprof.records import NOT_CALIBRATED, NOT_MEASURED_BUDGET, NOT_MEASURED_MEMORY, Counts, Record

NOT_MEASURED_DEVICE = "not measured (device none)"
DEFAULT_METRICS = ("params", "macs", "flops", "peak_memory", "latency")
FEWEST_PAIRS = 6  # with fewer, no pair of order statistics reaches 95 %: no interval is given


@dataclass(frozen=True)
class Reading:
    """A value in base units, its 95 % interval and the number of samples where it was sampled."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class Metric:
    """One metric. `kind` picks the column's unit (units.column_unit), `unit` is the base unit in CSV."""

    key: str
    head: str
    kind: str
    unit: str
    noun: str
    read: Callable[[Record], Reading | None]
    traced: bool = True
    higher_is_better: bool = False

    @property
    def direction(self) -> str:
        """'lower' or 'higher': which values are the better ones."""
        return "higher" if self.higher_is_better else "lower"


def _count(field: str) -> Callable[[Record], Reading | None]:
    def read(record: Record) -> Reading | None:
        counts: Counts | None = record.counts
        return None if counts is None else Reading(getattr(counts, field))

    return read


def _latency(record: Record) -> Reading | None:
    if record.timing is None or not record.timing.n:
        return None
    low, high = record.timing.ci_s if record.timing.n > 1 else (None, None)
    return Reading(record.timing.median_s, low, high, record.timing.n)


def _throughput(record: Record) -> Reading | None:
    latency, batch = _latency(record), record.case.shape.batch
    if latency is None or latency.value <= 0:
        return None
    if not latency.low or not latency.high:
        return Reading(batch / latency.value, n=latency.n)
    return Reading(batch / latency.value, batch / latency.high, batch / latency.low, latency.n)


def _memory(record: Record) -> Reading | None:
    return None if record.memory is None else Reading(record.memory.peak_bytes)


def _calibrated(record: Record) -> Reading | None:
    return None if record.calibrated is None else Reading(record.calibrated.peak_bytes)


def _energy(record: Record) -> Reading | None:
    return None if record.energy_j is None else Reading(record.energy_j)


def _bound(record: Record) -> Reading | None:
    found = bounds.bound(record)
    return None if isinstance(found, str) else Reading(found.seconds)


def _unfused(record: Record) -> Reading | None:
    found = bounds.unfused(record)
    return None if isinstance(found, str) else Reading(found)


def _bound_ratio(record: Record) -> Reading | None:
    """Latency / bound: how far a case is from what no kernel beats."""
    latency, floor = _latency(record), bounds.held_against(record)
    if latency is None or isinstance(floor, str):
        return None
    if latency.low is None or latency.high is None:
        return Reading(latency.value / floor, n=latency.n)
    return Reading(latency.value / floor, latency.low / floor, latency.high / floor, latency.n)


_ALL = (
    Metric("params", "Params", "count", "1", "parameters", _count("params")),
    Metric("macs", "MACs", "operations", "1", "MACs", _count("macs")),
    Metric("flops", "FLOPs", "operations", "1", "FLOPs", _count("flops")),
    Metric("bytes_moved", "Moved", "bytes", "B", "bytes moved", _count("bytes_moved")),
    Metric("activation_memory", "Activations", "bytes", "B", "activation memory", _count("activation_bytes")),
    Metric("resident_memory", "Resident", "bytes", "B", "resident memory", _count("resident_bytes")),
    Metric("peak_memory", "Peak", "bytes", "B", "peak memory", _count("peak_bytes")),
    Metric("peak_cuda_memory", "Peak CUDA", "bytes", "B", "modelled CUDA peak memory", _count("peak_cuda_bytes")),
    Metric("measured_memory", "Peak meas.", "bytes", "B", "measured peak memory", _memory, traced=False),
    Metric("calibrated_memory", "Peak calib.", "bytes", "B", "calibrated peak memory", _calibrated, traced=False),
    Metric("latency", "Latency", "seconds", "s", "latency", _latency, traced=False),
    Metric("throughput", "Throughput", "rate", "1/s", "throughput", _throughput, traced=False, higher_is_better=True),
    Metric("energy", "Energy", "joules", "J", "energy", _energy, traced=False),
    Metric("bound", "Bound", "seconds", "s", "bound", _bound),
    Metric("unfused", "Unfused", "seconds", "s", "unfused estimate", _unfused),
    Metric("bound_ratio", "Latency/bound", "ratio", "1", "latency / bound", _bound_ratio, traced=False),
)
METRICS: Mapping[str, Metric] = {metric.key: metric for metric in _ALL}
_BOUNDS: Mapping[str, Callable[[Record], object]] = {  # a number, or the sentence why there is none
    "bound": bounds.bound,
    "unfused": bounds.unfused,
    "bound_ratio": bounds.held_against,
}
_OF_THE_MODULE = ("params", "resident_memory")  # whatever its inputs hold
_OF_OPERATIONS = ("macs", "flops", "unfused")
_MASKED = "flex_attention with a block mask"  # how profiling/counting/flex.py begins: an assumption on operations alone
_ONE_RUN = "COUNTED IN ONE RUN on seeded values, since no trace without data was possible: it may depend on them"
_ALIASES = {
    "activation_bytes": "activation_memory",
    "resident_bytes": "resident_memory",
    "peak_bytes": "peak_memory",
    "peak_cuda_bytes": "peak_cuda_memory",
    "latency_s": "latency",
    "energy_j": "energy",
    "memory": "peak_memory",
}


def metric(name: str) -> Metric:
    """The metric called `name` (field names of a Record are understood too). Raises UsageError with the nearest name."""
    key = _ALIASES.get(name, name)
    if key not in METRICS:
        near = difflib.get_close_matches(name, [*METRICS, *_ALIASES], n=1)
        advice = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(METRICS)}."
        raise UsageError(f"no metric is called '{name}': {advice}")
    return METRICS[key]


def select(names: Iterable[str], records: Iterable[Record]) -> tuple[Metric, ...]:
    """The metrics called `names`; measured and calibrated peaks stand beside the traced ones where any record has one."""
    chosen, found = list(dict.fromkeys(metric(name) for name in names)), list(records)
    peak = METRICS["peak_memory"]
    for beside in (METRICS["measured_memory"], METRICS["calibrated_memory"]):
        if peak in chosen and beside not in chosen and any(beside.read(record) is not None for record in found):
            chosen.insert(chosen.index(peak) + 1, beside)
    return tuple(chosen)


def caveat(record: Record, wanted: Metric) -> str:
    """What a count leaves out or takes for granted, in words for its footnote; '' for a whole one.

    What depends on data, memory does as well; what is not counted, and what an assumption on operations is about, are these.
    """
    found, operations = record.counts, wanted.key in ("macs", "flops")
    if found is None or not wanted.traced or wanted.key in _OF_THE_MODULE:
        return ""
    parts = []
    of_operations = wanted.key in _OF_OPERATIONS
    assumed = {op: calls for op, calls in found.assumed.items() if of_operations or not op.startswith(_MASKED)}
    for ledger, text in ((found.uncounted if operations else {}, "NOT COUNTED, no formula"), (assumed, assumption(found))):
        if ledger:
            parts.append(f"{text}: {', '.join(f'{op} {calls}' for op, calls in ledger.items())}")
    if found.traced_by == "real" and not assumed:
        parts.append(_ONE_RUN)
    return "; ".join(parts)


def assumption(counts: Counts) -> str:
    """How what is in `assumed` was counted."""
    return "DEPENDS ON DATA, counted in one run on seeded values" if counts.traced_by == "real" else "counted on an assumption"


def why_missing(record: Record, wanted: Metric) -> str:
    """Why `wanted` has no reading in this record, in one line."""
    lines = record.detail.splitlines()
    detail = " ".join(" ".join(line for line in lines if not line.startswith(NOT_CALIBRATED)).split())
    if record.status != "ok":
        return f"{record.status}: {detail}" if detail else record.status
    if record.counts is not None and (wanted.key != "bound_ratio" or record.timing is not None):
        found = _BOUNDS[wanted.key](record) if wanted.key in _BOUNDS else None
        if isinstance(found, str):
            return found
    if wanted.traced:
        return f"not traced: {detail}" if detail else "not traced (no reason recorded)"
    if record.case.device == "none":
        return NOT_MEASURED_DEVICE
    if wanted.key == "calibrated_memory":
        return next((line for line in lines if line.startswith(NOT_CALIBRATED)), f"{NOT_CALIBRATED} (not asked for)")
    for reason in (NOT_MEASURED_BUDGET, NOT_MEASURED_MEMORY):
        if reason in detail:
            return reason
    if wanted.key in ("energy", "measured_memory") and record.timing is not None:
        return "not measured (no reading on this device)"
    return f"not measured: {detail}" if detail else "not measured (no reason recorded)"
