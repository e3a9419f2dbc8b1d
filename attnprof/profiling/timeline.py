"""Live bytes over a pass: thinned to a number of moments for an explanation, and in a compact form for a record.

The moments of both are found by `moments`: a stretch of events is told by its highest moment, so that the peak is always there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attnprof.profiling.counting.lifetimes import Lifetimes
from attnprof.records import Case, Counts, Moment, OpCost, Record, Timeline

if TYPE_CHECKING:
    from attnprof.profiling.counting.trace import Traced
    from attnprof.profiling.counting.tracer import Tracer

POINTS = 60  # of a record


def moments(lifetimes: Lifetimes, end: int, points: int) -> tuple[Moment, ...]:
    """Live bytes over the first `end` events: at most `points` moments, each the highest of as many equal stretches."""
    stretch = max(1, -(-end // points))
    out: list[Moment] = []
    live, maker = 0, lifetimes.makers[0]
    highest, at, made_by = -1, 0, maker
    for index, event in enumerate(lifetimes.events[:end], 1):
        if event > 0:
            maker = lifetimes.makers[event]
            live += lifetimes.sizes[event]
        else:
            live -= lifetimes.sizes[-event]
        if live > highest:
            highest, at, made_by = live, index, maker
        if index % stretch == 0 or index == end:
            out.append(Moment(at, highest, made_by.phase, made_by.module, made_by.op))
            highest = -1
    return tuple(out)


def compact(found: Sequence[Moment], events: int, ops: Sequence[OpCost]) -> Timeline:
    """Moments of a pass of so many events as a record keeps them, beside the rows of `Counts.ops`."""
    numbers = {(row.phase, row.module, row.op): number for number, row in enumerate(ops)}
    others: dict[tuple[str, str, str], int] = {}
    who = []
    for moment in found:
        name = (moment.phase, moment.module, moment.op)
        who.append(numbers[name] if name in numbers else others.setdefault(name, len(ops) + len(others)))
    at, size = tuple(moment.event for moment in found), tuple(moment.bytes for moment in found)
    return Timeline(events, at, size, tuple(who), tuple(others))


def with_timeline(follow: Callable[[Callable[..., Tracer]], Traced]) -> tuple[Counts, Timeline | None]:
    """What `follow` (of the function that makes its tracers) counts, and the timeline of the same pass.

    Where a run on data took the place of a pass without, it is that run's; a pass that allocates nothing has none.
    """
    from attnprof.profiling.counting.tracer import Tracer

    tracers: list[Tracer] = []

    def make(*, real: bool = False) -> Tracer:
        tracers.append(Tracer(real=real))
        return tracers[-1]

    traced = follow(make)
    end = tracers[-1].ledger.end  # later events are deaths of the results, which the caller lets go
    found = moments(traced.lifetimes, end, POINTS)
    return traced.counts, compact(found, end, traced.counts.ops) if found else None


def trace_record(case: Case) -> Record:
    """The counts of a case and the timeline of the same pass. Raises what `follow_case` raises."""
    from attnprof.profiling.counting.trace import follow_case

    counts, timeline = with_timeline(lambda make: follow_case(case, make))
    return Record(case, counts=counts, memory_timeline=timeline)
