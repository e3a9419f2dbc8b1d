"""The lifetimes of a pass, played again with deaths moved. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from attnprof.profiling.counting.lifetimes import Lifetimes


def freed(lifetimes: Lifetimes, deaths: Mapping[int, int]) -> Lifetimes:
    """The same pass with block n freed right after the first deaths[n] events, and its own death left out."""
    early: dict[int, list[int]] = {}
    for block, at in deaths.items():
        early.setdefault(at, []).append(block)
    events = [-block for block in early.get(0, ())]
    for index, event in enumerate(lifetimes.events, 1):
        if -event not in deaths:
            events.append(event)
        events += (-block for block in early.get(index, ()))
    return replace(lifetimes, events=tuple(events), temporaries=())


def deaths_of(lifetimes: Lifetimes, end: int) -> dict[int, int]:
    """{block: number of events up to its death}, for the blocks that die within the first `end` events."""
    return {-event: index for index, event in enumerate(lifetimes.events[:end], 1) if event < 0}


def idle_at(lifetimes: Lifetimes, end: int, uses: Mapping[int, int], at: int) -> list[int]:
    """The blocks that are alive after `at` events though nobody reads them any more, and that the pass itself frees later."""
    deaths = deaths_of(lifetimes, end)
    return [block for block in lifetimes.alive(at) if block in deaths and uses[block] < at]
