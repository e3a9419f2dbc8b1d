"""What measuring a case will cost, from its counts: a roofline with the machine's probed rates, corrected by what was seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from attnprof import stats
from attnprof.records import Counts, Record, Shape

_OPS_IF_UNKNOWN = 30
_CHILD_S = 0.15  # start of a child and its first op
_SPAWN_S = 2.5  # the same in a fresh interpreter
_PASSES_BEFORE = 12  # first pass, estimate, warm-up
_MEMORY_PASSES = 3  # the warm-up, and the slower pass under the profiler
_BUILD_S = 0.02
_LEAST_TIMEOUT_S = 60.0
_TIMEOUT_FACTOR = 20.0  # a prediction that is wrong by so much is not what is running
MEMORY_SHARE = 0.8
_SLACK = 3.0


@dataclass(frozen=True)
class Rates:
    """What one dtype reaches on one device."""

    macs_per_s: float
    bytes_per_s: float
    op_s: float


@dataclass
class Predictor:
    """Rates per dtype, memory and flush time of a device, processes per block, and how far predictions were off so far."""

    rates: Mapping[str, Rates]
    free_bytes: int
    flush_s: float = 0.0
    processes: int = 1
    seen: list[tuple[str, float]] = field(default_factory=list)  # (mechanism, log of seen over predicted)

    def learn(self, record: Record) -> None:
        """Take a finished measurement into account."""
        raw = self._roofline(record)
        if record.timing is not None and record.timing.n and raw > 0:
            self.seen.append((record.case.mechanism, math.log(record.timing.median_s / raw)))

    def pass_s(self, record: Record) -> float:
        """Seconds that one pass of a traced case will take."""
        own = [error for name, error in self.seen if name == record.case.mechanism]
        known = own or [error for _, error in self.seen]
        return self._roofline(record) * (math.exp(stats.median(known)) if known else 1.0)

    def cell_s(self, record: Record, samples: int) -> float:
        """Seconds for building, warm-up, the least number of samples and the memory pass of one member."""
        one = self.pass_s(record)
        return self.processes * (_BUILD_S + (samples + _PASSES_BEFORE) * (one + self.flush_s)) + self.memory_s(record)

    def timeout_s(self, record: Record, samples: int, budget_s: float) -> float:
        """Seconds after which one member hangs: a minute at least, else a multiple of what its cell should take."""
        return max(_LEAST_TIMEOUT_S, _TIMEOUT_FACTOR * max(self.cell_s(record, samples), budget_s))

    def memory_s(self, record: Record) -> float:
        """Seconds for the memory pass of one member."""
        return _BUILD_S + _MEMORY_PASSES * self.pass_s(record)

    def _roofline(self, record: Record) -> float:
        counts, rates = record.counts, self.rates.get(record.case.dtype)
        if counts is None or rates is None:
            return 0.0
        calls = sum(op.calls for op in counts.ops) or _OPS_IF_UNKNOWN
        return counts.macs / rates.macs_per_s + counts.bytes_moved / rates.bytes_per_s + calls * rates.op_s


def block_overhead_s(processes: int = 1) -> float:
    """Seconds for the children of a block: one for its memory, and those that time it, which are spawned from two on."""
    return _CHILD_S + (_CHILD_S if processes == 1 else processes * _SPAWN_S)


def needed_bytes(members: Sequence[Counts]) -> int:
    """Memory for members that live in one process and run one at a time."""
    peaks = [max(counts.peak_bytes, counts.peak_cuda_bytes) for counts in members]
    return sum(counts.resident_bytes for counts in members) + max(peaks, default=0)


def split_by_memory(records: Sequence[Record], usable: int) -> tuple[list[list[Record]], list[Record]]:
    """(groups that fit together, records that do not fit even alone), in order."""
    groups: list[list[Record]] = []
    too_large: list[Record] = []
    for record in records:
        assert record.counts is not None
        if needed_bytes([record.counts]) > usable:
            too_large.append(record)
            continue
        latest = groups[-1] if groups else []
        if latest and needed_bytes([r.counts for r in [*latest, record] if r.counts is not None]) <= usable:
            latest.append(record)
        else:
            groups.append([record])
    return groups, too_large


def choose(
    groups: Sequence[Sequence[Record]], predictor: Predictor, samples: int, left_s: float, first: str | None = None
) -> list[list[Record]]:
    """The members to measure while they fit: the shape that costs least as a whole first, in it `first`, then the cheapest.

    Whole tables of one resolution come before scattered cells of all. Groups in the order in which they are to be measured.
    """
    costs = {record.case.key: predictor.cell_s(record, samples) for group in groups for record in group}
    shapes: dict[Shape, float] = {}
    for record in (record for group in groups for record in group):
        shapes[record.case.shape] = shapes.get(record.case.shape, 0.0) + costs[record.case.key]
    homes = [
        (
            shapes[record.case.shape],
            first not in (record.case.label, record.case.mechanism),
            costs[record.case.key],
            index,
            record,
        )
        for index, group in enumerate(groups)
        for record in group
    ]
    chosen: set[str] = set()
    opened: set[int] = set()
    for _, _, cost, home, record in sorted(homes, key=lambda entry: entry[:4]):
        needed = cost + (0.0 if home in opened else block_overhead_s(predictor.processes))
        if needed <= left_s:
            left_s -= needed
            chosen.add(record.case.key)
            opened.add(home)
    kept = [[record for record in group if record.case.key in chosen] for group in groups]
    order = [group for group in kept if group]
    return sorted(order, key=lambda group: (shapes[group[0].case.shape], sum(costs[record.case.key] for record in group)))


def group_s(group: Sequence[Record], predictor: Predictor, samples: int) -> float:
    """Seconds that a block of these members takes at least."""
    return block_overhead_s(predictor.processes) + sum(predictor.cell_s(record, samples) for record in group)


def shares(
    groups: Sequence[Sequence[Record]], predictor: Predictor, samples: int, capacity_s: float, left_s: float
) -> list[tuple[float, float]]:
    """Per group (seconds after which it stops sampling once it has enough, seconds after which it stops at all).

    capacity_s: what all devices together have left; left_s: what one of them has. The first is what its members need at least
    and their part of what nobody needs. The second leaves room for a prediction that was too low: better some cells whole than
    all of them cut off.
    """
    costs = [group_s(group, predictor, samples) for group in groups]
    spare = max(capacity_s - sum(costs), 0.0) / sum(len(group) for group in groups)
    fair = [cost + spare * len(group) for cost, group in zip(costs, groups, strict=True)]
    return [(min(part, left_s), min(max(part, _SLACK * cost), left_s)) for part, cost in zip(fair, costs, strict=True)]
