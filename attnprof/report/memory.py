"""What traced, calibrated and measured peaks say together: whose they are, how far apart, and which op makes the difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from attnprof import units
from attnprof.records import Record
from attnprof.report.text import clean, clip

_FAR = 0.05  # of the measured peak: a traced one that is further off is said
_SHIFT = 0.01  # of the traced peak: a calibrated one above that is said
_MOST_NAMED = 6


def memory_notes(records: Sequence[Record]) -> list[str]:
    """The notes on peaks under a report."""
    sources = Counter(record.memory.source for record in records if record.memory is not None)
    texts = [f"{clean(source)} ({count})" for source, count in sorted(sources.items())]
    out = [f"Source of measured peaks: {', '.join(texts)}."] if texts else []
    return out + _scratch(records) + _far_off(records)


def scratch_text(record: Record) -> str:
    """'9.00 MiB of scratch (convolution (forward))': what kernels add at the calibrated peak; '' where they do not raise it."""
    found = record.calibrated
    if found is None or not found.scratch_bytes or record.counts is None:
        return ""
    if found.peak_bytes <= (1 + _SHIFT) * record.counts.peak_bytes:
        return ""
    return f"{units.format_bytes(found.scratch_bytes)} of scratch ({clean(found.at_op)})"


def calibrated_lines(record: Record) -> list[str]:
    """Traced, calibrated and measured peak of one record, each under its own name, and what is between the first two."""
    peaks = [("traced", None if record.counts is None else record.counts.peak_bytes)]
    found = (("calibrated", record.calibrated), ("measured", record.memory))
    peaks += [(name, None if memory is None else memory.peak_bytes) for name, memory in found]
    lines = [f"Peak {name}: {units.format_bytes(size)}." for name, size in peaks if size is not None]
    text = scratch_text(record)
    return [*lines, f"At the calibrated peak the {_processor(record)}'s kernels take {text}."] if text else lines


def _processor(record: Record) -> str:
    device = str(record.environment.get("device", record.case.device))  # a traced record may have been calibrated on one
    return "GPU" if device.startswith("cuda") else "CPU"


def _scratch(records: Sequence[Record]) -> list[str]:
    """A sentence per kind of processor: the rows where kernels raise the peak, how much they take, and in which op."""
    found: dict[str, list[str]] = {}
    for record in records:
        text = scratch_text(record)
        if text:
            found.setdefault(_processor(record), []).append(f"{_who(record)} {text}")
    return [
        f"At the calibrated peak the {processor}'s kernels take what no tensor of the trace shows: {_listed(texts)}."
        for processor, texts in found.items()
    ]


def _far_off(records: Sequence[Record]) -> list[str]:
    """Rows whose measured peak is far from the traced one: the table shows both, and a reader asks which to believe."""
    found: list[str] = []
    attributed = True
    for record in records:
        if record.memory is None or record.counts is None or not record.memory.peak_bytes:
            continue
        on_gpu = record.memory.source == "cuda_allocator"
        traced, measured = record.counts.peak_cuda_bytes if on_gpu else record.counts.peak_bytes, record.memory.peak_bytes
        share = (traced - measured) / measured
        if abs(share) > _FAR:
            found.append(f"{_who(record)} ({100 * share:+.0f} %)")
            attributed = attributed and record.calibrated is not None
    if not found:
        return []
    advice = "" if attributed else " The metric calibrated_memory tells which op takes the difference on this machine."
    return [f"Traced and measured peaks differ by more than {100 * _FAR:g} % of the measured one: {_listed(found)}.{advice}"]


def _who(record: Record) -> str:
    return f"{clip(clean(record.case.label), 40)} {record.case.shape.text()} {record.case.mode}"


def _listed(texts: Iterable[str]) -> str:
    """All of a few; of many the first ones and the number of the others."""
    every = list(dict.fromkeys(texts))
    rest = f"; and {len(every) - _MOST_NAMED} more" if len(every) > _MOST_NAMED else ""
    return "; ".join(every[:_MOST_NAMED]) + rest
