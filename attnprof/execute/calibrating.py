"""Between counting and measuring, where it is asked for: each case's calibrated peak, its ops run alone in a bounded child."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from attnprof.execute.child import Ending, converse
from attnprof.execute.options import Listener, Options, Progress
from attnprof.execute.tracing import also_of, child_memory
from attnprof.profiling.calibrating.cache import cache_folder
from attnprof.records import NOT_CALIBRATED, Case, Memory, Record, to_json

_FRUITLESS = 2  # children that may end before their first case


@dataclass(frozen=True)
class Calibrated:
    """What came of a case: a peak with what it is made of (`facts`: fields of Calibration), or the reason why there is none."""

    memory: Memory | None
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None  # the hash of what was loaded

    def added_to(self, record: Record) -> Record:
        """The record with the peak, or with a line that says why it is missing."""
        environment = {**self.environment, **record.environment}
        if self.memory is not None:
            return also_of(replace(record, calibrated=self.memory, environment=environment), self.source)
        detail = "\n".join(filter(None, (record.detail, f"{NOT_CALIBRATED}: {self.reason}")))
        return replace(record, detail=detail)


def calibrate_all(cases: Sequence[Case], options: Options, listener: Listener) -> Iterator[tuple[Case, Calibrated]]:
    """Every case, which must have a concrete device, with what came of it.

    A case may take `options.bound_s` and a child's memory; what was probed before it ended is kept on disk for the next time.
    """
    folder = cache_folder()
    todo = {case.key: case for case in cases}
    total, fruitless, began = len(todo), 0, time.monotonic()
    while todo:
        batch = list(todo.values())
        cpu = not batch[0].device.startswith("cuda")
        bound = child_memory(options) if cpu else None
        request = {
            "op": "calibrate",
            "cases": [to_json(case) for case in batch],
            "cache": None if folder is None else str(folder),
            "memory_bytes": bound,
        }
        before = len(todo)
        for item in converse(request, members=len(batch), timeout_s=options.bound_s, spawn=options.start == "spawn"):
            if isinstance(item, Ending):
                if item.kind == "end":
                    continue
                fruitless = 0 if len(todo) < before else fruitless + 1
                lost = [batch[item.member]] if item.member >= 0 else batch if fruitless >= _FRUITLESS else []
                reason = f"killed after {options.bound_s:g} s" if item.kind == "timeout" else item.reason()
                found = [(case, Calibrated(None, reason)) for case in lost if case.key in todo]
            else:
                found = [(todo[item["key"]], _answer(item))]
            for case, calibrated in found:
                del todo[case.key]
                done = total - len(todo)
                left_s = (time.monotonic() - began) / done * len(todo)
                listener(Progress("calibrate", done, total, case, left_s=left_s))
                yield case, calibrated


def calibrated_record(record: Record, device: str, options: Options | None = None) -> Record:
    """A traced record with the calibrated peak of its case on `device` ('cpu', 'cuda:0'), or a line in `detail` why not."""
    case = replace(record.case, device=device)
    ((_, found),) = calibrate_all([case], options or Options(), lambda _: None)
    return found.added_to(record)


def _answer(event: Mapping[str, Any]) -> Calibrated:
    if event["event"] == "calibrated":
        facts = dict(event["calibration"])
        return Calibrated(Memory(**facts.pop("memory")), "", facts, event["environment"], event.get("source"))
    return Calibrated(None, event["detail"])
