"""A whole run: trace every case, calibrate those that have a device where that is asked for, then measure them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from attnprof.errors import UsageError
from attnprof.execute.blocks import measure_all, probe
from attnprof.execute.calibrating import Calibrated, calibrate_all
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


def run_cases(
    cases: Sequence[Case], options: Options | None = None, progress: Listener | None = None, phases: Phases = _HERE
) -> Iterator[Record]:
    """One record per distinct case, as soon as it is final. See the package's docstring."""
    options, listener = options or Options(), progress or (lambda _: None)
    distinct = {case.key: case for case in cases}
    for case in distinct.values():
        if case.device not in ("none", "cpu") and not case.device.startswith("cuda:"):
            raise UsageError(f"the device '{case.device}' of a case is not concrete: none, cpu or cuda:0.")
    waiting: dict[str, Record] = {}
    calibrated: dict[str, Calibrated] = {}
    try:
        for record in phases.trace(list(distinct.values()), options, listener):
            if record.status == "ok" and record.case.device != "none":
                waiting[record.case.key] = record
            else:
                yield record
        found = sorted({record.case.device for record in waiting.values()})
        for device in found if options.calibrate else ():
            asked = [record.case for record in waiting.values() if record.case.device == device]
            for case, one in phases.calibrate(asked, options, listener):
                calibrated[case.key] = one
        began = time.monotonic()
        for device in found:
            group = [record for record in waiting.values() if record.case.device == device]
            for record in phases.measure(group, device, options, listener, began):
                del waiting[record.case.key]
                yield _with(calibrated, record)
    except KeyboardInterrupt:
        for record in waiting.values():
            lost = replace(record, status="interrupted", detail="interrupted before it was measured")
            yield _with(calibrated, lost)
        raise


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
