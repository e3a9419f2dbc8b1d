"""What a store spares a run, and what the run leaves in it at once: a run that is killed is gone on with."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from attnprof.cli.executing import execution
from attnprof.cli.interrupts import undivided
from attnprof.cli.progress import progress, say
from attnprof.records import NOT_MEASURED_BUDGET, Case, Record

if TYPE_CHECKING:
    from attnprof.store import Stored, Writer

CALIBRATED = "calibrated_memory"  # the metric that asks for it
_NAMED = 5


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
    changed: list[Case] = []
    if stored.runs or stored.records:
        for warning in stored.warnings if not options["quiet"] else ():
            say(f"warning: {warning}")
        provenance = remembering()
        for case in cases:
            now = provenance(case)
            record = store.reusable(stored, case, now, calibrated)
            if record is not None:
                kept[case.key] = dataclasses.replace(record, case=case)
                continue
            record = store.counted(stored, case, now)
            if record is not None and case.device != "none":
                counted[case.key] = dataclasses.replace(record, case=case)
            elif record is None and store.counted(stored, case, None) is not None:
                changed.append(case)
        beside = _timed_beside(kept, changed, counted)
        for key in beside:
            counted[key] = kept.pop(key)
        if not options["quiet"]:
            _say_what_is_there(path, cases, kept, counted, changed, resumed=options["resume"])
            if beside:
                labels = _few(list(dict.fromkeys(counted[key].case.label for key in beside)))
                many = f"{len(beside)} case{'s' if len(beside) > 1 else ''}"
                say(f"{many} timed again beside what runs again, so that their latencies have a ratio: {labels}.")
    return kept, counted


def _timed_beside(kept: Mapping[str, Record], changed: Sequence[Case], counted: Mapping[str, Record]) -> list[str]:
    """Keys of measured cases that share a block with one of other code, or one that an interrupt left out."""
    again = {case.block for case in changed if case.device != "none"}
    again |= {record.case.block for record in counted.values() if record.status == "interrupted"}
    return [key for key, record in kept.items() if again and record.timing is not None and record.case.block in again]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _say_what_is_there(
    path: Path, cases: Sequence[Case], kept: Sized, counted: Sized, changed: Sequence[Case], resumed: bool
) -> None:
    more = f", and the counts of {len(counted)} more" if counted else ""
    fresh = "" if resumed else "; --fresh starts anew"
    say(f"{path} holds a store: continued ({len(kept)} of {len(cases)} cases are there{more}{fresh}).")
    if changed:
        which = _few(list(dict.fromkeys(case.label for case in changed)))
        many = f"{len(changed)} case{'s' if len(changed) > 1 else ''}"
        say(f"{many} of other code than now (the module's, attnprof's or torch's) run again: {which}.")


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
    """What a budget left out this time and was measured the last time stays as it was, with the calibrated peak of now."""
    if not record.status == before.status == "ok":
        return record
    left_out = NOT_MEASURED_BUDGET in record.detail
    lost = before.timing is not None and (record.timing is None or (record.memory is None and before.memory is not None))
    twice = before.timing is record.timing is None and left_out and before.detail.startswith(NOT_MEASURED_BUDGET)
    if not (left_out and (lost or twice)):
        return record
    if record.calibrated in (None, before.calibrated):
        return before
    environment = {**record.environment, **before.environment}
    return dataclasses.replace(before, calibrated=record.calibrated, environment=environment)


def _counts_of(record: Record) -> Record:
    """The record as it was when its case had been counted, and calibrated if it was."""
    from attnprof.profiling.provenance import PROVENANCE

    made_with = {PROVENANCE: record.environment[PROVENANCE]}
    counts = Record(record.case, counts=record.counts, memory_timeline=record.memory_timeline, environment=made_with)
    if record.calibrated is None:
        return counts
    return dataclasses.replace(counts, calibrated=record.calibrated, environment=record.environment)


def _unfinished(running: Generator[Record, None, None]) -> Iterator[Record]:
    """What an interrupted run has traced and not measured: an interrupt that struck here is passed on to it."""
    yield running.throw(KeyboardInterrupt())
    yield from running
