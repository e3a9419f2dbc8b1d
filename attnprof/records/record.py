"""What was found for a case: what was counted, timed and weighed, and how it ended.

Frozen dataclasses in base units with the unit in the name, as the case is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from sys import intern
from typing import Any

from attnprof import stats
from attnprof.records.case import Case

STATUSES = ("ok", "oom", "timeout", "crashed", "error", "unsupported", "invalid_output", "interrupted")
VERDICTS = ("exact", "explained", "unexplained", "crashed", "timeout", "not installed", "not run")
NOT_MEASURED_BUDGET = "not measured (budget)"
NOT_MEASURED_MEMORY = "not measured (memory)"
NOT_CALIBRATED = "not calibrated"

_set = object.__setattr__  # of what is frozen


@dataclass(frozen=True, slots=True)
class Holder:
    """Storage that is alive at the memory peak: how much, what made it (op, submodule, phase) and as what it stays."""

    bytes: int
    op: str  # e.g. "bmm", or "grad of output" for what the caller hands down
    module: str  # dotted path of the submodule; "" is the module itself
    phase: str  # forward, backward
    shape: tuple[int, ...]
    line: str = ""  # "file.py:12" of the code that asked for it, where that was followed (`explain`)

    def __post_init__(self) -> None:
        _share(self)


@dataclass(frozen=True, slots=True)
class OpCost:
    """Cost of all calls of one op in one submodule and phase."""

    op: str
    module: str
    phase: str
    calls: int
    macs: int
    flops: int
    bytes_moved: int

    def __post_init__(self) -> None:
        _share(self)


def _share(noun: Holder | OpCost) -> None:
    """Equal words as one object: a store of many records holds few of them very often."""
    _set(noun, "op", intern(noun.op))
    _set(noun, "module", intern(noun.module))
    _set(noun, "phase", intern(noun.phase))


@dataclass(frozen=True)
class Counts:
    """Traced numbers: exact, the same on every machine. Conventions: `profiling/counting/flops.py`, `lifetimes.py`."""

    params: int
    macs: int
    flops: int
    bytes_moved: int
    activation_bytes: int
    resident_bytes: int
    peak_bytes: int
    peak_cuda_bytes: int
    at_peak: tuple[Holder, ...] = ()
    uncounted: Mapping[str, int] = field(default_factory=dict)
    assumed: Mapping[str, int] = field(default_factory=dict)
    traced_by: str = "meta"  # meta, fake, real
    ops: tuple[OpCost, ...] = ()
    # Calls of F.scaled_dot_product_attention that were counted as the math path: {arguments and rules that refused: calls}.
    math_attention: Mapping[str, int] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Moment:
    """Live bytes above the resident ones after an event of the pass; the op, submodule and phase that the event belongs to."""

    event: int
    bytes: int
    phase: str
    module: str
    op: str


@dataclass(frozen=True)
class Timeline:
    """Live bytes above the resident ones over a pass, thinned: moments that are each the highest of their stretch of events.

    A store holds one per record, so the op of a moment is a number: `who[i]` counts through the rows of the record's
    `Counts.ops`, then through `others`, the (phase, submodule, op) that have no row there (what the caller hands down).
    """

    events: int  # births and deaths of storages in the whole pass
    at: tuple[int, ...]  # events up to each moment
    bytes: tuple[int, ...]
    who: tuple[int, ...]
    others: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Outputs:
    """Elements of the outputs of one forward pass: of convolutions and linear layers, and of products of two activations."""

    layers: int
    products: int


@dataclass(frozen=True)
class Timing:
    """Latency on a real device: every raw sample, in the order taken, none dropped.

    `rounds[i]` is the round of the block in which sample i was taken: samples of two members with the same `block`, process
    and round stand side by side and form a pair. `process_of[i]` is the replicate process of sample i; empty for a single one.
    """

    latency_s: tuple[float, ...]
    rounds: tuple[int, ...] = ()
    block: str = ""
    warmup: int = 0
    warmup_converged: bool = True
    stopped_by: str = ""  # interval, stable, budget
    warnings: tuple[str, ...] = ()
    process_of: tuple[int, ...] = ()

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.latency_s)

    @property
    def by_process(self) -> dict[int, dict[int, float]]:
        """{process: {round: latency in seconds}}; empty without rounds."""
        found: dict[int, dict[int, float]] = {}
        processes = self.process_of or (0,) * self.n
        for process, number, latency in zip(processes, self.rounds, self.latency_s, strict=False):
            found.setdefault(process, {})[number] = latency
        return found

    @property
    def k(self) -> int:
        """Number of processes that the samples come from."""
        return max(len(set(self.process_of)), 1)

    @property
    def median_s(self) -> float:
        """Median latency in seconds; of the processes' medians where there are several."""
        return self._summary[0]

    @property
    def ci_s(self) -> tuple[float, float]:
        """95 % interval of the median: by order statistics, or over processes (Student's t) where there are several."""
        return self._summary[1:]

    @property
    def _summary(self) -> tuple[float, float, float]:
        if self.k == 1:
            return stats.median(self.latency_s), *stats.median_interval(self.latency_s)
        return stats.median_over_processes([list(own.values()) for own in self.by_process.values()])


@dataclass(frozen=True)
class Memory:
    """Measured or calibrated peak memory above parameters, buffers and inputs."""

    peak_bytes: int
    source: str  # cuda_allocator, cpu_allocator, calibrated
    absolute_bytes: int | None = None
    at_op: str = ""  # calibrated: the op that runs at the peak
    scratch_bytes: int | None = None  # calibrated: what that op takes beside its outputs


@dataclass(frozen=True)
class Opinion:
    """What one counter says of a case's forward pass, held against the trace.

    error: macs / traced macs - 1 (0.0 where both are 0, None where only the trace is 0 or there is no number). missed, extra:
    {what: macs} that the counter leaves out or adds; without `unexplained` they sum to the whole difference.
    """

    counter: str  # attnprof real, fvcore, ptflops aten, ptflops pytorch, torch real, torch meta
    status: str  # one of VERDICTS
    macs: int | None = None
    error: float | None = None
    missed: Mapping[str, int] = field(default_factory=dict)
    extra: Mapping[str, int] = field(default_factory=dict)
    sentence: str = ""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Record:
    """What was found for a case. Half-filled is legal; `detail` gives the reason for everything that is missing."""

    case: Case
    status: str = "ok"
    counts: Counts | None = None
    timing: Timing | None = None
    memory: Memory | None = None
    energy_j: float | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    detail: str = ""
    crosscheck: tuple[Opinion, ...] = ()  # of other counters, where a spec asks for them
    calibrated: Memory | None = None  # expected of the device's allocator from its ops run alone, where a spec asks for it
    memory_timeline: Timeline | None = None  # of the pass that `counts` are of

    @property
    def moments(self) -> tuple[Moment, ...]:
        """The moments of `memory_timeline` with the names of their ops; none without it."""
        found = self.memory_timeline
        if found is None or self.counts is None:
            return ()
        names = [(op.phase, op.module, op.op) for op in self.counts.ops] + list(found.others)
        return tuple(Moment(at, size, *names[who]) for at, size, who in zip(found.at, found.bytes, found.who, strict=True))
