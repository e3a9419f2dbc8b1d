"""How fast a case can be on a device: the floor that no kernel beats, and what its ops take one by one. Pure, no torch.

    bound(record)    max of two floors, in seconds; `binds` says which of them it is
        memory   what must be read of parameters, buffers and inputs / bandwidth. Ops that gather (an embedding, index,
                 grid_sample) may leave most of their source unread, and counts do not tell which tensor that is: from
                 `resident_bytes` goes all that such ops moved (no less than their sources), and no more is taken than the
                 other ops moved. Nothing is left where an op outside the table ran. Outputs and gradients are left out: a
                 cache that writes back may hold them until the pass is over. With warm caches only what the last cache
                 cannot hold counts. Assumed: the module uses all that it is given; counts do not show a parameter that no
                 op reads, or of which only a slice is read, nor pixels that a stride wider than its kernel steps over.
        compute  the MACs that were traced / the multiply-accumulate peak of the dtype. Assumed: the kernels that run are those
                 that were traced. Winograd and FFT convolutions, a causal kernel that skips the masked half, and the math
                 kernel's backward (which recomputes no scores) execute fewer.
    unfused(record)  sum over the traced ops of the longest of bytes moved / bandwidth, MACs / peak, other FLOPs / element-wise
                 peak, calls x launch overhead: every op at the device's best rate, nothing kept in a cache between ops, no two
                 ops at once. An estimate: caches and fusion beat it, kernels below their peak miss it.

The rates stand in the record's environment under `rates` (attnprof.profiling.rates puts them there), so that a table can be
drawn again on another machine. Both functions give the reason, a sentence, where there is no number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from attnprof.records import Counts, Record

RATES = "rates"  # the key in Record.environment
UNKNOWN_RATES = "no rates for this device: `attnprof doctor --roofline` measures them"
NO_DEVICE = "no device to be bound by: a spec names one (bounds: h100-sxm)"
WARM = "caches were warm"  # how profiling/measuring/window.py warns where it could not flush them
# Ops that read no more of a source than their indices, places or sizes name, by the start of their names; and ops that write
# into an argument, which the count of bytes takes as read.
_GATHERING = (
    *("embedding", "_embedding_bag", "index", "_index", "_unsafe_index", "_unsafe_masked_index", "gather", "take", "put"),
    *("masked_select", "masked_scatter", "scatter", "nonzero_static", "grid_sampler", "_grid_sampler", "cudnn_grid_sampler"),
    *("upsample", "_upsample", "max_unpool", "nll_loss", "multinomial", "searchsorted", "bucketize", "torchvision::"),
    *("copy_", "fill_", "zero_", "slice_scatter", "select_scatter", "diagonal_scatter", "as_strided_scatter"),
)


@dataclass(frozen=True)
class Rates:
    """What a device reaches at most, in base units; by dtype, and for matmul `tf32`.

    `own`: these are the rates of the device that measured the case, so that its latency can be held against them.
    """

    device: str
    source: str  # published, measured
    macs_per_s: Mapping[str, float]
    flops_per_s: Mapping[str, float]
    bytes_per_s: float
    op_s: float = 0.0  # least time between two calls
    cache_bytes: int | None = None
    own: bool = True
    clock_mhz: float | None = None  # the clock of the multiprocessors at which published peaks were taken


@dataclass(frozen=True)
class Bound:
    """The two floors of one pass, in seconds."""

    compute_s: float
    memory_s: float

    @property
    def seconds(self) -> float:
        """No pass takes less."""
        return max(self.compute_s, self.memory_s)

    @property
    def binds(self) -> str:
        """'compute' or 'memory': the higher floor."""
        return "compute" if self.compute_s >= self.memory_s else "memory"


def put(environment: Mapping[str, Any], rates: Rates | None) -> dict[str, Any]:
    """An environment with these rates, or without any."""
    rest = {key: value for key, value in environment.items() if key != RATES}
    return rest if rates is None else {**rest, RATES: asdict(rates)}


def gathering(counts: Counts) -> tuple[str, ...]:
    """The ops of a pass that may read a part of their arguments only, in the order of the trace; those without a rule too."""
    return tuple(dict.fromkeys(op.op for op in counts.ops if _gathers(op.op, counts)))


def unknown(op: str) -> bool:
    """Whether nothing is known of what an op reads: one of the user's, whose `bytes`, or arguments, may say less or more."""
    return "::" in op and not op.startswith("torchvision::")


def _gathers(op: str, counts: Counts) -> bool:
    return op.startswith(_GATHERING) or "::" in op or op in counts.uncounted


def rates_of(record: Record) -> Rates | None:
    """The rates that a record carries; None without any."""
    held = record.environment.get(RATES)
    return Rates(**held) if isinstance(held, Mapping) else None


def bound(record: Record) -> Bound | str:
    """The floor of one pass, or why there is none."""
    known = _known(record)
    if isinstance(known, str):
        return known
    counts, rates = known
    if counts.assumed:
        ops = ", ".join(counts.assumed)
        return f"no bound: counted on an assumption, the pass may do less: {ops}"
    peak = matmul_peak(record, rates)
    if isinstance(peak, str) and counts.macs:
        return peak
    compute_s = 0.0 if isinstance(peak, str) else counts.macs / peak[1]
    return Bound(compute_s, _compulsory_bytes(record, counts, rates) / rates.bytes_per_s)


def unfused(record: Record) -> float | str:
    """Seconds of the traced ops one after the other, or why they are not known."""
    known = _known(record)
    if isinstance(known, str):
        return known
    counts, rates = known
    if not counts.ops:
        return "no estimate: the ops of this case are not recorded"
    peak = matmul_peak(record, rates)
    if isinstance(peak, str) and counts.macs:
        return peak
    vector = rates.flops_per_s.get(record.case.dtype) or rates.flops_per_s.get("float32")
    total = 0.0
    for op in counts.ops:
        times = [op.bytes_moved / rates.bytes_per_s, op.calls * rates.op_s]
        if not isinstance(peak, str):
            times.append(op.macs / peak[1])
        if vector:
            times.append(max(op.flops - 2 * op.macs, 0) / vector)
        total += max(times)
    return total


def held_against(record: Record) -> float | str:
    """The bound in seconds that the record's latency can be divided by, or why it cannot."""
    found = bound(record)
    if isinstance(found, str):
        return found
    rates = rates_of(record)
    assert rates is not None
    if not rates.own:
        return f"not compared: the bound is that of {rates.device}, which did not measure this latency"
    return found.seconds or "not compared: the bound is zero"


def _known(record: Record) -> tuple[Counts, Rates] | str:
    """Counts and rates of a record, or which of them it lacks."""
    if record.counts is None:
        return "not traced"
    rates = rates_of(record)
    if rates is None:
        threads = record.case.settings.get("threads") or 1
        if record.case.device == "cpu" and threads != 1:
            return f"no rates for this device with {threads} threads: `attnprof doctor --roofline` measures with one"
        return NO_DEVICE if record.case.device == "none" else UNKNOWN_RATES
    return record.counts, rates


def _compulsory_bytes(record: Record, counts: Counts, rates: Rates) -> int:
    """What must be read from memory: of the resident bytes those that no gathering op took, no more than the others touch."""
    gathered = sum(op.bytes_moved for op in counts.ops if _gathers(op.op, counts))
    whole = sum(op.bytes_moved for op in counts.ops if not _gathers(op.op, counts))
    needed = max(min(counts.resident_bytes - gathered, whole), 0)
    if any(unknown(op.op) for op in counts.ops):
        return 0
    if not _warm(record):
        return needed
    return 0 if rates.cache_bytes is None else max(needed - rates.cache_bytes, 0)


def _warm(record: Record) -> bool:
    """Whether the last cache may have held what the timed passes read."""
    warnings = () if record.timing is None else record.timing.warnings
    return record.case.settings.get("cache") == "warm" or any(text.startswith(WARM) for text in warnings)


def matmul_peak(record: Record, rates: Rates) -> tuple[str, float] | str:
    """(dtype, MACs per second) of the fastest units that this case may use, or which rate is not known."""
    case = record.case
    wanted = [case.dtype]
    autocast = case.settings.get("autocast")
    if autocast not in (None, "none"):
        wanted.append(str(autocast))
    if "float32" in wanted and _tf32(record):
        wanted.append("tf32")
    if case.dtype in ("float16", "bfloat16"):
        wanted.append("float32")  # modules and CPU kernels cast up, where that is faster
    lacking = [name for name in wanted if name not in rates.macs_per_s]
    if lacking:
        advice = ": `attnprof doctor --roofline` measures it, `bounds: measured` in a spec takes it" if rates.own else ""
        return f"no {rates.source} {lacking[0]} rate for {rates.device}{advice}"
    fastest = max(wanted, key=lambda name: rates.macs_per_s[name])
    return fastest, float(rates.macs_per_s[fastest])


def _tf32(record: Record) -> bool:
    flags = record.environment.get("flags")
    on = flags if isinstance(flags, Mapping) else {}
    return bool(record.case.settings.get("tf32") or on.get("matmul_tf32") or on.get("cudnn_tf32"))
