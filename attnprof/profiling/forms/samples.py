"""Samples: what a module's trace leaves at one point (B, C, H, W, T, integer arguments), as a structure and a row of integers.

Two traces of one structure have the same ops, in the same submodules, and the same blocks born and dying in the same order;
what differs is the row: sizes, dimensions, costs. Entries of a row are what closed forms are found for, one by one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from attnprof.profiling import instantiate
from attnprof.profiling.counting.lifetimes import Lifetimes
from attnprof.profiling.counting.trace import follow_case
from attnprof.profiling.counting.tracer import Tracer
from attnprof.records import Case, Counts, Mechanism, Shape

Point = tuple[int, ...]  # values of Sampler.names, in that order
TOTALS = ("params", "macs", "flops", "bytes_moved", "activation_bytes", "resident_bytes")
BY_DATA = "its cost depends on data"
FIXED = 3  # entries of a row before the blocks: params, resident_bytes, activation_bytes


@dataclass(frozen=True)
class Structure:
    """What traces of one program share. blocks: (op, module, phase, number of dimensions); ops: (op, module, phase, calls)."""

    blocks: tuple[tuple[str, str, str, int], ...]
    events: tuple[int, ...]
    temporaries: tuple[int, ...]  # the number of events before each
    ops: tuple[tuple[str, str, str, int], ...]
    uncounted: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Sample:
    """One trace, or the reason why there is none: `key` names the structure (0: refused)."""

    point: Point
    key: int
    row: tuple[int, ...] = ()
    totals: tuple[int, ...] = ()  # of TOTALS
    peak_bytes: int = 0
    reason: str = ""


@dataclass
class Sampler:
    """Traces one module in one mode wherever it is asked to, and remembers."""

    case: Case
    mechanism: Mechanism
    arguments: tuple[str, ...] = ()  # integer arguments that vary with the point
    structures: dict[int, Structure] = field(default_factory=dict)
    known: dict[Point, Sample] = field(default_factory=dict)
    keys: dict[Structure, int] = field(default_factory=dict)
    switches: tuple[int, ...] = ()  # sizes of C at which something grows by a step
    params_only: bool = False  # builds the module and traces nothing: totals after the first are 0

    @property
    def names(self) -> tuple[str, ...]:
        """The variables of a point, in order."""
        return ("B", "C", "H", "W", "T", *self.arguments)

    def at(self, point: Point) -> Sample:
        """The sample at a point. What the module raises there is its reason."""
        if point not in self.known:
            self.known[point] = self._trace(point)
        return self.known[point]

    def case_at(self, point: Point) -> Case:
        """The case that a point stands for."""
        batch, channels, height, width, frames, *given = point
        args = {**self.case.args, **dict(zip(self.arguments, given, strict=True))}
        return dataclasses.replace(self.case, shape=Shape(batch, channels, height, width, frames), args=args)

    def _trace(self, point: Point) -> Sample:
        try:
            if self.params_only:
                module = instantiate.build_on_meta(self.mechanism, self.case_at(point), Tracer())
                params = sum(parameter.numel() for parameter in module.parameters())
                self.structures.setdefault(1, Structure((), (), (), (), ()))
                return Sample(point, 1, (params,), (params, *(0 for _ in TOTALS[1:])))
            traced = follow_case(self.case_at(point), mechanism=self.mechanism, allow_real=False)
        except Exception as error:  # noqa: BLE001  a module refuses what it is not made for
            return Sample(point, 0, reason=f"{type(error).__name__}: {error}".splitlines()[0][:200])
        counts = traced.counts
        if counts.assumed or counts.traced_by != "meta":
            return Sample(point, 0, reason=f"{BY_DATA} ({', '.join(counts.assumed) or counts.traced_by})")
        structure, row = taken_apart(counts, traced.lifetimes)
        key = self.keys.setdefault(structure, len(self.keys) + 1)
        self.structures.setdefault(key, structure)
        totals = tuple(getattr(counts, name) for name in TOTALS)
        return Sample(point, key, row, totals, counts.peak_bytes)


def taken_apart(counts: Counts, lifetimes: Lifetimes) -> tuple[Structure, tuple[int, ...]]:
    """The structure of a trace, and its row: params, resident, activation, sizes, dimensions, temporaries, costs of ops."""
    makers = lifetimes.makers[1:]
    structure = Structure(
        tuple((maker.op, maker.module, maker.phase, len(maker.shape)) for maker in makers),
        lifetimes.events,
        tuple(at for at, _ in lifetimes.temporaries),
        tuple((row.op, row.module, row.phase, row.calls) for row in counts.ops),
        tuple(counts.uncounted.items()),
    )
    row = [counts.params, counts.resident_bytes, counts.activation_bytes, *lifetimes.sizes[1:]]
    for maker in makers:
        row += maker.shape
    row += [size for _, size in lifetimes.temporaries]
    for cost in counts.ops:
        row += (cost.macs, cost.flops, cost.bytes_moved)
    return structure, tuple(row)


def dimension_columns(structure: Structure) -> range:
    """Where a row of this structure holds the dimensions of its blocks."""
    start = FIXED + len(structure.blocks)
    return range(start, start + sum(dims for _, _, _, dims in structure.blocks))


def pooled_columns(structure: Structure) -> list[tuple[int, int]]:
    """Where a row of this structure holds height and width of what adaptive pooling made."""
    found = []
    at = FIXED + len(structure.blocks)
    for op, _, _, dims in structure.blocks:
        at += dims
        if "adaptive" in op and dims >= 2:
            found.append((at - 2, at - 1))
    return found


def entry_name(structure: Structure, index: int) -> str:
    """What an entry of a row is, in words: 'size of bmm (theta)', 'flops of _softmax'."""
    names = ["params", "resident_bytes", "activation_bytes"]

    def owner(op: str, module: str, phase: str) -> str:
        return f"{op}{f' ({module})' if module else ''}{', backward' if phase == 'backward' else ''}"

    names += [f"size of {owner(*block[:3])}" for block in structure.blocks]
    names += [f"dimension {at} of {owner(*block[:3])}" for block in structure.blocks for at in range(block[3])]
    names += ["kernel temporary" for _ in structure.temporaries]
    names += [f"{what} of {owner(*op[:3])}" for op in structure.ops for what in ("macs", "flops", "bytes")]
    return names[index]
