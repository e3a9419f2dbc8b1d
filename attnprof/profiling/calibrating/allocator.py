"""What torch's CPU allocator gave and took while something ran, by torch's own profiler.

torch.autograd.profiler, not torch.profiler: the same thing without its coat, which imports torch's compiler first (2 s).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch._C._profiler import _EventType

from attnprof.profiling.measuring.prepare import UnsupportedError


@dataclass(frozen=True)
class Event:
    """The allocator gave (bytes > 0) or took back (bytes < 0) a block, while `inside` ran (outermost op first)."""

    at: int
    bytes: int
    address: int
    inside: tuple[str, ...]


def profiled(run: Callable[[], Any]) -> tuple[list[Event], Any]:
    """The allocator's events while `run` runs, in the order of time, and what `run` returned.

    Raises UnsupportedError where the profiler's two accounts of them, a tree by op and a flat list, tell different peaks.
    """
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        result = run()
    kineto = profile.kineto_results
    if kineto is None:
        raise UnsupportedError("this torch's profiler reports no allocator events")
    events: list[Event] = []
    pending: list[tuple[Any, tuple[str, ...]]] = [(node, ()) for node in kineto.experimental_event_tree()]
    while pending:
        node, inside = pending.pop()
        kind, fields = node.typed
        if kind == _EventType.Allocation:
            events.append(Event(node.start_time_ns, fields.alloc_size, fields.ptr, inside))
        elif node.children:
            inner = (*inside, node.name)
            pending += [(child, inner) for child in node.children]
    events.sort(key=lambda event: event.at)
    flat = sorted((event for event in kineto.events() if event.name() == "[memory]"), key=lambda event: event.start_ns())
    peak = max(itertools.accumulate((event.nbytes() for event in flat), initial=0))
    if peak != highest(events)[0]:
        raise UnsupportedError("the profiler's tree of allocator events and its flat list tell different peaks")
    return events, result


def highest(events: Iterable[Event]) -> tuple[int, int]:
    """(largest running sum in bytes, index of the event that reaches it first)."""
    live = best = at = 0
    for index, event in enumerate(events):
        live += event.bytes
        if live > best:
            best, at = live, index
    return best, at


def alive(events: Iterable[Event]) -> list[Event]:
    """The allocations that have not been taken back."""
    found: dict[int, Event] = {}
    for event in events:
        if event.bytes > 0:
            found[event.address] = event
        else:
            found.pop(event.address, None)
    return list(found.values())


def shortened(inside: Iterable[str]) -> list[str]:
    """Names of ops without their prefix; the engine's wrappers left out."""
    return [name.removeprefix("aten::") for name in inside if not name.startswith("autograd::engine")]
