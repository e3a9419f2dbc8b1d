"""The nouns: what a mechanism is, what a case asks, what was counted, timed and recorded.

Frozen dataclasses in base units with the unit in the name. No torch, no I/O, no third party: every layer may import this.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import PurePath
from typing import Any

from attnprof import stats
from attnprof.records.plain import plain, whole_characters

MODES = ("inference", "training")
DTYPES = ("float32", "float16", "bfloat16", "float64")
STATUSES = ("ok", "oom", "timeout", "crashed", "error", "unsupported", "invalid_output", "interrupted")
VERDICTS = ("exact", "explained", "unexplained", "crashed", "timeout", "not installed", "not run")
NOT_MEASURED_BUDGET = "not measured (budget)"
NOT_MEASURED_MEMORY = "not measured (memory)"
NOT_CALIBRATED = "not calibrated"
ALONE = "none"  # Case.mechanism of a network without a mechanism in it
HOW = ("after", "before", "instead", "around")

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


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
        if not self.imported:
            return self
        host = None if self.host is None else replace(self.host, host=public_import(self.host.host))
        return replace(self, mechanism=public_import(self.mechanism), host=host)

    @cached_property
    def key(self) -> str:
        """Content hash: the same question has the same key on every machine and day."""
        text = _CANONICAL.encode(case_to_json(self.public))
        if "\\ud" in text:  # as a store gives it back
            text = _CANONICAL.encode(whole_characters(json.loads(text)))
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @cached_property
    def block(self) -> tuple[Any, ...]:
        """Cases with an equal block are timed interleaved in one child: same shape, dtype, mode, device, network, settings.

        Where in the network a mechanism stands is not asked: the network alone is held against every placement in it.
        """
        settings = json.dumps(dict(self.settings), sort_keys=True)
        network = (
            None if self.host is None else (public_import(self.host.host), json.dumps(dict(self.host.args), sort_keys=True))
        )
        return (self.shape, self.dtype, self.mode, self.device, network, settings)


def case_to_json(case: Case) -> dict[str, Any]:
    """A Case as plain JSON types, without its derived `key`, which is the hash of this."""
    host, shape = case.host, case.shape
    return {
        "mechanism": case.mechanism,
        "label": case.label,
        "args": plain(case.args),
        "shape": {
            "batch": shape.batch,
            "channels": shape.channels,
            "height": shape.height,
            "width": shape.width,
            "frames": shape.frames,
        },
        "dtype": case.dtype,
        "mode": case.mode,
        "device": case.device,
        "host": None if host is None else {"host": host.host, "args": plain(host.args), "at": host.at, "how": host.how},
        "settings": plain(case.settings),
    }


def public_import(path: str) -> str:
    """'/home/alice/mine.py:Mine' -> 'mine.py:Mine'; a relative path, a package's and a name of the catalogue as they are."""
    where, colon, name = path.rpartition(":")
    return f"{PurePath(where).name}:{name}" if colon and PurePath(where).is_absolute() else path


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
        _share(self, "op", "module", "phase")


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
        _share(self, "op", "module", "phase")


def _share(noun: Any, *names: str) -> None:
    """Equal words as one object: a store of many records holds few of them very often."""
    for name in names:
        object.__setattr__(noun, name, sys.intern(getattr(noun, name)))


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
