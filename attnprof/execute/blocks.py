"""Timing and weighing the cases of one block.

A block's members are timed interleaved in one child (or in `replicates` of them, one after the other); their memory is
measured in another one. A member that fails is named in its row, and the block starts again without it: what the ended child
had sampled is thrown away, its time is not. So is, once, what was sampled while a GPU was slowed down by heat or power.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from attnprof.execute.child import Ending, converse
from attnprof.execute.forks import Event
from attnprof.execute.options import Listener, Options, Progress
from attnprof.execute.predict import Predictor
from attnprof.execute.replicates import merged
from attnprof.execute.tracing import EDITED, also_of, child_memory, ended
from attnprof.profiling.measuring import gpu
from attnprof.profiling.provenance import PROVENANCE
from attnprof.records import NOT_MEASURED_BUDGET, Memory, Record, timing_from_json, to_json

_OVERDUE_S = 2.0  # a child that is so late with its own deadline is stuck in one pass
_FRUITLESS = 2
CPU_TIMING = "cpu-timing"  # the lock of a machine: one block is timed on its CPUs at a time


@dataclass
class Phase:
    """The state of measuring on one device. waited_s: for other runs, charged to no budget."""

    device: str
    options: Options
    listener: Listener
    began: float
    predictor: Predictor
    total: int
    done: set[tuple[str, int]] = field(default_factory=set)
    expected_s: float = 0.0  # of what is chosen and not yet begun
    waited_s: float = 0.0

    def left_s(self) -> float:
        """Seconds of the run's budget that are left; infinite without one."""
        if self.options.run_budget_s is None:
            return float("inf")
        return self.options.run_budget_s - (time.monotonic() - self.began - self.waited_s)

    def finish(self, record: Record, process: int | None = None) -> Record:
        """Tell of a case that is timed in a process, or final, once."""
        every = self.options.replicates
        new = {(record.case.key, each) for each in (range(every) if process is None else (process,))} - self.done
        if new:
            self.done |= new
            which = f"process {process + 1} of {every}" if process is not None and every > 1 else ""
            rest = min(self.expected_s, max(self.left_s(), 0.0))
            self.listener(Progress("measure", len(self.done), self.total, record.case, which, rest))
        return record

    def bounds_s(self, members: Sequence[Record]) -> list[float]:
        """Seconds that each of them may take in one child."""
        told, least, budget_s = self.options.timeout_s, self.options.min_samples, self.options.budget_s
        return [told or self.predictor.timeout_s(record, least, budget_s) for record in members]


def not_in_time(record: Record, seconds: float, left_s: float) -> Record:
    """The record of a case for which the run's budget has no time left."""
    left = max(left_s, 0.0)
    beside = " beside what its block needs" if seconds <= left else ""
    told = f"{NOT_MEASURED_BUDGET}: about {seconds:.3g} s needed{beside}, {left:.3g} s left of the run's budget"
    return replace(record, detail=told)


def late(record: Record, phase: Phase) -> Record:
    """The same with what this phase predicts and has left."""
    return not_in_time(record, phase.predictor.cell_s(record, phase.options.min_samples), phase.left_s())


@dataclass
class _Attempt:
    """What one child said about a block."""

    final: list[Record] = field(default_factory=list)
    timed: list[Record] = field(default_factory=list)
    ending: Ending | None = None
    slowed: bool = False  # the GPU's clock, by heat or power, while the block was sampled


def measure_block(group: Sequence[Record], share: tuple[float, float], phase: Phase) -> Iterator[Record]:
    """Time the members of a block in each process, then measure their memory. `share`: see `predict.shares`."""
    with _alone(phase):
        yield from _measure_block(group, share, phase)


@contextlib.contextmanager
def _alone(phase: Phase) -> Iterator[None]:
    """Have the CPUs of this machine, or a GPU, for one's own block: who waits is charged nothing, and no child waits for long.

    A GPU that other runs see under another number is locked by its UUID in the child that times (`gpu.watch`).
    """
    name = CPU_TIMING
    if phase.device.startswith("cuda"):
        visible = re.sub(r"[^\w,-]", "", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
        name = f"{phase.device}-of-{visible}"
    held = gpu.lock(name, wait=False)
    if held is None:
        began = time.monotonic()
        where = "on this machine" if name == CPU_TIMING else f"on {phase.device}"
        phase.listener(Progress("warning", text=f"another run is timing {where}: waiting for it"))
        held = gpu.lock(name, wait=True)
        phase.waited_s += time.monotonic() - began
    try:
        yield
    finally:
        if held is not None:
            os.close(held)


def _measure_block(group: Sequence[Record], share: tuple[float, float], phase: Phase) -> Iterator[Record]:
    enough, deadline = (time.monotonic() + seconds for seconds in share)
    by_key = {record.case.key: record for record in group}
    processes: list[list[Record]] = []
    for number in range(phase.options.replicates):
        now, left = time.monotonic(), phase.options.replicates - number
        bounds = (now + (enough - now) / left, now + (deadline - now) / left)
        timed = yield from _time_in_one_process(list(by_key.values()), bounds, phase, number)
        processes.append(timed)
        by_key = {record.case.key: also_of(by_key[record.case.key], _source(record)) for record in timed}
    yield from list(_weigh(merged(processes), deadline, phase))  # at once: what is written of a block can be compared


def _time_in_one_process(
    group: Sequence[Record], bounds: tuple[float, float], phase: Phase, number: int
) -> Generator[Record, None, list[Record]]:
    """Time the members of a block together; those that fail leave it, and a fresh child takes the rest.

    bounds: when there is enough, and when it is over (monotonic). Yields what is final, returns what is timed.
    """
    enough, deadline = bounds
    active = {record.case.key: record for record in group}
    timed: list[Record] = []
    fruitless, rejected = 0, False
    while active:
        began = time.monotonic()
        if began >= deadline:
            yield from (late(record, phase) for record in active.values())
            break
        attempt = _time_once(list(active.values()), bounds, phase, number)
        spent = time.monotonic() - began
        if attempt.slowed and not rejected and time.monotonic() + spent < enough:
            rejected = True
            phase.listener(Progress("warning", text=f"the GPU slowed down: the block is timed once more ({spent:.0f} s)"))
            continue
        before = len(active)
        for record in attempt.final:
            del active[record.case.key]
            yield record
        complete = len(attempt.timed) == len(active)
        if complete or (attempt.ending is not None and attempt.ending.kind == "deadline"):
            timed = attempt.timed
            for record in timed:
                del active[record.case.key]
            yield from (late(record, phase) for record in active.values())
            break
        fruitless = 0 if len(active) < before else fruitless + 1
        if fruitless >= _FRUITLESS:
            assert attempt.ending is not None
            bounds_s = phase.bounds_s(list(active.values()))
            yield from (ended(record, attempt.ending, bound) for record, bound in zip(active.values(), bounds_s, strict=True))
            break
    return timed


def _time_once(members: list[Record], bounds: tuple[float, float], phase: Phase, number: int) -> _Attempt:
    """One child for a block: what it timed, whom it lost."""
    (enough, deadline), options, attempt = bounds, phase.options, _Attempt()
    by_key = {record.case.key: record for record in members}
    silent = set(by_key)
    now = time.monotonic()
    bounded = deadline != float("inf")
    memory_s = sum(phase.predictor.memory_s(record) for record in members)
    bounds_s = phase.bounds_s(members)
    plan = {
        "block": os.urandom(6).hex(),
        "budget_s": options.budget_s,
        "min_samples": options.min_samples,
        "max_rel_ci": options.max_rel_ci,
        "timeout_s": max(bounds_s),
        "enough_s": max(enough - now - memory_s, 0.0) if bounded else None,
        "deadline_s": max(deadline - now - memory_s, 0.0) if bounded else None,
        "seed": options.seed + number,
    }
    request = {"op": "measure", "cases": [to_json(record.case) for record in members], "plan": plan}
    for item in _converse(request, members, deadline, phase):
        if isinstance(item, Ending):
            attempt.ending = item
            guilty = members[item.member] if item.member >= 0 and item.kind in ("died", "timeout") else None
            if guilty is not None and guilty.case.key in silent:
                attempt.final.append(ended(guilty, item, bounds_s[item.member]))
            continue
        record = by_key[item["key"]]
        silent.discard(item["key"])
        environment = {**record.environment, **item.get("environment", {})}
        if item["event"] == "timed":
            timing = timing_from_json(item["timing"])
            timed = replace(record, timing=timing, energy_j=item["energy_j"], environment=environment)
            timed = _of_what_was_loaded(timed, item, phase)
            attempt.timed.append(phase.finish(timed, number))
            attempt.slowed = attempt.slowed or bool(item.get("slowed"))
        elif item["event"] == "left":
            attempt.final.append(replace(record, detail=item["detail"], environment=environment))
        else:
            attempt.final.append(replace(record, status=item["status"], detail=item["detail"]))
    return attempt


def _of_what_was_loaded(record: Record, item: Event, phase: Phase) -> Record:
    """The record of a child's answer; said, where its file is no longer the one that was counted."""
    found = also_of(record, item.get("source"))
    if found is not record:
        phase.listener(Progress("warning", text=f"{record.case.label} {EDITED}"))
    return found


def _source(record: Record) -> str | None:
    source: str | None = record.environment.get(PROVENANCE, {}).get("source")
    return source


def _converse(request: dict[str, Any], members: list[Record], deadline: float, phase: Phase) -> Iterator[Any]:
    options = phase.options
    cpu = not phase.device.startswith("cuda")
    return converse(
        {**request, "memory_bytes": child_memory(options) if cpu else None},
        members=len(members),
        timeout_s=phase.bounds_s(members),
        deadline=None if deadline == float("inf") else deadline + _OVERDUE_S,
        spawn=options.spawn if request["op"] == "measure" else options.start == "spawn",
    )


def _weigh(timed: list[Record], deadline: float, phase: Phase) -> Iterator[Record]:
    """The memory pass: one child for the block, a fresh one after a member that ends it."""
    waiting = {record.case.key: record for record in timed}
    fruitless = 0
    while waiting:
        if time.monotonic() >= deadline:
            yield from (replace(record, detail=f"memory: {NOT_MEASURED_BUDGET}") for record in waiting.values())
            return
        members = list(waiting.values())
        request = {"op": "memory", "cases": [to_json(record.case) for record in members], "seed": phase.options.seed}
        for item in _converse(request, members, deadline, phase):
            if not isinstance(item, Ending):
                record = waiting.pop(item["key"])
                if item["event"] == "memory":
                    yield _of_what_was_loaded(replace(record, memory=Memory(**item["memory"])), item, phase)
                else:
                    yield replace(record, status=item["status"], detail=f"in the memory pass: {item['detail']}")
            elif item.kind in ("died", "timeout", "lost"):
                fruitless += 1
                bounds_s = phase.bounds_s(members)
                lost = [item.member] if item.member >= 0 else list(range(len(members))) if fruitless >= _FRUITLESS else []
                for index in lost:
                    if waiting.pop(members[index].case.key, None) is not None:
                        yield ended(members[index], item, bounds_s[index])
