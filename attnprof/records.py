"""The nouns: what a mechanism is, what a case asks, what was counted, timed and recorded.

Frozen dataclasses in base units with the unit in the name. No torch, no I/O, no third party: every layer may import this.
`to_json` and the `*_from_json` functions are the one place where a noun meets a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePath
from typing import Any

from attnprof import stats

SCHEMA_VERSION = 2
# 1  2026-11  first: case, status, counts, timing, memory, energy_j, environment, detail
# 2  2026-11  case.host, null until then, is {host, args, at, how}
# A field that may be absent and that older readers pass over makes no new schema: crosscheck, calibrated, memory_timeline.

MODES = ("inference", "training")
DTYPES = ("float32", "float16", "bfloat16", "float64")
STATUSES = ("ok", "oom", "timeout", "crashed", "error", "unsupported", "invalid_output", "interrupted")
VERDICTS = ("exact", "explained", "unexplained", "crashed", "timeout", "not installed", "not run")
NOT_MEASURED_BUDGET = "not measured (budget)"
NOT_MEASURED_MEMORY = "not measured (memory)"
NOT_CALIBRATED = "not calibrated"
ALONE = "none"  # Case.mechanism of a network without a mechanism in it
HOW = ("after", "before", "instead", "around")


@dataclass(frozen=True)
class Shape:
    """The size of a feature map: batch B, channels C, height H, width W and, for video, frames T."""

    batch: int
    channels: int
    height: int
    width: int
    frames: int = 1

    @property
    def hw(self) -> tuple[int, int]:
        """(H, W)."""
        return (self.height, self.width)

    def text(self) -> str:
        """'1x512x97x97', or '1x8x512x14x14' with frames."""
        sizes = [self.batch, self.channels, self.height, self.width]
        if self.frames != 1:
            sizes.insert(1, self.frames)
        return "x".join(str(size) for size in sizes)


@dataclass(frozen=True)
class TensorSpec:
    """One input of a module, without data. `dtype` None means the case's dtype.

    `values` is what a real run fills in: "normal" (standard normal), "uniform" (in [0, 1): coordinates, boxes, scores); an
    integer or boolean input gets zeros and ones.
    """

    shape: tuple[int, ...]
    name: str = "x"
    dtype: str | None = None
    values: str = "normal"


@dataclass(frozen=True)
class Mechanism:
    """One attention mechanism (or baseline) of the catalogue; a file `mechanisms/<family>/<name>.py` declares one.

    build(channels, **args) -> nn.Module. A parameter named `hw` or `frames` gets the case's (H, W) or T unless it is given.
    params(channels, **args) -> int: the closed form of the parameter count; gets `hw`/`frames` where build does.
    macs(shape, **args) -> int: multiply-accumulates of one forward pass (convolution, matmul, attention), by hand.
    inputs(shape, **args) -> the module's inputs, the batch first in each; None means one tensor in `layout`.
    objective(outputs) -> what the backward pass starts from, where the outputs alone would leave parameters without a gradient:
    a loss, or tensors that each get a dense gradient.
    natural: a shape that the mechanism is used at, in its paper or in a network: where specs/survey.yaml puts it.
    rows: {argument: values} in wide use beside the defaults: rows of their own in specs/survey.yaml, the default first.
    exempt: {check name: reason} for common checks that do not apply; "check:part" for a part of it (one parameter).
    """

    name: str
    family: str
    layout: str  # of the (first) input: BCHW, BNC, and with frames BTCHW, BTC
    paper: str
    build: Callable[..., Any]
    params: Callable[..., int] | None = None
    macs: Callable[..., int] | None = None
    inputs: Callable[..., tuple[TensorSpec, ...]] | None = None
    objective: Callable[[Any], Any] | None = None
    natural: Shape | None = None
    rows: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    exempt: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Placement:
    """Where a mechanism stands in a network: at every submodule of the host whose dotted name matches `at`.

    how: after, before, instead, or around (its output is added to that of what it stands around). Alone, `at` is "".
    """

    host: str  # a name of attnprof/hosts (resnet50), or the import path of the user's own network
    args: Mapping[str, Any] = field(default_factory=dict)  # of the host's build
    at: str = ""  # glob over dotted submodule names, or the name of one of the host's sites (block, body, stage)
    how: str = "after"

    @property
    def imported(self) -> bool:
        """True for a network of the user's own, given by import path."""
        return ":" in self.host

    @property
    def text(self) -> str:
        """The network alone, as it is written on the command line: 'resnet50[output_stride=8]'."""
        name = self.host.rpartition(":")[2]
        inside = ",".join(f"{key}={value}" for key, value in self.args.items())
        return f"{name}[{inside}]" if inside else name


@dataclass(frozen=True)
class Case:
    """One cell of a table: a mechanism with arguments at a shape, dtype and mode on a device under settings.

    With a host, `shape` is the input of the network, and `mechanism` with its `args` is what is placed in it, or ALONE.
    """

    mechanism: str  # "family/name", or "pkg.mod:Class" / "file.py:Class" for an imported one
    label: str
    args: Mapping[str, Any]
    shape: Shape
    dtype: str = "float32"
    mode: str = "inference"
    device: str = "none"
    host: Placement | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def imported(self) -> bool:
        """True where code of the user's own runs: the mechanism or the network is given by import path."""
        return ":" in self.mechanism or (self.host is not None and self.host.imported)

    @property
    def alone(self) -> bool:
        """True for a network without a mechanism in it."""
        return self.mechanism == ALONE

    @property
    def public(self) -> Case:
        """The case as it may leave this machine: of a file given by absolute path, only its name. It has the same key."""
        host = None if self.host is None else replace(self.host, host=public_import(self.host.host))
        return replace(self, mechanism=public_import(self.mechanism), host=host) if self.imported else self

    @property
    def key(self) -> str:
        """Content hash: the same question has the same key on every machine and day."""
        text = json.dumps(to_json(self.public), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @property
    def block(self) -> tuple[Any, ...]:
        """Cases with an equal block are timed interleaved in one child: same shape, dtype, mode, device, network, settings.

        Where in the network a mechanism stands is not asked: the network alone is held against every placement in it.
        """
        settings = json.dumps(dict(self.settings), sort_keys=True)
        network = None if self.host is None else (self.host.host, json.dumps(dict(self.host.args), sort_keys=True))
        return (self.shape, self.dtype, self.mode, self.device, network, settings)


def public_import(path: str) -> str:
    """'/home/alice/mine.py:Mine' -> 'mine.py:Mine'; a relative path, a package's and a name of the catalogue as they are."""
    where, colon, name = path.rpartition(":")
    return f"{PurePath(where).name}:{name}" if colon and PurePath(where).is_absolute() else path


@dataclass(frozen=True)
class Holder:
    """Storage that is alive at the memory peak: how much, what made it (op, submodule, phase) and as what it stays."""

    bytes: int
    op: str  # e.g. "bmm", or "grad of output" for what the caller hands down
    module: str  # dotted path of the submodule; "" is the module itself
    phase: str  # forward, backward
    shape: tuple[int, ...]
    line: str = ""  # "file.py:12" of the code that asked for it, where that was followed (`explain`)


@dataclass(frozen=True)
class OpCost:
    """Cost of all calls of one op in one submodule and phase."""

    op: str
    module: str
    phase: str
    calls: int
    macs: int
    flops: int
    bytes_moved: int


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


def to_json(noun: Any) -> dict[str, Any]:
    """A noun as plain JSON types, field names unchanged; Timing gains its derived median_s, ci_s and n.

    The case of a Record is its public one: records are shown and stored. A Case alone goes to a child, which needs the path.
    `process_of` and the number of processes `k` stand there only for a timing from several processes.
    """
    if isinstance(noun, Record):
        noun = replace(noun, case=noun.case.public)
    out: dict[str, Any] = json.loads(json.dumps(asdict(noun), default=dict))
    if isinstance(noun, Record):
        if not noun.crosscheck:
            del out["crosscheck"]
        if noun.calibrated is None:
            del out["calibrated"]
        if noun.memory_timeline is None:
            del out["memory_timeline"]
        if noun.counts is not None and not noun.counts.math_attention:
            del out["counts"]["math_attention"]
        if noun.timing is not None:
            out["timing"] = _timing_json(noun.timing, out["timing"])
        out["case"]["key"] = noun.case.key
    elif isinstance(noun, Timing):
        out = _timing_json(noun, out)
    return out


def _timing_json(timing: Timing, fields: dict[str, Any]) -> dict[str, Any]:
    derived: dict[str, Any] = {"median_s": timing.median_s, "ci_s": list(timing.ci_s), "n": timing.n} if timing.n else {}
    if timing.process_of:
        derived["k"] = timing.k
    else:
        del fields["process_of"]
    return fields | derived


def case_from_json(data: Mapping[str, Any]) -> Case:
    """The inverse of `to_json` for a Case (a derived `key` is ignored)."""
    fields = {name: value for name, value in data.items() if name != "key"}
    host = fields.get("host")
    return Case(**{**fields, "shape": Shape(**fields["shape"]), "host": Placement(**host) if host else None})


def record_from_json(data: Mapping[str, Any]) -> Record:
    """The inverse of `to_json` for a Record."""
    counts, timing, memory, calibrated = (data.get(name) for name in ("counts", "timing", "memory", "calibrated"))
    timeline = data.get("memory_timeline")
    return Record(
        case=case_from_json(data["case"]),
        status=data["status"],
        counts=counts_from_json(counts) if counts else None,
        timing=timing_from_json(timing) if timing else None,
        memory=Memory(**memory) if memory else None,
        calibrated=Memory(**calibrated) if calibrated else None,
        energy_j=data.get("energy_j"),
        environment=data.get("environment", {}),
        detail=data.get("detail", ""),
        memory_timeline=timeline_from_json(timeline, len(counts.get("ops", ()))) if counts and timeline else None,
        crosscheck=tuple(opinion_from_json(opinion) for opinion in data.get("crosscheck", ())),
    )


def timeline_from_json(data: Mapping[str, Any], ops: int) -> Timeline:
    """The inverse of `to_json` for a Timeline beside so many rows of ops. Raises ValueError where its parts do not fit."""
    at, size, who = (tuple(data[name]) for name in ("at", "bytes", "who"))
    others = tuple((phase, module, op) for phase, module, op in data["others"])
    if not len(at) == len(size) == len(who) or not all(0 <= number < ops + len(others) for number in who):
        raise ValueError("at, bytes and who of memory_timeline do not fit together")
    return Timeline(data["events"], at, size, who, others)


def opinion_from_json(data: Mapping[str, Any]) -> Opinion:
    """The inverse of `to_json` for an Opinion."""
    return Opinion(**{**data, "warnings": tuple(data.get("warnings", ()))})


def counts_from_json(data: Mapping[str, Any]) -> Counts:
    """The inverse of `to_json` for Counts."""
    holders = tuple(Holder(**{**holder, "shape": tuple(holder["shape"])}) for holder in data.get("at_peak", ()))
    ops = tuple(OpCost(**op) for op in data.get("ops", ()))
    return Counts(**{**data, "at_peak": holders, "ops": ops})


def timing_from_json(data: Mapping[str, Any]) -> Timing:
    """The inverse of `to_json` for Timing (derived values are ignored)."""
    fields = {name: value for name, value in data.items() if name not in ("median_s", "ci_s", "n", "k")}
    for name in ("latency_s", "rounds", "warnings", "process_of"):
        fields[name] = tuple(fields.get(name, ()))
    return Timing(**fields)
