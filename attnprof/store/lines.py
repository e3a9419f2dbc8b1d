"""One line of a store: bytes -> what it says, with the type of every field checked. No line raises anything but LineError.

A line is looked at in two steps: `peek` reads what a resume, a merge and an index ask for, in a fifth of the time that `whole`
takes, which gives the Record. Where msgspec refuses what Python's json writes (NaN, Infinity), json reads the line instead.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

import msgspec
from msgspec import structs

from attnprof.records import SCHEMA_VERSION, STATUSES, Case, Counts, Memory, OpCost, Record, Timing
from attnprof.records.plain import whole_characters

T = TypeVar("T")
START = b'{"schema":'  # of every line that attnprof writes
_SHORTEST_S, _LONGEST_S = 1e-12, 1e9  # of a latency
_MOST = 10**40  # of a count: above the product of two numbers of 64 bits
_MOST_J = 1e15
_COUNTED = tuple(each.name for each in dataclasses.fields(Counts) if each.type == "int")


class LineError(Exception):
    """What is wrong with a line. `foreign`: it does not come from a store; `newer`: from one of a newer attnprof."""

    def __init__(self, what: str, *, foreign: bool = False, newer: bool = False) -> None:
        super().__init__(what)
        self.foreign = foreign
        self.newer = newer


@dataclass(frozen=True)
class Run:
    """What was asked for: the cases of a run in their order, and how its tables are to be drawn.

    Of a run of one shard, `keys` are those of the whole plan, `shard` is its number (from 1) `of` how many, and `shards` says
    for each key which shard it falls to. A merged store keeps `of` and `shards`, so that it can say what is missing.
    """

    name: str
    keys: tuple[str, ...]
    baseline: str | None = None
    metrics: tuple[str, ...] = ()
    source: str = ""  # hash of the spec's text
    commit: str = ""  # of the repository that the spec lies in
    shard: int | None = None
    of: int | None = None
    shards: tuple[int, ...] = ()

    @property
    def own(self) -> tuple[str, ...]:
        """The keys that this run was to do: all, or those of its shard."""
        if self.shard is None:
            return self.keys
        return tuple(key for key, number in zip(self.keys, self.shards, strict=True) if number == self.shard)


@dataclass(frozen=True)
class Peek:
    """What is asked of a stored record before it is needed in full."""

    case: Case
    status: str
    counted: bool
    timed: bool
    calibrated: bool
    detail: str
    provenance: Mapping[str, Any]


class _There(msgspec.Struct):
    """Any object: that it is there is all that is asked."""


class _Environment(msgspec.Struct):
    provenance: dict[str, Any] = {}


class _Head(msgspec.Struct):
    schema: int
    kind: str


class _PeekedRecord(msgspec.Struct):
    case: Case
    status: str
    counts: _There | None = None
    timing: _There | None = None
    calibrated: _There | None = None
    environment: _Environment = msgspec.field(default_factory=_Environment)
    detail: str = ""


class _PeekedLine(msgspec.Struct):
    schema: int
    kind: str
    record: _PeekedRecord | None = None


class _WholeLine(msgspec.Struct):
    record: Record


def _without(noun: type, left_out: str, **other: Any) -> Any:
    """A noun without one of its fields, which is passed over where it is read; `other`: types that differ from the noun's."""
    types = {**get_type_hints(noun), **other}
    rows: list[Any] = []
    for each in dataclasses.fields(noun):
        if each.name == left_out:
            continue
        if each.default_factory is not dataclasses.MISSING:
            rows.append((each.name, types[each.name], msgspec.field(default_factory=each.default_factory)))
        elif each.default is not dataclasses.MISSING:
            rows.append((each.name, types[each.name], each.default))
        else:
            rows.append((each.name, types[each.name]))
    return msgspec.defstruct(f"_{noun.__name__}Outline", rows)


_CountsOutline = _without(Counts, "at_peak")
_RecordOutline = _without(Record, "memory_timeline", counts=_CountsOutline | None)
_OutlineLine = msgspec.defstruct("_OutlineLine", [("record", _RecordOutline)])

_HEAD = msgspec.json.Decoder(_Head)
_PEEKED = msgspec.json.Decoder(_PeekedLine)
_WHOLE = msgspec.json.Decoder(_WholeLine)
_OUTLINE: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_OutlineLine)
_RUN = msgspec.json.Decoder(Run)


def peek(line: bytes) -> Peek | Run:
    """What a line holds, as far as a reader of many asks. Raises LineError."""
    try:
        found = _PEEKED.decode(line)
    except (ValueError, RecursionError):
        found = None
    if found is None or found.kind != "record" or not 0 < found.schema <= SCHEMA_VERSION or not _is_text(line):
        return _slowly(line)
    return _peeked(found)


def _slowly(line: bytes) -> Peek | Run:
    """A line that is no plain record: its kind is asked first, so that what is wrong with it can be said."""
    head = _decoded(_HEAD, _Head, line)
    if head.schema > SCHEMA_VERSION:
        raise LineError(f"schema {head.schema} is newer than {SCHEMA_VERSION}: a newer attnprof wrote this", newer=True)
    if head.kind == "run":
        return _checked_run(_decoded(_RUN, Run, line))
    if head.kind != "record":
        raise LineError(f"a line of kind {head.kind!r} is unknown")
    return _peeked(_decoded(_PEEKED, _PeekedLine, line))


def _checked_run(run: Run) -> Run:
    if run.of is None and run.shard is None and not run.shards:
        return run
    numbers = run.shards if run.shard is None else (*run.shards, run.shard)
    if run.of is None or len(run.shards) != len(run.keys) or not all(0 < number <= run.of for number in numbers):
        raise LineError("this line lacks or misnames a field: shard, of, shards and keys do not fit together")
    return run


def _peeked(line: _PeekedLine) -> Peek:
    found = line.record
    if found is None:
        raise LineError("this line lacks or misnames a field: Object missing required field `record`")
    if found.status not in STATUSES:
        raise LineError(f"this line lacks or misnames a field: there is no status {found.status[:40]!r}")
    there = (found.counts is not None, found.timing is not None, found.calibrated is not None)
    return Peek(found.case, found.status, *there, found.detail, found.environment.provenance)


def whole(line: bytes) -> Record:
    """The record of a line that `peek` took for one, with numbers that can be. Raises LineError."""
    return _possible(typed(line))


def typed(line: bytes) -> Record:
    """The same whatever its numbers are: what tells a store from a foreign file. Raises LineError."""
    record = _decoded(_WHOLE, _WholeLine, line).record
    counts, found = record.counts, record.memory_timeline
    if found is not None:
        known = len(found.others) + (0 if counts is None else len(counts.ops))
        if not len(found.at) == len(found.bytes) == len(found.who) or not all(0 <= number < known for number in found.who):
            raise LineError("this line lacks or misnames a field: at, bytes and who of memory_timeline do not fit together")
    if record.timing is not None and not _fits(record.timing):
        raise LineError("this line lacks or misnames a field: the samples, rounds and processes of timing do not fit together")
    return record


def outline(line: bytes) -> Record:
    """The record without what tables do not show: who is alive at the peak, and the timeline. Raises LineError.

    Half of a record's size is these: it is not to be written to a store.
    """
    found = _decoded(_OUTLINE, _OutlineLine, line).record
    if found.timing is not None and not _fits(found.timing):
        raise LineError("this line lacks or misnames a field: the samples, rounds and processes of timing do not fit together")
    counts = None if found.counts is None else Counts(**structs.asdict(found.counts))
    return _possible(Record(**{**structs.asdict(found), "counts": counts}))


def _fits(timing: Timing) -> bool:
    if timing.process_of and not timing.rounds:
        return False
    return all(len(each) in (0, timing.n) for each in (timing.rounds, timing.process_of))


def _possible(record: Record) -> Record:
    """The record, where every number in it can have been counted or measured. Raises LineError."""
    for what in _impossible(record):
        raise LineError(f"this line holds a number that cannot be: {what}")
    return record


def _impossible(record: Record) -> Iterator[str]:
    """Where a record says what nothing counts or measures: no size, less than nothing, no end, not a number."""
    counts, timing, flushed = record.counts, record.timing, record.environment.get("flush_bytes", 0)
    if not all(0 < size < _MOST for size in vars(record.case.shape).values()):
        yield "shape of its case"
    if counts is not None:
        yield from (f"{name} of counts" for name in _COUNTED if not 0 <= getattr(counts, name) < _MOST)
        for name in ("uncounted", "assumed", "math_attention"):
            if not _possible_sizes(getattr(counts, name).values()):
                yield f"{name} of counts"
        if not all(map(_possible_op, counts.ops)):
            yield "ops of counts"
        if not _possible_sizes(holder.bytes for holder in counts.at_peak):
            yield "at_peak of counts"
    if timing is not None and timing.n and not _possible_latencies(timing.latency_s):
        yield "latency_s of timing"
    for name, memory in (("memory", record.memory), ("calibrated", record.calibrated)):
        if memory is not None and not _possible_sizes(_sizes(memory)):
            yield name
    if record.energy_j is not None and not 0 <= record.energy_j <= _MOST_J:
        yield "energy_j"
    if not isinstance(flushed, int) or not 0 <= flushed < _MOST:
        yield "flush_bytes of environment"
    if record.memory_timeline is not None and not _possible_sizes(record.memory_timeline.bytes):
        yield "bytes of memory_timeline"
    for opinion in record.crosscheck:
        finite = math.isfinite(opinion.seconds) and (opinion.error is None or math.isfinite(opinion.error))
        if not finite or not _possible_sizes(() if opinion.macs is None else (opinion.macs,)):
            yield "crosscheck"


def _possible_sizes(sizes: Iterable[int]) -> bool:
    return all(0 <= size < _MOST for size in sizes)


def _possible_latencies(samples: Sequence[float]) -> bool:
    """By the extremes and, since a NaN may stand between them, the sum."""
    return min(samples) >= _SHORTEST_S and max(samples) <= _LONGEST_S and math.isfinite(sum(samples))


def _possible_op(op: OpCost) -> bool:
    """Written out: a store holds millions."""
    return 0 <= op.calls < _MOST and 0 <= op.macs < _MOST and 0 <= op.flops < _MOST and 0 <= op.bytes_moved < _MOST


def _sizes(memory: Memory) -> list[int]:
    return [size for size in (memory.peak_bytes, memory.absolute_bytes, memory.scratch_bytes) if size is not None]


def _is_text(line: bytes) -> bool:
    """Whether the line is UTF-8 throughout: fields that are passed over are not looked into."""
    if line.isascii():
        return True
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decoded(decoder: msgspec.json.Decoder[T], kind: type[T], line: bytes) -> T:
    """The line as a noun. Raises LineError."""
    try:
        if not _is_text(line):
            raise LineError("this line is no JSON", foreign=True)
        return decoder.decode(line)
    except msgspec.ValidationError:
        pass  # said by json's reading: what msgspec finds out of range may be an infinity
    except (ValueError, RecursionError, TypeError, AttributeError):
        pass
    return _read(lambda: msgspec.convert(whole_characters(json.loads(line)), kind), head=kind is _Head)


def _read(read: Callable[[], T], head: bool) -> T:
    try:
        return read()
    except msgspec.ValidationError as error:
        if head:
            raise LineError("this is no line of an attnprof store (no 'schema' and 'kind')", foreign=True) from None
        raise LineError(f"this line lacks or misnames a field: {error}") from None
    except (ValueError, RecursionError, TypeError, AttributeError):
        raise LineError("this line is no JSON", foreign=True) from None
