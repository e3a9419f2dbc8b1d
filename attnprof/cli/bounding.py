"""The rates that a run's bounds are made of: checked before it, put into its records after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attnprof.cli.interrupts import undivided
from attnprof.errors import UsageError
from attnprof.records import Record

if TYPE_CHECKING:
    from attnprof.spec import Spec
    from attnprof.store import Writer


def check(spec: Spec) -> None:
    """Raise UsageError where `bounds:` names no device that there are rates of."""
    from attnprof.profiling import rates

    try:
        rates.check_wanted(spec.bounds)
    except UsageError as error:
        raise UsageError(f"{spec.source}: {error}" if spec.source else str(error)) from error


def bounded(records: Sequence[Record], spec: Spec, writer: Writer | None = None) -> list[Record]:
    """The records with the rates that bound them, where the spec asks for bounds; what changes goes to the store as well."""
    from attnprof.profiling import rates
    from attnprof.spec.values import BOUND_METRICS

    if spec.bounds == "auto" and not set(spec.metrics) & set(BOUND_METRICS):
        return list(records)
    out = rates.stamped(records, spec.bounds)
    for before, after in zip(records, out, strict=True):
        if writer is not None and after is not before:
            with undivided():
                writer.append(after)
    return out
