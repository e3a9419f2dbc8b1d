"""The second phase: time and weigh the cases of one device, block by block, within the run's budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from attnprof.execute.blocks import Phase, late, measure_block
from attnprof.execute.child import Ending, converse
from attnprof.execute.options import Listener, Options, Progress
from attnprof.execute.predict import MEMORY_SHARE, Predictor, Rates, needed_bytes, split_by_memory
from attnprof.execute.tracing import child_memory
from attnprof.execute.waiting import Waiting
from attnprof.profiling.measuring.device import flush_bytes
from attnprof.records import NOT_MEASURED_MEMORY, Record


def measure_all(records: Sequence[Record], device: str, options: Options, listener: Listener, began: float) -> Iterator[Record]:
    """Every traced record of one device, measured or with the reason why not. `began`: when the run's budget began."""
    predictor, reason = predictor_of(device, records, options)
    if predictor is None:
        for record in records:
            yield replace(record, status="unsupported", detail=reason)
        return
    phase = Phase(device, options, listener, began, predictor, len(records) * options.replicates)
    groups: list[list[Record]] = []
    for block in by_block(records):
        fitting, too_large = split_by_memory(block, int(MEMORY_SHARE * predictor.free_bytes))
        groups += fitting
        for record in too_large:
            yield phase.finish(without_memory(record, predictor.free_bytes))
    yield from _within_budget(groups, phase)


def predictor_of(device: str, records: Sequence[Record], options: Options) -> tuple[Predictor | None, str]:
    """(what predicts the cost of records on a device of this machine, ''), or (None, why the device cannot be used)."""
    answer = probe(device, sorted({record.case.dtype for record in records}), options)
    if not answer["usable"]:
        return None, answer["reason"]
    rates = {name: Rates(**rate) for name, rate in answer["rates"].items()}
    warm = all(record.case.settings.get("cache") == "warm" for record in records)
    free = answer["free_bytes"]
    if not device.startswith("cuda"):
        free = max(min(free, child_memory(options)) - (0 if warm else flush_bytes(device)), 0)
    return Predictor(rates, free, 0.0 if warm else answer["flush_s"], options.replicates), ""


def probe(device: str, dtypes: Sequence[str], options: Options) -> dict[str, Any]:
    """Whether torch can use a device, its model, rates and free memory, found out in a child."""
    request = {"op": "probe", "device": device, "dtypes": list(dtypes)}
    answer: dict[str, Any] = {"usable": False, "reason": "", "model": "", "rates": {}, "free_bytes": 0, "flush_s": 0.0}
    for item in converse(request, timeout_s=options.bound_s, spawn=options.start == "spawn"):
        if isinstance(item, Ending):
            if item.kind != "end":
                reason = item.reason()
                answer = {**answer, "usable": False, "reason": f"the probe of {device} failed: {reason}"}
        else:
            answer = item
    return answer


def by_block(records: Sequence[Record]) -> list[list[Record]]:
    """The records that are timed together, each group with its case's block."""
    found: dict[Any, list[Record]] = {}
    for record in records:
        found.setdefault(record.case.block, []).append(record)
    return list(found.values())


def without_memory(record: Record, free: int) -> Record:
    """The record of a case that needs more memory than there is."""
    assert record.counts is not None
    needed = needed_bytes([record.counts])
    return replace(record, detail=f"{NOT_MEASURED_MEMORY}: {needed} bytes needed, {free} available")


def _within_budget(groups: list[list[Record]], phase: Phase) -> Iterator[Record]:
    """Measure what fits, smallest shape first; choose anew after each, with what was learned and the time that is left."""
    waiting, told = Waiting(groups, phase.predictor, phase.options), False
    while waiting:
        coming = waiting.take(phase.left_s())
        if coming is None:
            for record in waiting.records():
                yield phase.finish(late(record, phase))
            return
        phase.expected_s = coming.expected_s
        if not told:  # nothing is heard of a block before it is through
            told = True
            rest = min(phase.expected_s, max(phase.left_s(), 0.0))
            phase.listener(Progress("measure", len(phase.done), phase.total, left_s=rest))
        for record in measure_block(coming.group, coming.share, phase):
            phase.predictor.learn(record)
            expected = phase.predictor.cell_s(record, phase.options.min_samples)
            phase.expected_s = max(phase.expected_s - max(expected, phase.options.budget_s), 0.0)
            yield phase.finish(record)
