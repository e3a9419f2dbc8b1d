"""The first phase: count every case, in one child that is replaced when a case ends it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attnprof.errors import AttnprofError
from attnprof.execute.child import Ending, converse, last_lines
from attnprof.execute.options import Listener, Options, Progress
from attnprof.profiling.measuring.device import available_bytes
from attnprof.profiling.provenance import PROVENANCE, provenance
from attnprof.records import Case, Record, counts_from_json, timeline_from_json, to_json

_FRUITLESS = 2  # children that may end before their first case


def trace_all(cases: Sequence[Case], options: Options, listener: Listener) -> Iterator[Record]:
    """A record with counts, or with the reason why there are none, for every case."""
    todo = {case.key: case for case in cases}
    total, fruitless = len(todo), 0
    while todo:
        batch = list(todo.values())
        request = {
            "op": "trace",
            "tracer": options.tracer,
            "cases": [to_json(case) for case in batch],
            "memory_bytes": child_memory(options),
        }
        before = len(todo)
        for item in converse(request, members=len(batch), timeout_s=options.timeout_s, spawn=options.start == "spawn"):
            if isinstance(item, Ending):
                guilty = todo.pop(batch[item.member].key, None) if item.member >= 0 and item.kind != "end" else None
                fruitless = 0 if len(todo) < before else fruitless + 1
                if fruitless >= _FRUITLESS:  # no case is to blame
                    raise AttnprofError(f"the child that counts does not start: {item.reason()}\n{last_lines(item.output)}")
                records = [] if guilty is None else [ended(Record(guilty), item, options)]
            else:
                records = [_answer(todo.pop(item["key"]), item)]
            for record in records:
                listener(Progress("trace", total - len(todo), total, record.case))
                yield with_provenance(record)


def _answer(case: Case, event: Mapping[str, Any]) -> Record:
    if event["event"] == "traced":
        counts, timeline = counts_from_json(event["counts"]), event.get("memory_timeline")
        found = timeline_from_json(timeline, len(counts.ops)) if timeline is not None else None
        return Record(case, counts=counts, memory_timeline=found)
    return Record(case, status=event["status"], detail=event["detail"])


def child_memory(options: Options) -> int:
    """What a child on the CPU may allocate: as told, else nearly all that the machine has available."""
    return options.memory_bytes or int(0.9 * available_bytes())


def with_provenance(record: Record) -> Record:
    """The record with what its numbers come from in its environment."""
    environment = {**record.environment, PROVENANCE: provenance(record.case)}
    return Record(**{**vars(record), "environment": environment})


def ended(record: Record, ending: Ending, options: Options) -> Record:
    """The record of the case that was in progress when its child ended."""
    output = last_lines(ending.output)
    if ending.kind == "timeout":
        status, reason = "timeout", f"killed after {options.timeout_s:g} s"
    else:
        status, reason = "crashed", ending.reason()
        if "bad_alloc" in output:
            status = "oom"
    detail = f"{reason}\nlast output:\n{output}" if output else reason
    return Record(**{**vars(record), "status": status, "detail": detail})
