"""One op run alone: its own peak, outputs included, and who inside it took what is no output.

CPU: the running sum of the allocator's events under torch's profiler. CUDA: max_memory_allocated, after a run to warm up (a
handle's first use allocates a workspace that stays, as it does in a network that has run before). What a maths library takes
without torch's allocator is in neither. An op is run on numbers that nobody set, and once more on 0.5 should it refuse those.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from attnprof.profiling.calibrating.allocator import Event, alive, highest, profiled, shortened
from attnprof.profiling.calibrating.recorder import Call, filled
from attnprof.profiling.measuring.prepare import UnsupportedError

_FILLS = (None, 0.5)
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


@dataclass(frozen=True)
class Probe:
    """An op's own peak in bytes, outputs included, and what of it is no output ({inner op: bytes}; CPU only)."""

    peak: int
    scratch: Mapping[str, int] = field(default_factory=dict)


def probe(call: Call, device: str) -> Probe:
    """Run the op of a call alone on `device` ('cpu', 'cuda:0').

    Raises MemoryError where it does not fit, UnsupportedError where it cannot be run alone.
    """
    measure = _on_cuda if device.startswith("cuda") else _on_cpu
    refusal = ""
    for value in _FILLS:
        try:
            args, kwargs = filled(call.args, value, device), filled(call.kwargs, value, device)
            with torch.no_grad():
                return measure(functools.partial(call.op, *args, **kwargs), device)
        except UnsupportedError:
            raise
        except Exception as error:  # garbage may be no valid argument: once more with numbers
            if _is_memory(error):
                raise MemoryError(f"{call.name} alone ran out of memory") from error
            refusal = f"{type(error).__name__}: {error}".splitlines()[0]
    raise UnsupportedError(f"{call.name} cannot be run alone ({refusal[:200]})")


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in _OUT_OF_MEMORY)


def _on_cpu(run: Callable[[], Any], device: str) -> Probe:
    events, _out = profiled(run)
    return probe_of(events)


def probe_of(events: list[Event]) -> Probe:
    """Scratch is what lives at the op's own peak and no longer when it returns."""
    best, at = highest(events)
    gone = {event.address for event in events[at + 1 :] if event.bytes < 0}
    scratch: dict[str, int] = {}
    for event in alive(events[: at + 1]):
        if event.address in gone and best:
            names = shortened(event.inside)
            inner = next((name for name in reversed(names) if not name.startswith(("empty", "resize"))), "number")
            scratch[inner] = scratch.get(inner, 0) + event.bytes
    return Probe(best, scratch)


def _on_cuda(run: Callable[[], Any], device: str) -> Probe:
    run()
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    _out = run()
    torch.cuda.synchronize(device)
    return Probe(torch.cuda.max_memory_allocated(device) - before)
