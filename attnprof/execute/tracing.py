"""The first phase: count every case, in several children at once; one that a case ends is replaced."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attnprof.errors import AttnprofError
from attnprof.execute.child import Ending, Task, converse_each, last_lines
from attnprof.execute.expected import Expected
from attnprof.execute.options import Listener, Options, Progress
from attnprof.profiling.measuring.device import available_bytes
from attnprof.profiling.provenance import PROVENANCE, both, is_of_two, provenance
from attnprof.records import Case, Record, counts_from_json, timeline_from_json, to_json

EDITED = "was edited while it ran: --resume runs the rows of two versions again"
_FRUITLESS = 2  # children that may end before their first case
_LEAST_S = 3.0  # a chunk that takes less is not worth a child of its own: see _MOST
_PARTS = 2  # of the share of what is left that a child gets at once: the last chunks are small
# Cases of one child. What a process gathers over its life is little (2 MB from the 100th case to the 900th of the catalogue);
# what torch imports when an op first needs it (sympy, dynamo) costs every child two seconds.
_MOST = 2000


def trace_all(cases: Sequence[Case], options: Options, listener: Listener) -> Iterator[Record]:
    """A record with counts, or with the reason why there are none, for every case: in order with one job, else as they come.

    What finds no memory beside others is tried once more alone: how many children there are changes no result.
    """
    todo, jobs, done = {case.key: case for case in cases}, jobs_of(options), 0
    edited: set[str] = set()
    total = len(todo)
    while todo:
        phase = _Phase(todo, options, jobs)
        todo = {}
        for record in phase.records():
            if record.status == "oom" and jobs > 1 and options.memory_bytes is None:
                todo[record.case.key] = record.case
                continue
            done += 1
            listener(Progress("trace", done, total, record.case, left_s=phase.left_s(done)))
            made = record if PROVENANCE in record.environment else with_provenance(record)
            if is_of_two(made.environment[PROVENANCE]["source"]) and made.case.mechanism not in edited:
                edited.add(made.case.mechanism)
                listener(Progress("warning", text=f"{made.case.label} {EDITED}"))
            yield made
        jobs = 1


def jobs_of(options: Options) -> int:
    """How many children count at once: as told, else one for every core that this process may use."""
    return options.jobs or len(os.sched_getaffinity(0))


@dataclass
class _Phase:
    """What is to be counted, and who is at it."""

    todo: dict[str, Case]  # without a record yet
    options: Options
    jobs: int
    expected: Expected = field(default_factory=Expected)
    waiting: list[Case] = field(init=False)  # not with a child; the last is the next
    chunks: dict[int, list[Case]] = field(default_factory=dict)  # of the tasks that are under way
    fruitless: int = 0
    _left_s: float = 0.0
    _asked_at: int = -1

    def __post_init__(self) -> None:
        self.waiting = list(reversed(self.todo.values()))
        if self.jobs > 1:  # what takes longest goes first, so that nobody works on it alone at the end
            self.waiting.sort(key=self.expected.trace_s)

    def records(self) -> Iterator[Record]:
        """All of it, as it comes."""
        for task, item in converse_each(self.next_task, self.jobs):
            if isinstance(item, Ending):
                yield from self.ended(task, item)
            else:
                case = self.todo.pop(item["key"])
                self.expected.learn(case, item["seconds"])
                yield _answer(case, item)

    def next_task(self) -> Task | None:
        """The next chunk; None where everything is with somebody."""
        if not self.waiting:
            return None
        share = math.inf
        if self.jobs > 1:
            share = max(self.expected.total_s(self.waiting) / (self.jobs * _PARTS), _LEAST_S)
        chunk: list[Case] = []
        # an even share in number while nothing says how long a case takes: the guess may be off by a hundred
        most = _MOST if self.expected.seen_s else min(_MOST, math.ceil(len(self.todo) / self.jobs))
        while self.waiting and len(chunk) < most and share > 0:
            chunk.append(self.waiting.pop())
            share -= self.expected.trace_s(chunk[-1])
        request = {
            "op": "trace",
            "tracer": self.options.tracer,
            "cases": [to_json(case) for case in chunk],
            "memory_bytes": child_memory(self.options, min(self.jobs, len(self.todo))),
        }
        task = Task(request, len(chunk), self.options.bound_s, spawn=self.options.start == "spawn")
        self.chunks[id(task)] = chunk
        return task

    def ended(self, task: Task, ending: Ending) -> list[Record]:
        """A child is through: the record of the case that ended it, if one did; what it has not answered is waiting again."""
        chunk = self.chunks.pop(id(task))
        answered = any(case.key not in self.todo for case in chunk)
        guilty = chunk[ending.member] if ending.member >= 0 and ending.kind != "end" else None
        if guilty is not None and self.todo.pop(guilty.key, None) is None:
            guilty = None
        self.waiting += [case for case in reversed(chunk) if case.key in self.todo]
        self.fruitless = 0 if answered or guilty is not None else self.fruitless + 1
        if self.fruitless >= _FRUITLESS * self.jobs:  # no case is to blame
            raise AttnprofError(f"the child that counts does not start: {ending.reason()}\n{last_lines(ending.output)}")
        return [] if guilty is None else [ended(Record(guilty), ending, self.options.bound_s)]

    def left_s(self, done: int) -> float:
        """Seconds until all is counted; asked anew after every hundredth of the cases, since it looks at all that are left."""
        if done >= self._asked_at or not self.todo:
            self._asked_at = done + 1 + len(self.todo) // 100
            self._left_s = self.expected.total_s(self.todo.values()) / min(self.jobs, max(len(self.todo), 1))
        return self._left_s


def _answer(case: Case, event: Mapping[str, Any]) -> Record:
    if event["event"] == "traced":
        counts, timeline = counts_from_json(event["counts"]), event.get("memory_timeline")
        found = timeline_from_json(timeline, len(counts.ops)) if timeline is not None else None
        record = Record(case, counts=counts, memory_timeline=found)
    else:
        record = Record(case, status=event["status"], detail=event["detail"])
    return with_provenance(record, event.get("source"))


def child_memory(options: Options, children: int = 1) -> int:
    """What each of so many children on the CPU may allocate: as told, else its part of nearly all that is available."""
    return options.memory_bytes or int(0.9 * available_bytes() / children)


def with_provenance(record: Record, source: str | None = None) -> Record:
    """The record with what its numbers come from in its environment; `source`: as the child said that loaded it."""
    environment = {**record.environment, PROVENANCE: provenance(record.case, source)}
    return Record(**{**vars(record), "environment": environment})


def also_of(record: Record, source: str | None) -> Record:
    """A counted record with numbers of a source that was loaded since: where that is another one, its `source` says both."""
    made = record.environment.get(PROVENANCE)
    if made is None or source is None or both(made["source"], source) == made["source"]:
        return record
    made = {**made, "source": both(made["source"], source)}
    return Record(**{**vars(record), "environment": {**record.environment, PROVENANCE: made}})


def ended(record: Record, ending: Ending, bound_s: float) -> Record:
    """The record of the case that was in progress when its child ended; `bound_s`: the time that it had."""
    output = last_lines(ending.output)
    if ending.kind == "timeout":
        status, reason = "timeout", f"killed after {bound_s:g} s"
    else:
        status, reason = "crashed", ending.reason()
        if "bad_alloc" in output:
            status = "oom"
    detail = f"{reason}\nlast output:\n{output}" if output else reason
    return Record(**{**vars(record), "status": status, "detail": detail})
