"""What the notes say of bounds: whose rates, which floor binds, what is below it, what was left out of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attnprof.profiling import bounds
from attnprof.records import Record
from attnprof.report.cells import factor_text
from attnprof.report.kernels import named
from attnprof.report.text import clean


def bound_notes(records: Sequence[Record]) -> list[str]:
    """Rates; latencies below their bound, loudly; ops whose bytes were left out; which of the two floors binds whom."""
    below, binding = list[str](), dict[str, list[str]]()
    partly, unknown = dict[str, list[str]](), dict[str, list[str]]()
    for record in records:
        label = f"{record.case.label} {record.case.mode}"
        found, floor = bounds.bound(record), bounds.held_against(record)
        if isinstance(found, bounds.Bound) and found.seconds:
            binding.setdefault(found.binds, []).append(label)
        if isinstance(found, bounds.Bound) and record.counts is not None:
            for op in bounds.gathering(record.counts):
                (unknown if bounds.unknown(op) else partly).setdefault(clean(op), []).append(label)
        if isinstance(floor, float) and record.timing is not None and record.timing.n and record.timing.median_s < floor:
            below.append(f"{label} ({factor_text(record.timing.median_s / floor)})")
    out = _rates(records)
    if below:
        out.append(
            f"WARNING: measured BELOW THE BOUND (latency/bound): {named(below)}. A rate is too low (measure it again on a"
            " quiet machine: attnprof doctor --roofline), the count is too high, the pass leaves parameters or inputs"
            " unread, or the kernel executes fewer MACs than were traced."
        )
    if partly:
        out.append(f"Bound: what these ops move is not counted as read, they may read a part only: {_listed(partly)}.")
    if unknown:
        out.append(f"Bound: no bytes are counted as read where it is not known what an op reads: {_listed(unknown)}.")
    if len(binding) == 1:
        return [*out, f"What binds: {next(iter(binding))}, in every case."]
    texts = [f"{kind} for {named(binding[kind])}" for kind in ("compute", "memory") if kind in binding]
    return out + ([f"What binds: {'; '.join(texts)}."] if texts else [])


def _rates(records: Sequence[Record]) -> list[str]:
    """Whose rates the bounds are made of, once each."""
    lines: dict[str, None] = {}
    for record in records:
        rates = bounds.rates_of(record)
        if rates is not None:
            peak = bounds.matmul_peak(record, rates)
            compute = "" if isinstance(peak, str) else f"{factor_text(peak[1] / 1e9)} GMAC/s {peak[0]}, "
            bandwidth = f"{factor_text(rates.bytes_per_s / 1e9)} GB/s"
            clock = "" if rates.clock_mhz is None else f" at {rates.clock_mhz:g} MHz"
            source = f"published peaks{clock}" if rates.source == "published" else "the best that doctor --roofline measured"
            lines[f"Rates ({source}, {clean(rates.device)}): {compute}{bandwidth}; 1 GB is 10^9 bytes."] = None
    return list(lines)


def _listed(ops: Mapping[str, Sequence[str]]) -> str:
    """'index (a inference), gather (b inference)'."""
    return ", ".join(f"{op} ({named(labels)})" for op, labels in ops.items())
