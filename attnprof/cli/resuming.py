"""What a store spares a run, and what the run leaves in it at once: a run that is killed is gone on with."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from attnprof.cli.executing import execution
from attnprof.cli.interrupts import undivided
from attnprof.cli.progress import progress, say
from attnprof.records import Case, Record

if TYPE_CHECKING:
    from attnprof.store import Stored, Writer

CALIBRATED = "calibrated_memory"  # the metric that asks for it


def reuse(
    stored: Stored, path: Path, cases: Sequence[Case], options: dict[str, Any], calibrated: bool
) -> tuple[dict[str, Record], dict[str, Record]]:
    """{key: stored record} of what need not run again, and of what need not be counted again.

    `calibrated`: the first of a case that has a device must have a calibrated peak.
    """
    from attnprof import store
    from attnprof.profiling.provenance import remembering

    kept: dict[str, Record] = {}
    counted: dict[str, Record] = {}
    if stored.runs or stored.records:
        for warning in stored.warnings if not options["quiet"] else ():
            say(f"warning: {warning}")
        provenance = remembering()
        for case in cases:
            record = store.reusable(stored, case, provenance(case), calibrated)
            if record is not None:
                kept[case.key] = dataclasses.replace(record, case=case)
            elif case.device != "none":
                record = store.counted(stored, case, provenance(case))
                if record is not None:
                    counted[case.key] = dataclasses.replace(record, case=case)
        if not options["resume"] and not options["quiet"]:
            say(f"{path} holds a store: continued ({len(kept)} of {len(cases)} cases are there; --fresh starts anew).")
        if counted and not options["quiet"]:
            say(f"of {len(counted)} more the counts are there: they are not counted again.")
    return kept, counted


def execute(
    spec: Any, cases: Sequence[Case], options: dict[str, Any], writer: Writer, before: Mapping[str, Record]
) -> tuple[dict[str, Record], bool]:
    """Run the cases; every record goes to the store the moment it is final, and its counts the moment they are found.

    before: {key: record} of the store, whose counts hold: one that is interrupted once more stays as it is there, and is not
    among what comes back. (records by key, interrupted?)
    """
    from attnprof.execute import Counted, Options

    chosen = Options(
        first=spec.baseline,
        budget_s=spec.measure.budget_s,
        run_budget_s=spec.measure.run_budget_s,
        timeout_s=options["timeout"],
        jobs=options["jobs"],
        calibrate=CALIBRATED in spec.metrics,
    )
    found: dict[str, Record] = {}

    def keep(record: Record) -> None:
        key = record.case.key
        if key in before and record.status == "interrupted":
            return
        if key in before:
            record = _better(record, before[key])
        with undivided():
            if record not in (found.get(key), before.get(key)):
                writer.append(record)
            found[key] = record

    known = {key: _counts_of(record) for key, record in before.items()}
    with progress(options["quiet"], spec.measure.run_budget_s) as listener:
        run_cases = execution(options["executor"]).run_cases
        running = cast("Generator[Record, None, None]", run_cases(cases, chosen, listener, Counted(known, keep)))
        try:
            for record in running:
                keep(record)
        except KeyboardInterrupt:
            with contextlib.suppress(KeyboardInterrupt):
                for record in _unfinished(running):
                    keep(record)
            return found, True
    return found, False


def _better(record: Record, before: Record) -> Record:
    """What a budget left out this time and was timed the last time stays as it was, with the calibrated peak of now."""
    if not record.status == before.status == "ok" or record.timing is not None or before.timing is None:
        return record
    if record.calibrated is None:
        return before
    environment = {**record.environment, **before.environment}
    return dataclasses.replace(before, calibrated=record.calibrated, environment=environment)


def _counts_of(record: Record) -> Record:
    """The record as it was when its case had been counted."""
    from attnprof.profiling.provenance import PROVENANCE

    made_with = {PROVENANCE: record.environment[PROVENANCE]}
    return Record(record.case, counts=record.counts, memory_timeline=record.memory_timeline, environment=made_with)


def _unfinished(running: Generator[Record, None, None]) -> Iterator[Record]:
    """What an interrupted run has traced and not measured: an interrupt that struck here is passed on to it."""
    yield running.throw(KeyboardInterrupt())
    yield from running
