"""The counters by name, and what asking them takes. No torch."""

from __future__ import annotations

from collections.abc import Iterable

from attnprof.errors import UsageError
from attnprof.records import Counts
from attnprof.spec.values import COUNTERS, nearest

OWN = "attnprof real"
WITHOUT_DATA = ("torch meta",)
EVERY = tuple(name for names in COUNTERS.values() for name in names)


def expand(wanted: Iterable[str]) -> tuple[str, ...]:
    """'ptflops' -> its two backends, 'torch' -> real and meta; a full name stands for itself. Raises UsageError otherwise."""
    chosen: dict[str, None] = {}
    for name in wanted:
        if name not in COUNTERS and name not in EVERY:
            hint = nearest(name, [*COUNTERS, *EVERY]) or f"there are {', '.join(COUNTERS)}."
            raise UsageError(f"no counter is called '{name}': {hint}")
        chosen.update(dict.fromkeys(COUNTERS.get(name, (name,))))
    return tuple(chosen)


def needed_bytes(counts: Counts) -> int:
    """Memory that a real forward pass may take: what autograd could keep is bounded by the sum of all outputs."""
    return counts.resident_bytes + max(counts.activation_bytes, counts.peak_bytes, counts.peak_cuda_bytes)
