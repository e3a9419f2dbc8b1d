"""Tasks on a cluster: lanes that take one task at a time, and what became of each task. The rest of Ray's calls stand here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from attnprof.errors import told
from attnprof.execute.on_ray.connecting import GLANCE_S, HeadGoneError, require_head
from attnprof.execute.on_ray.tasks import work
from attnprof.execute.options import Listener, Options, Progress
from attnprof.execute.predict import Predictor
from attnprof.execute.server import import_path
from attnprof.records import Record

TRIES = 3  # one, and two more where the cluster lost the task
M = TypeVar("M")
_DOUBTED_S = 30.0  # longer than Ray takes to notice that a node is gone


@dataclass(frozen=True)
class Node:
    """A raylet. host: hash of the machine that it runs on, which another raylet may share."""

    id: str
    cpus: int
    gpus: int
    host: str = ""

    @property
    def name(self) -> str:
        """The beginning of its id: what a record and `ray status` call it by."""
        return self.id[:8]


@dataclass(eq=False)
class Lane:
    """A place that has one task at a time: a core of a node, a GPU, or the CPUs of a host, whichever of its nodes is asked."""

    nodes: tuple[Node, ...]
    gpu: bool = False
    predictor: Predictor | None = None
    turns: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of a task: its answer, or how the cluster lost it."""

    lane: Lane
    node: Node
    work: Any  # what `start` was given
    answer: Mapping[str, Any] | None
    death: str = ""


def live_nodes() -> list[Node]:
    """The cluster's nodes that take tasks, as Ray sees them now."""
    import ray

    require_head()
    found = []
    for node in ray.nodes():
        resources = node.get("Resources", {})
        one = Node(node["NodeID"], int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))
        if node["Alive"] and (one.cpus or one.gpus):
            found.append(one)
    return sorted(found, key=lambda one: one.id)


class Crew:
    """The tasks that are out. Leaving it cancels them, and with them whatever they started."""

    def __init__(self, options: Options, listener: Listener) -> None:
        import ray

        self._listener = listener
        # One fork server serves all tasks of a worker; by default a worker would serve a single task with a GPU.
        self._task = ray.remote(max_calls=0, max_retries=0)(work)
        self._order = {"options": vars(options), "cwd": str(Path.cwd()), "path": import_path()}
        self._out: dict[Any, tuple[Lane, Node, Any]] = {}
        self._doubted: dict[str, float] = {}  # nodes that lost a task, and until when another is preferred

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        import ray

        for reference in self._out if not isinstance(error, HeadGoneError) else ():
            ray.cancel(reference, force=True)

    @property
    def busy(self) -> list[Lane]:
        """The lanes that have a task."""
        return [lane for lane, _, _ in self._out.values()]

    def alive(self, lanes: Sequence[Lane]) -> list[Lane]:
        """The lanes that have a node left."""
        there = {node.id for node in live_nodes()}
        return [lane for lane in lanes if any(node.id in there for node in lane.nodes)]

    def offer(self, lanes: Sequence[Lane], give: Callable[[Lane], None]) -> None:
        """Have `give` start what it has for each idle lane; a doubted node is asked where nobody else takes anything."""
        idle = [lane for lane in self.alive(lanes) if lane not in self.busy]
        doubted = [lane for lane in idle if all(self._is_doubted(node) for node in lane.nodes)]
        for lane in idle:
            if lane not in doubted:
                give(lane)
        for lane in doubted if not self._out else ():
            give(lane)

    def _is_doubted(self, node: Node) -> bool:
        return self._doubted.get(node.id, 0.0) > time.monotonic()

    def start(self, lane: Lane, order: Mapping[str, Any], what: Any = None) -> None:
        """Give an idle lane a task: its nodes take turns."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = {node.id for node in live_nodes()}
        nodes = [node for node in lane.nodes if node.id in there] or list(lane.nodes)
        nodes = [node for node in nodes if not self._is_doubted(node)] or nodes
        node = nodes[lane.turns % len(nodes)]
        lane.turns += 1
        task = self._task.options(
            num_cpus=min(node.cpus, 1),
            num_gpus=1 if lane.gpu else 0,
            max_retries=0,  # the driver retries, and says so
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
            name=f"attnprof {order['op']}",
        )
        self._out[task.remote({**self._order, **order})] = (lane, node, what)

    def next(self) -> Outcome | None:
        """Wait for a task; None after a while, in which a doubted node may have become sound.

        That the runner itself cannot work on a node is a loss like the node's death.
        """
        import ray

        ended, _ = ray.wait(list(self._out), num_returns=1, timeout=GLANCE_S)
        if not ended:
            require_head()
            return None
        (reference,) = ended
        lane, node, what = self._out.pop(reference)
        require_head()
        death, answer = "", {}
        try:
            answer = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            death = told(error.cause or error)
        except ray.exceptions.RayError as error:
            death = _death(error)
        for text in answer.get("said", ()):
            self._listener(Progress("warning", text=f"node {node.name}: {text}"))
        death = answer.get("refused", death)
        if death:
            self._doubted[node.id] = time.monotonic() + _DOUBTED_S
            return Outcome(lane, node, what, None, death)
        return Outcome(lane, node, what, answer)


def _death(error: BaseException) -> str:
    """How Ray names what happened, and the first sentence of what it says: further on stand addresses."""
    if type(error).__name__ == "TaskUnschedulableError":
        return "the node is gone"
    said = " ".join(str(error).split()).partition(". ")[0].rstrip(".")[:200]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def lost(record: Record, death: str) -> Record:
    """The record of a case that the cluster lost for good."""
    return replace(record, status="crashed", detail=f"lost by the Ray cluster, {TRIES} times at most: {death}")


class Retries(Generic[M]):
    """What is tried again after the cluster lost it: as it was, then case by case, so that one case costs its own row only."""

    def __init__(self, listener: Listener, key: Callable[[M], str]) -> None:
        self._listener, self._key = listener, key
        self._lost: dict[str, int] = {}

    def after(self, outcome: Outcome) -> tuple[list[list[M]], list[M]]:
        """(groups to try again, members that are given up) of a task that was lost."""
        members: list[M] = list(outcome.work)
        for member in members:
            self._lost[self._key(member)] = self._lost.get(self._key(member), 0) + 1
        times = max(self._lost[self._key(member)] for member in members)
        which = f"{len(members)} case{'s' if len(members) > 1 else ''} of node {outcome.node.name}"
        then = "given up" if times >= TRIES else "tried again"
        self._listener(Progress("warning", text=f"{which} lost ({outcome.death}): {then}"))
        if times >= TRIES:
            return [], members
        return [members] if times < TRIES - 1 else [[member] for member in members], []


def ask_each(
    lanes: Sequence[Lane], order: Mapping[str, Any], options: Options, listener: Listener
) -> Iterator[tuple[Lane, Mapping[str, Any] | str]]:
    """One order for every lane, at once: each with its answer, or why there is none."""
    with Crew(options, listener) as crew:
        tries = dict.fromkeys(lanes, 1)
        for lane in lanes:
            crew.start(lane, order, lane)
        while crew.busy:
            outcome = crew.next()
            if outcome is None:
                continue
            lane = outcome.lane
            if outcome.answer is not None:
                yield lane, outcome.answer
            elif tries[lane] < TRIES and crew.alive([lane]):
                tries[lane] += 1
                crew.start(lane, order, lane)
            else:
                yield lane, outcome.death
