"""Asking other counters: one child per module, a counter that ends it is named and the rest go on in a fresh one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from attnprof.execute.child import Ending, converse, last_lines
from attnprof.execute.options import Listener, Options, Progress
from attnprof.execute.tracing import child_memory
from attnprof.records import Case, Opinion, Record, counts_from_json, opinion_from_json, to_json

_SHARE = 0.8  # of the memory that is free: what a real forward pass may be predicted to take
_LINE = 200


def crosscheck_cases(
    cases: Sequence[Case], counters: Sequence[str], options: Options | None = None, progress: Listener | None = None
) -> Iterator[Record]:
    """For every case a record with the counts of its forward pass in inference and an Opinion per counter.

    Where the trace itself fails the record has its status and detail, and no opinions. `counters`: full names.
    """
    options, listener = options or Options(), progress or (lambda _: None)
    for done, case in enumerate(cases, 1):
        yield _ask(as_asked(case), counters, options)
        listener(Progress("crosscheck", done, len(cases), case))


def as_asked(case: Case) -> Case:
    """The case that counters are asked about: its forward pass, without gradients, on no device."""
    settings = {"sdpa": case.settings.get("sdpa", "auto")}
    return replace(case, mode="inference", device="none", settings=settings)


def attach(records: Sequence[Record], counters: Sequence[str]) -> list[Record]:
    """The records that opinions belong to: one per mechanism, arguments, shape, dtype and host.

    It is the inference one where there is one. What holds an opinion of every counter already is left out.
    """
    chosen: dict[str, Record] = {}
    for record in records:
        case = record.case
        placed = to_json(case)["host"]
        key = json.dumps([case.mechanism, dict(case.args), case.shape.text(), case.dtype, placed], sort_keys=True, default=str)
        if key not in chosen or (chosen[key].case.mode != "inference" and case.mode == "inference"):
            chosen[key] = record
    wanted = set(counters)
    return [record for record in chosen.values() if wanted - {opinion.counter for opinion in record.crosscheck}]


def _ask(case: Case, counters: Sequence[str], options: Options) -> Record:
    left, found, record = list(counters), dict[str, Opinion](), Record(case)
    while left:
        request = {
            "op": "crosscheck",
            "cases": [to_json(case)],
            "counters": left,
            "memory_bytes": child_memory(options),
            "usable_bytes": int(_SHARE * child_memory(options)),
        }
        asked = list(left)
        for item in converse(request, members=len(asked), timeout_s=options.bound_s, spawn=options.start == "spawn"):
            if isinstance(item, Ending):
                if item.kind == "end":
                    left = []
                else:
                    guilty = asked[max(item.member, 0)]
                    found[guilty] = _ended(guilty, item, options)
                    left = [name for name in left if name not in found]
            elif item["event"] == "traced":
                record = replace(record, counts=counts_from_json(item["counts"]))
            elif item["event"] == "failed":
                return replace(record, status=item["status"], detail=item["detail"])
            else:
                opinion = opinion_from_json(item["opinion"])
                found[opinion.counter] = opinion
                left = [name for name in left if name != opinion.counter]
    if record.counts is None:
        reason = next((opinion.sentence for opinion in found.values()), "no answer")
        return replace(record, status="crashed", detail=f"the trace did not end: {reason}")
    return replace(record, crosscheck=tuple(found[name] for name in counters if name in found))


def _ended(counter: str, ending: Ending, options: Options) -> Opinion:
    """The opinion of a counter that ended its process, or did not come back."""
    if ending.kind == "timeout":
        return Opinion(counter, "timeout", sentence=f"timeout: no answer within {options.bound_s:g} s")
    lines = last_lines(ending.output, lines=1)[:_LINE]
    said = f"; its last line: {lines}" if lines else ""
    return Opinion(counter, "crashed", sentence=f"crashed: {ending.reason()}{said}")
