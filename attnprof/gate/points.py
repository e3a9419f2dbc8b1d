"""Cases -> Points: by the kept closed forms where they answer, else by a trace in a child. No torch in this process."""

from __future__ import annotations

from collections.abc import Sequence

from attnprof.execute import Options, run_cases
from attnprof.execute.options import Listener
from attnprof.gate.baseline import Point, point_of
from attnprof.profiling.forms import kept
from attnprof.records import Case, Record


def count(cases: Sequence[Case], timeout_s: float = 300.0, listener: Listener | None = None) -> dict[str, Point]:
    """{key: Point} of every case, in their order. A case that cannot be traced is a Point that says so."""
    known = {case.key: counts for case in cases if (counts := kept.counts_of(case)) is not None}
    rest = [case for case in cases if case.key not in known]
    traced = {record.case.key: record for record in run_cases(rest, Options(timeout_s=timeout_s), listener)} if rest else {}
    return {
        case.key: point_of(Record(case, counts=known[case.key]) if case.key in known else traced[case.key]) for case in cases
    }


def known(cases: Sequence[Case]) -> int:
    """How many of the cases the kept closed forms answer."""
    return sum(kept.counts_of(case) is not None for case in cases)
