"""A whole run: trace every case, calibrate those that have a device where that is asked for, then measure them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from attnprof.errors import UsageError
from attnprof.execute.calibrating import Calibrated, calibrate_all
from attnprof.execute.measuring import measure_all, probe
from attnprof.execute.options import Listener, Options
from attnprof.execute.tracing import trace_all
from attnprof.profiling.measuring import device as devices
from attnprof.records import Case, Record


@dataclass(frozen=True)
class Phases:
    """Who does the work of a run: the three functions, on this machine unless an executor brings its own."""

    trace: Callable[[Sequence[Case], Options, Listener], Iterator[Record]] = trace_all
    calibrate: Callable[[Sequence[Case], Options, Listener], Iterator[tuple[Case, Calibrated]]] = calibrate_all
    measure: Callable[[Sequence[Record], str, Options, Listener, float], Iterator[Record]] = measure_all


_HERE = Phases()


@dataclass(frozen=True)
class Counted:
    """The counts of cases that are yet to be measured, kept somewhere that outlives the run.

    known: {key: record with counts} of earlier runs, whose cases are not counted again; those with a calibrated peak are not
    calibrated again. keep: gets the record of a case the moment it is counted and has to wait for its device, with status
    `interrupted`: what it is if nobody hears of it again.
    """

    known: Mapping[str, Record] = field(default_factory=dict)
    keep: Callable[[Record], None] = lambda _: None


NOT_YET = "not measured yet: the run was interrupted, or is still under way"


def run_cases(
    cases: Sequence[Case],
    options: Options | None = None,
    progress: Listener | None = None,
    counted: Counted | None = None,
    phases: Phases = _HERE,
) -> Iterator[Record]:
    """One record per distinct case, as soon as it is final. See the package's docstring."""
    options, listener, counted = options or Options(), progress or (lambda _: None), counted or Counted()
    distinct = {case.key: case for case in cases}
    for case in distinct.values():
        if case.device not in ("none", "cpu") and not case.device.startswith("cuda:"):
            raise UsageError(f"the device '{case.device}' of a case is not concrete: none, cpu or cuda:0.")
    waiting = {key: replace(counted.known[key], case=case) for key, case in distinct.items() if key in counted.known}
    calibrated: dict[str, Calibrated] = {}
    try:
        for record in phases.trace([case for case in distinct.values() if case.key not in waiting], options, listener):
            if record.status == "ok" and record.case.device != "none":
                waiting[record.case.key] = record
                counted.keep(_not_yet(record))
            else:
                yield record
        waiting = {key: waiting[key] for key in distinct if key in waiting}
        found = sorted({record.case.device for record in waiting.values()})
        for device in found if options.calibrate else ():
            here = [record for record in waiting.values() if record.case.device == device]
            asked = [record.case for record in here if record.calibrated is None]
            for case, one in phases.calibrate(asked, options, listener) if asked else ():
                calibrated[case.key] = one
        began = time.monotonic()
        for device in found:
            group = [record for record in waiting.values() if record.case.device == device]
            for record in phases.measure(group, device, options, listener, began):
                del waiting[record.case.key]
                yield _with(calibrated, record)
    except KeyboardInterrupt:
        for record in waiting.values():
            yield _with(calibrated, _not_yet(record))
        raise


def _not_yet(record: Record) -> Record:
    return replace(record, status="interrupted", detail=NOT_YET)


def _with(calibrated: Mapping[str, Calibrated], record: Record) -> Record:
    """The record with what calibrating its case has found."""
    found = calibrated.get(record.case.key)
    return record if found is None else found.added_to(record)


def resolve_device(wanted: str) -> tuple[str, str]:
    """(concrete device, warning or ''). 'auto' falls back to the CPU where torch cannot use the GPU; a GPU that was asked for
    by name and cannot be used raises UsageError.
    """
    device = devices.resolve_device(wanted)
    if not device.startswith("cuda"):
        return device, ""
    answer = probe(device, [], Options())
    if answer["usable"]:
        return device, ""
    if wanted != "auto":
        raise UsageError(f"{wanted}: {answer['reason']}.")
    return "cpu", f"there is a GPU, but {answer['reason']}: measuring on the CPU"
