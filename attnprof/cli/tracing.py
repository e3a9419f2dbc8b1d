"""Counting for `compare`, `show` and `explain`: by the kept closed forms where they answer (no torch is imported then), else by
a trace: of catalogue mechanisms in this process, of other people's code in a child.
"""

from __future__ import annotations

from attnprof.errors import UntraceableError, UsageError
from attnprof.records import Case, Counts, Record


def trace_here(case: Case) -> Record:
    """The record of a case, counted. What its module raises becomes its status, as in a child; UsageError is raised."""
    if case.imported:  # its prints, exits and crashes stay in the child
        from attnprof.execute import run_cases

        return next(iter(run_cases([case])))
    from attnprof.profiling.forms import kept

    counts = kept.counts_of(case)
    if counts is not None:
        return Record(case, counts=counts, environment=kept.KEPT)
    from attnprof.profiling.counting.trace import trace_case

    try:
        return Record(case, counts=trace_case(case))
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001
        from attnprof.worker import failure

        event = failure(case, error)
        return Record(case, status=event["status"], detail=event["detail"])


def counts_here(case: Case) -> Counts:
    """The counts of a case, for a command that has nothing to show without them."""
    record = trace_here(case)
    if record.counts is None:
        detail = record.detail.replace("\n", ", at ")
        raise UntraceableError(f"{case.label} {case.shape.text()} {case.mode}: {record.status}: {detail}")
    return record.counts
