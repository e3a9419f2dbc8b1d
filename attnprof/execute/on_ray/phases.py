"""A run on a cluster: who its nodes are, traces in chunks on their cores, calibration and measuring on their devices."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from attnprof.errors import AttnprofError, UsageError
from attnprof.execute import run
from attnprof.execute.calibrating import Calibrated
from attnprof.execute.expected import Expected
from attnprof.execute.on_ray.crew import Crew, Lane, Node, Retries, ask_each, live_nodes, lost
from attnprof.execute.on_ray.measuring import Measuring, with_their_cases
from attnprof.execute.on_ray.tasks import predictor_from_json
from attnprof.execute.options import Listener, Options, Progress
from attnprof.execute.tracing import with_provenance
from attnprof.profiling.provenance import code, source_hash
from attnprof.records import Case, Memory, Record, to_json

_CHUNKS = 4  # per core: the cores end together
_CHUNK = (8, 64)  # cases: a child per chunk costs 0.1 s; what a lost task has done is done again


def run_cases(
    cases: Sequence[Case],
    options: Options | None = None,
    progress: Listener | None = None,
    counted: run.Counted | None = None,
) -> Iterator[Record]:
    """One record per distinct case, as soon as it is final. The process must be `connected`. See `attnprof.execute`."""
    options, listener = options or Options(), progress or (lambda _: None)
    nodes = _nodes(cases, options, listener)
    phases = run.Phases(partial(trace_all, nodes), partial(calibrate_all, nodes), partial(measure_all, nodes))
    yield from run.run_cases(cases, options, listener, counted, phases)


def resolve_device(wanted: str) -> tuple[str, str]:
    """(concrete device, ''): a GPU where the cluster has one. Which one a task gets is Ray's choice, so it has no number."""
    there = any(node.gpus for node in live_nodes())
    if wanted in ("none", "cpu") or (wanted == "auto" and not there):
        return ("cpu" if wanted == "auto" else wanted), ""
    if wanted not in ("auto", "cuda", "cuda:0"):
        raise UsageError(f"--device {wanted}: Ray gives every task a GPU of its own. auto, cuda, cpu or none.")
    if not there:
        raise UsageError(f"--device {wanted}: no node of the Ray cluster has a GPU (`ray start --num-gpus=N`).")
    return "cuda:0", ""


def _nodes(cases: Sequence[Case], options: Options, listener: Listener) -> list[Node]:
    """The nodes that run the driver's code and the user's; the others are left out, each with the reason."""
    ours, found = code(), []
    own = {module_of(case): source_hash(*module_of(case)) for case in cases if case.imported}
    order = {"op": "greet", "modules": list(own)}
    for lane, answer in ask_each([Lane((node,)) for node in live_nodes()], order, options, listener):
        (node,) = lane.nodes
        if isinstance(answer, str):
            listener(Progress("warning", text=f"node {node.name} is left out: {answer}"))
        elif answer["code"]["attnprof"] != ours["attnprof"]:
            listener(Progress("warning", text=f"node {node.name} is left out: its attnprof is not the driver's"))
        elif answer["sources"] != list(own.values()):
            pairs = zip(own.items(), answer["sources"], strict=True)
            name, there = next(((mechanism, there) for ((mechanism, _), here), there in pairs if there != here))
            text = f"its {name} is not the driver's" if there else f"it has no {name}"
            listener(
                Progress(
                    "warning", text=f"node {node.name} is left out: {text} (the same file at the same place on every node)"
                )
            )
        else:
            if answer["code"]["torch"] != ours["torch"]:
                torches = f"torch {answer['code']['torch']}, the driver {ours['torch']}"
                listener(Progress("warning", text=f"node {node.name} has {torches}: --resume runs its rows anew"))
            found.append(replace(node, host=answer["host"]))
    if not found:
        raise AttnprofError("no node of the Ray cluster can run attnprof: install the same version on every node.")
    return sorted(found, key=lambda node: node.id)


def module_of(case: Case) -> tuple[str, str | None]:
    """The import paths of a case: its mechanism, and the network that it stands in."""
    return case.mechanism, None if case.host is None else case.host.host


def trace_all(nodes: Sequence[Node], cases: Sequence[Case], options: Options, listener: Listener) -> Iterator[Record]:
    """A record with counts, or with the reason why there are none, for every case."""
    lanes = [Lane((node,)) for node in nodes for _ in range(node.cpus)]
    done, expected = 0, Expected()
    cases = sorted(cases, key=expected.trace_s, reverse=True)  # the longest do not come last, where nobody else works
    for chunk, answer in _in_chunks(lanes, cases, "trace", options, listener):
        if isinstance(answer, str):
            records = [lost(with_provenance(Record(case)), answer) for case in chunk]
        else:
            records = with_their_cases(answer["records"], chunk)
        for record in records:
            done += 1
            listener(Progress("trace", done, len(cases), record.case))
            yield record


def calibrate_all(
    nodes: Sequence[Node], cases: Sequence[Case], options: Options, listener: Listener
) -> Iterator[tuple[Case, Calibrated]]:
    """Every case, which must have a concrete device, with what came of it."""
    done = 0
    for chunk, answer in _in_chunks(device_lanes(nodes, cases[0].device), cases, "calibrate", options, listener):
        for case in chunk:
            done += 1
            listener(Progress("calibrate", done, len(cases), case))
            if isinstance(answer, str):
                yield case, Calibrated(None, lost(Record(case), answer).detail)
            else:
                found = answer["calibrated"][case.key]
                memory = found["memory"]
                yield case, Calibrated(**{**found, "memory": None if memory is None else Memory(**memory)})


def measure_all(
    nodes: Sequence[Node], records: Sequence[Record], device: str, options: Options, listener: Listener, began: float
) -> Iterator[Record]:
    """Every traced record of one device, measured or with the reason why not. `began`: when the run's budget began."""
    lanes, reasons = [], []
    order = {"op": "probe", "device": device, "records": [to_json(record) for record in records]}
    for lane, answer in ask_each(device_lanes(nodes, device, each=False), order, options, listener):
        if not isinstance(answer, str) and answer["predictor"] is not None:
            predictor = predictor_from_json(answer["predictor"])
            lanes += [replace(lane, predictor=predictor) for _ in range(lane.nodes[0].gpus if lane.gpu else 1)]
            continue
        reasons.append(answer if isinstance(answer, str) else answer["reason"])
        listener(Progress("warning", text=f"node {lane.nodes[0].name} measures nothing: {reasons[-1]}"))
    if not lanes:
        reason = reasons[0] if reasons else f"no node of the Ray cluster has a device for {device}"
        yield from (replace(record, status="unsupported", detail=reason) for record in records)
        return
    yield from Measuring(lanes, device, options, listener, began).run(records)


def device_lanes(nodes: Sequence[Node], device: str, each: bool = True) -> list[Lane]:
    """A lane per GPU (per node that has one: each=False), or one per host for its CPUs, however many nodes it has."""
    if device.startswith("cuda"):
        return [Lane((node,), gpu=True) for node in nodes for _ in range(node.gpus if each else min(node.gpus, 1))]
    hosts: dict[str, list[Node]] = {}
    for node in nodes:
        if node.cpus:
            hosts.setdefault(node.host, []).append(node)
    return [Lane(tuple(of_one)) for of_one in hosts.values()]


def _in_chunks(
    lanes: Sequence[Lane], cases: Sequence[Case], op: str, options: Options, listener: Listener
) -> Iterator[tuple[list[Case], Mapping[str, Any] | str]]:
    """Cases in chunks, a task each: every chunk with its answer, or how the cluster lost it for good."""
    size = min(max(math.ceil(len(cases) / (_CHUNKS * max(len(lanes), 1))), _CHUNK[0]), _CHUNK[1])
    waiting = deque(list(cases[start : start + size]) for start in range(0, len(cases), size))
    retries: Retries[Case] = Retries(listener, lambda case: case.key)
    with Crew(options, listener) as crew:

        def give(lane: Lane) -> None:
            if waiting:
                chunk = waiting.popleft()
                crew.start(lane, {"op": op, "cases": [to_json(case) for case in chunk]}, chunk)

        while waiting or crew.busy:
            crew.offer(lanes, give)
            if not crew.busy:
                yield from ((chunk, "no node is left") for chunk in waiting)
                return
            outcome = crew.next()
            if outcome is None:
                continue
            if outcome.answer is not None:
                yield outcome.work, outcome.answer
            else:
                again, given_up = retries.after(outcome)
                waiting.extendleft(again)
                if given_up:
                    yield given_up, outcome.death
