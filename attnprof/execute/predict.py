"""What measuring a case will cost, from its counts: a roofline with the machine's probed rates, corrected by what was seen."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

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
_SURELY = 1 - 1e-9  # sums in another order differ in their last digits
_ALL = ""  # all mechanisms together


@dataclass(frozen=True)
class Rates:
    """What one dtype reaches on one device."""

    macs_per_s: float
    bytes_per_s: float
    op_s: float


@dataclass
class Predictor:
    """Rates per dtype, memory and flush time of a device, processes per block, and how far predictions were off so far.

    seen: {mechanism, "" for all of them: log of seen over predicted, in order of size}. What follows from it is kept, and so
    is a case's roofline: a run asks for them after every block.
    """

    rates: Mapping[str, Rates]
    free_bytes: int
    flush_s: float = 0.0
    processes: int = 1
    seen: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._factors = {name: math.exp(stats.median(errors)) for name, errors in self.seen.items()}
        self._rooflines: dict[str, tuple[Counts | None, float]] = {}

    def learn(self, record: Record) -> None:
        """Take a finished measurement into account."""
        raw = self.roofline_s(record)
        if record.timing is None or not record.timing.n or raw <= 0:
            return
        error = math.log(record.timing.median_s / raw)
        for name in (record.case.mechanism, _ALL):
            errors = self.seen.setdefault(name, [])
            bisect.insort(errors, error)
            self._factors[name] = math.exp(stats.median(errors))

    def about(self, records: Iterable[Record]) -> Predictor:
        """One that predicts the same for these records, and is small however much was seen."""
        names = {_ALL, *(record.case.mechanism for record in records)}
        return replace(self, seen={name: [stats.median(self.seen[name])] for name in sorted(names) if name in self.seen})

    def factor(self, mechanism: str) -> float:
        """How many times its roofline a pass of a mechanism takes: as seen of it, or else of all."""
        own = self._factors.get(mechanism)
        return self._factors.get(_ALL, 1.0) if own is None else own

    @property
    def least_factor(self) -> float:
        """The smallest of them."""
        return min(self._factors.values(), default=1.0)

    def pass_s(self, record: Record) -> float:
        """Seconds that one pass of a traced case will take."""
        return self.roofline_s(record) * self.factor(record.case.mechanism)

    def line(self, samples: int) -> tuple[float, float]:
        """(seconds of a cell beside its passes, number of its passes): build, warm-up, the least samples, the memory pass."""
        passes = samples + _PASSES_BEFORE
        return self.processes * (_BUILD_S + passes * self.flush_s) + _BUILD_S, self.processes * passes + _MEMORY_PASSES

    def cell_s(self, record: Record, samples: int) -> float:
        """Seconds for building, warm-up, the least number of samples and the memory pass of one member."""
        beside_s, passes = self.line(samples)
        return beside_s + passes * self.pass_s(record)

    def timeout_s(self, record: Record, samples: int, budget_s: float) -> float:
        """Seconds after which one member hangs: a minute at least, else a multiple of what its cell should take."""
        return max(_LEAST_TIMEOUT_S, _TIMEOUT_FACTOR * max(self.cell_s(record, samples), budget_s))

    def memory_s(self, record: Record) -> float:
        """Seconds for the memory pass of one member."""
        return _BUILD_S + _MEMORY_PASSES * self.pass_s(record)

    def roofline_s(self, record: Record) -> float:
        """Seconds of one pass by the machine's rates alone."""
        counts, found = self._rooflines.get(record.case.key, (None, 0.0))
        if counts is None or counts is not record.counts:
            found = self._roofline_s(record)
            self._rooflines[record.case.key] = record.counts, found
        return found

    def _roofline_s(self, record: Record) -> float:
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


Priced = tuple[list[Record], list[float]]  # a group, and the seconds of each of its members


@dataclass(eq=False)
class Shelf:
    """The groups of one shape. least_s: no roofline of it and of the shelves after it is shorter."""

    groups: list[list[Record]]
    least_s: float


def size(shape: Shape) -> tuple[int, ...]:
    """What shapes are put in order by: the elements of the input, then the numbers themselves."""
    elements = shape.batch * shape.channels * shape.frames * shape.height * shape.width
    return elements, shape.batch, shape.channels, shape.height, shape.width, shape.frames


def shelves(groups: Iterable[Sequence[Record]], predictor: Predictor) -> list[Shelf]:
    """The groups by shape, the smallest first."""
    by_shape: dict[Shape, list[list[Record]]] = {}
    for group in filter(None, groups):
        by_shape.setdefault(group[0].case.shape, []).append(list(group))
    found: list[Shelf] = []
    least_s = math.inf
    for shape in sorted(by_shape, key=size, reverse=True):
        least_s = min(least_s, *(predictor.roofline_s(record) for group in by_shape[shape] for record in group))
        found.append(Shelf(by_shape[shape], least_s))
    return found[::-1]


def choose(
    groups: Iterable[Sequence[Record]], predictor: Predictor, samples: int, left_s: float, first: str | None = None
) -> list[list[Record]]:
    """The members to measure while they fit: the smallest shape first, in it `first`, then the cheapest.

    Whole tables of one resolution come before scattered cells of all, whatever of a resolution is measured already. Groups in
    the order in which they are to be measured.
    """
    return [group for group, _ in choose_from(shelves(groups, predictor), predictor, samples, left_s, first)]


def choose_from(
    shelves: Iterable[Shelf], predictor: Predictor, samples: int, left_s: float, first: str | None = None
) -> list[Priced]:
    """The same of shelves, each group with its members' seconds; those are not looked at of which nothing can fit."""
    beside_s, passes = predictor.line(samples)
    beside_s, passes = beside_s + block_overhead_s(predictor.processes), passes * predictor.least_factor
    chosen: list[Priced] = []
    for shelf in shelves:
        if _SURELY * (beside_s + passes * shelf.least_s) > left_s:
            break
        found, left_s = _of_shelf(shelf, predictor, samples, left_s, first)
        chosen += found
    return chosen


def _of_shelf(shelf: Shelf, predictor: Predictor, samples: int, left_s: float, first: str | None) -> tuple[list[Priced], float]:
    """(what fits of a shelf, the cheapest group first, the seconds that are left)."""
    beside_s, passes = predictor.line(samples)
    overhead_s = block_overhead_s(predictor.processes)
    found = [(group, [beside_s + passes * predictor.pass_s(record) for record in group]) for group in shelf.groups]
    needed_s = sum(overhead_s + sum(costs) for _, costs in found)
    if needed_s <= left_s:
        return sorted(found, key=_cost_s), left_s - needed_s
    cells = [
        (first not in (record.case.label, record.case.mechanism), cost, home, index)
        for home, (group, costs) in enumerate(found)
        for index, (record, cost) in enumerate(zip(group, costs, strict=True))
    ]
    chosen: list[list[int]] = [[] for _ in found]
    for _, cost, home, index in sorted(cells):
        needed_s = cost + (0.0 if chosen[home] else overhead_s)
        if needed_s <= left_s:
            left_s -= needed_s
            chosen[home].append(index)
    kept = [
        ([group[index] for index in sorted(indices)], [costs[index] for index in sorted(indices)])
        for (group, costs), indices in zip(found, chosen, strict=True)
        if indices
    ]
    return sorted(kept, key=_cost_s), left_s


def _cost_s(priced: Priced) -> float:
    return sum(priced[1])


def group_s(group: Sequence[Record], predictor: Predictor, samples: int) -> float:
    """Seconds that a block of these members takes at least."""
    beside_s, passes = predictor.line(samples)
    return block_overhead_s(predictor.processes) + len(group) * beside_s + passes * sum(map(predictor.pass_s, group))


def share(cost_s: float, members: int, spare_s: float, left_s: float) -> tuple[float, float]:
    """Of a block: (seconds after which it stops sampling once it has enough, seconds after which it stops at all).

    cost_s: what it takes at least; spare_s: per member, what nobody needs; left_s: what its device has left. The first is its
    cost and its part of what nobody needs. The second leaves room for a prediction that was too low: better some cells whole
    than all of them cut off.
    """
    part = cost_s + spare_s * members
    return min(part, left_s), min(max(part, _SLACK * cost_s), left_s)
