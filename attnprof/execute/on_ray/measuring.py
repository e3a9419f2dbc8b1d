"""Blocks onto lanes, chosen anew whenever a lane is free.

Without a budget the longest block goes first, so that the lanes end together. Within one the order is the local executor's,
smallest shape first: a long block whose cost was underrated would take the time of all others, and what small blocks teach the
predictor would come too late.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from attnprof.execute.blocks import not_in_time
from attnprof.execute.measuring import by_block, without_memory
from attnprof.execute.on_ray.crew import Crew, Lane, Outcome, Retries, lost
from attnprof.execute.options import Listener, Options, Progress
from attnprof.execute.predict import MEMORY_SHARE, Predictor, choose, group_s, needed_bytes, share, size, split_by_memory
from attnprof.records import Case, Record, record_from_json, to_json

Group = list[Record]


@dataclass(eq=False)
class _Block:
    """A block that waits. pieces: {usable memory: the groups of it that fit}, as far as lanes have asked."""

    members: Group
    pieces: dict[int, list[Group]] = field(default_factory=dict)

    def within(self, usable: int) -> list[Group]:
        """The groups that fit into so many bytes."""
        if usable not in self.pieces:
            self.pieces[usable] = split_by_memory(self.members, usable)[0]
        return self.pieces[usable]


@dataclass
class Measuring:
    """The state of measuring on the lanes of one device. began: when the run's budget began."""

    lanes: list[Lane]
    device: str
    options: Options
    listener: Listener
    began: float
    waited_s: float = 0.0  # for other runs, per lane: charged to no budget
    waiting: list[_Block] = field(default_factory=list)  # the smallest shape first
    homes: dict[str, _Block] = field(default_factory=dict)  # by a case's key
    free_bytes: int | None = None  # of the lane that has most, when it was last looked for what is too large
    until: dict[int, float] = field(default_factory=dict)  # when each busy lane is expected to be free

    def left_s(self) -> float:
        """Seconds of the run's budget that are left; infinite without one."""
        if self.options.run_budget_s is None:
            return float("inf")
        return self.options.run_budget_s - (time.monotonic() - self.began - self.waited_s)

    def run(self, records: Sequence[Record]) -> Iterator[Record]:
        """Every record, measured or with the reason why not."""
        done, total = 0, len(records)
        self._wait(by_block(records))
        retries: Retries[Record] = Retries(self.listener, lambda record: record.case.key)
        with Crew(self.options, self.listener) as crew:
            while self.waiting or crew.busy:
                found = list(self._too_large(crew))
                crew.offer(self.lanes, lambda lane: self._start(crew, lane))
                found += self._finished(crew.next(), retries) if crew.busy else self._left_over(crew)
                for record in found:
                    done += 1
                    self.listener(Progress("measure", done, total, record.case))
                    yield record

    def _wait(self, groups: Sequence[Group]) -> None:
        """Let groups wait, before the others of their shape."""
        blocks = [_Block(group) for group in groups]
        self.homes |= {record.case.key: block for block in blocks for record in block.members}
        self.waiting = sorted([*blocks, *self.waiting], key=lambda block: size(block.members[0].case.shape))
        self.free_bytes = None

    def _too_large(self, crew: Crew) -> Iterator[Record]:
        """What no device that is left has the memory for."""
        free = max((_of(lane).free_bytes for lane in crew.alive(self.lanes)), default=None)
        if free is None or free == self.free_bytes:
            return
        self.free_bytes = free
        for record in [record for block in self.waiting for record in block.members]:
            if record.counts is not None and needed_bytes([record.counts]) > int(MEMORY_SHARE * free):
                self._take([record])
                yield without_memory(record, free)

    def _take(self, members: Sequence[Record]) -> None:
        """The members of one block go."""
        block = self.homes[members[0].case.key]
        keys = {record.case.key for record in members}
        block.members = [record for record in block.members if record.case.key not in keys]
        block.pieces.clear()
        if not block.members:
            self.waiting.remove(block)

    def _start(self, crew: Crew, lane: Lane) -> None:
        """Give an idle lane the next of the blocks that are to be measured at all and that it has the time and memory for."""
        predictor, least, left, now = _of(lane), self.options.min_samples, self.left_s(), time.monotonic()
        usable, bounded = int(MEMORY_SHARE * predictor.free_bytes), self.options.run_budget_s is not None
        fitting = [piece for block in self.waiting for piece in block.within(usable)]
        capacity = float("inf")
        if bounded:
            busy = {id(other): max(self.until.get(id(other), now) - now, 0.0) for other in crew.busy}
            capacity = sum(max(left - busy.get(id(other), 0.0), 0.0) for other in crew.alive(self.lanes))
            chosen = choose(fitting, predictor, least, capacity, self.options.first)
            fitting = [fits for group in chosen for fits in choose([group], predictor, least, left, self.options.first)]
        if not fitting:
            return
        costs = [group_s(group, predictor, least) for group in fitting]
        first = 0 if bounded else max(range(len(fitting)), key=costs.__getitem__)
        group = fitting[first]
        spare = max(capacity - sum(costs), 0.0) / sum(map(len, fitting))
        part = share(costs[first], len(group), spare, left)
        options = replace(self.options, run_budget_s=left if bounded else None)
        self._take(group)
        self.until[id(lane)] = now + part[0]
        order = {
            "op": "measure",
            "device": self.device,
            "share": part,
            "predictor": asdict(predictor.about(group)),
            "options": vars(options),
            "cases": [to_json(record.case) for record in group],  # a record's JSON lacks the folder of a user's file
            "records": [to_json(record) for record in group],
        }
        crew.start(lane, order, group)

    def _finished(self, outcome: Outcome | None, retries: Retries[Record]) -> list[Record]:
        """The records of a block that is through; one that the cluster lost waits again, at most twice."""
        if outcome is None:
            return []
        where = {"executor": "ray", "node": outcome.node.name}
        if outcome.answer is None:
            again, given_up = retries.after(outcome)
            self._wait(again)
            found = [lost(record, outcome.death) for record in given_up]
        else:
            self.waited_s += outcome.answer["waited_s"] / len(self.lanes)
            found = with_their_cases(outcome.answer["records"], [record.case for record in outcome.work])
            for record in found:
                _of(outcome.lane).learn(record)
        return [replace(record, environment={**record.environment, **where}) for record in found]

    def _left_over(self, crew: Crew) -> list[Record]:
        """What nobody measures: there is no time left for it, or no node."""
        lanes, least = crew.alive(self.lanes), self.options.min_samples
        rest = [record for block in self.waiting for record in block.members]
        self.waiting = []
        if not lanes:
            return [lost(record, "no node is left") for record in rest]
        return [not_in_time(record, _of(lanes[0]).cell_s(record, least), self.left_s()) for record in rest]


def with_their_cases(found: Iterable[Mapping[str, Any]], cases: Iterable[Case]) -> list[Record]:
    """Records as a node gives them, each with the driver's own case: where a user's file lies is not told in a record."""
    own = {case.key: case for case in cases}
    records = [record_from_json(data) for data in found]
    return [replace(record, case=own[record.case.key]) for record in records]


def _of(lane: Lane) -> Predictor:
    assert lane.predictor is not None
    return lane.predictor
