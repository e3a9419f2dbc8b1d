"""The lifetimes of a pass, played again with deaths moved; live bytes over the pass. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from attnprof.profiling.counting.lifetimes import Lifetimes
from attnprof.profiling.whatif import Moment


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


def timeline(lifetimes: Lifetimes, end: int, points: int = 240) -> tuple[Moment, ...]:
    """Live bytes over the first `end` events: at most `points` moments, each the highest of as many equal stretches."""
    moments, live = [], 0
    maker = lifetimes.makers[0]
    for index, event in enumerate(lifetimes.events[:end], 1):
        if event > 0:
            maker = lifetimes.makers[event]
            live += lifetimes.sizes[event]
        else:
            live -= lifetimes.sizes[-event]
        moments.append(Moment(index, live, maker.phase, maker.module, maker.op))
    step = max(1, -(-len(moments) // points))
    return tuple(max(moments[i : i + step], key=lambda moment: moment.bytes) for i in range(0, len(moments), step))
