"""The child: one request in, events out, one JSON line each; the only place where a user's module runs.

Requests: {"op": "trace" | "calibrate" | "measure" | "memory" | "probe" | "crosscheck", ...}. Events: {"event": "traced" |
"calibrated" | "timed" | "memory" | "failed" | "left" | "probed" | "opinion" | "end", "key": case key, ...}. Who is being worked
on stands on the board (`attnprof.execute.board`), so that whatever ends this process is charged to that member. A line of an
event begins with the request's `token`: a user's module may find the connection and write into it.

This module is imported once by the fork server: importing it must run no op and touch no device.
"""

from __future__ import annotations

import errno
import gc
import importlib
import io
import json
import linecache
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from attnprof import mechanisms
from attnprof.errors import AttnprofError, UntraceableError, is_too_large, told
from attnprof.execute.board import Board, attach
from attnprof.execute.private import private
from attnprof.profiling.measuring import device, gpu, measure, peak
from attnprof.profiling.measuring.prepare import InvalidOutputError, UnsupportedError
from attnprof.profiling.measuring.window import Member, flush
from attnprof.profiling.provenance import Loading
from attnprof.records import Case, Record, case_from_json, to_json

Say = Callable[[dict[str, Any]], None]

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "cannot allocate memory")
_OWN = Path(__file__).parent
_MESSAGE = 2000


def main(wire: int, board: int) -> int:
    """Answer the one request that comes over `wire`. Returns the exit code."""
    channel = socket.socket(fileno=wire)
    with channel.makefile("r", encoding="utf-8") as lines:
        request = json.loads(lines.readline())

    begin = f"\n{request['token']} ".encode()  # on a line of its own, whatever a user's module has written here

    def say(event: dict[str, Any]) -> None:
        channel.sendall(begin + json.dumps(event).encode() + b"\n")

    turns = attach(board)
    write_by_lines()
    bound_memory(request.get("memory_bytes"))
    _OPERATIONS[request["op"]](request, turns, say)
    turns.turn_to(-1)
    sys.stdout.flush()
    sys.stderr.flush()
    say({"event": "end"})
    return 0


def write_by_lines() -> None:
    """What user code prints is written line by line: the last words of a child that crashes are not lost in a buffer."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)


def bound_memory(allowed: int | None) -> None:
    """Let this process allocate so much more: a module that never stops gets an error instead of the machine's last page."""
    if allowed is None or sys.platform != "linux":
        return
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + allowed
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _cases(request: Mapping[str, Any]) -> list[Case]:
    return [case_from_json(data) for data in request["cases"]]


def _trace(request: Mapping[str, Any], board: Board, say: Say) -> None:
    module, _, name = request["tracer"].partition(":")
    tracer, loading = getattr(importlib.import_module(module), name), Loading()
    for index, case in enumerate(_cases(request)):
        before = loading.source(case)
        if loading.edited:
            return  # what is loaded here is no longer what lies there: the rest gets a fresh process
        board.turn_to(index)
        began = time.perf_counter()
        try:
            found, seconds = _found(tracer(case)), time.perf_counter() - began
            source = loading.loaded(before, case)
            say({"event": "traced", "key": case.key, "seconds": seconds, "source": source, **found})
        except BaseException as error:  # noqa: BLE001 - SystemExit of a user's module must not end the others' run
            say({**failure(case, error), "seconds": time.perf_counter() - began, "source": loading.loaded(before, case)})
            if _status(error) == "oom":
                return  # what an exhausted process does next is anybody's guess: the rest gets a fresh one


def _found(noun: Any) -> dict[str, Any]:
    """What a tracer gave, as `counts`; of a Record the counts, and its timeline where it has one."""
    if not isinstance(noun, Record):
        return {"counts": to_json(noun)}
    found = {"counts": noun.counts, "memory_timeline": noun.memory_timeline}
    return {name: to_json(part) for name, part in found.items() if part is not None}


def _calibrate(request: Mapping[str, Any], board: Board, say: Say) -> None:
    from attnprof.profiling.calibrating.calibrate import calibrate_case

    folder, loading = None if request["cache"] is None else Path(request["cache"]), Loading()
    for index, case in enumerate(_cases(request)):
        board.turn_to(index)
        before = loading.source(case)
        try:
            found = to_json(calibrate_case(case, folder, request["memory_bytes"]))
            machine = device.environment(case.device)
            source = loading.loaded(before, case)
            say({"event": "calibrated", "key": case.key, "calibration": found, "environment": machine, "source": source})
        except BaseException as error:  # noqa: BLE001
            say(failure(case, error))
            if _status(error) == "oom":
                return  # as in a trace
        gc.collect()


def _measure(request: Mapping[str, Any], board: Board, say: Say) -> None:
    """Build and check every member, then time them interleaved. One that fails ends the child: the block starts afresh."""
    began = time.monotonic()
    cases = _cases(request)
    plan = measure.Plan(**request["plan"])
    machine = device.environment(cases[0].device)
    members: list[Member] = []
    loading, sources = Loading(), {}
    for index, case in enumerate(cases):
        board.turn_to(index)
        before = loading.source(case)
        try:
            verdict = measure.prepare_member(case, index, plan)
        except UnsupportedError as error:
            say(failure(case, error))
        except BaseException as error:  # noqa: BLE001
            say(failure(case, error))
            return
        else:
            if isinstance(verdict, Member):
                members.append(verdict)
                sources[case.key] = loading.loaded(before, case)
            else:
                say({"event": "failed", "key": case.key, "status": "invalid_output", "detail": verdict})
    board.turn_to(-1)
    turns = measure.Turns(board.turn_to, board.spent_s, began)
    with gpu.watch(cases[0].device) as watched:
        try:
            for outcome in measure.run_rounds(members, plan, turns, watched.warnings):
                environment = machine | outcome.extra | watched.facts()
                if outcome.timing is None:
                    say({"event": "left", "key": outcome.case.key, "detail": outcome.detail, "environment": environment})
                else:
                    event = {"event": "timed", "key": outcome.case.key, "timing": to_json(outcome.timing)}
                    event |= {"environment": environment, "source": sources[outcome.case.key]}
                    say(event | {"energy_j": outcome.energy_j, "slowed": watched.slowed()})
        except measure.MemberError as error:
            say(failure(error.case, error.cause))


def _memory(request: Mapping[str, Any], board: Board, say: Say) -> None:
    loading = Loading()
    for index, case in enumerate(_cases(request)):
        board.turn_to(index)
        before = loading.source(case)
        try:
            found = to_json(peak.measure_peak(case, request["seed"]))
            say({"event": "memory", "key": case.key, "memory": found, "source": loading.loaded(before, case)})
        except BaseException as error:  # noqa: BLE001
            say(failure(case, error))
            return
        gc.collect()


def _probe(request: Mapping[str, Any], board: Board, say: Say) -> None:
    board.turn_to(0)
    wanted = request["device"]
    usable, reason = device.usable(wanted)
    rates = device.probe(wanted, request["dtypes"]) if usable else {}
    model = device.model(wanted) if usable else ""
    answer = {"usable": usable, "reason": reason, "model": model, "rates": rates, "free_bytes": device.free_bytes(wanted)}
    say({"event": "probed", **answer, "flush_s": _flush_s(wanted) if rates else 0.0})  # last: its buffer counts as used


def _flush_s(wanted: str) -> float:
    made = flush(wanted)
    began = time.perf_counter()
    made.run()
    return time.perf_counter() - began if made.bytes else 0.0


def _crosscheck(request: Mapping[str, Any], board: Board, say: Say) -> None:
    """Trace the case, then ask every counter about it; each has its turn, and whatever it raises is its opinion."""
    from attnprof.profiling.counting.trace import trace_case
    from attnprof.profiling.crosscheck import ask

    (case,) = _cases(request)
    board.turn_to(0)
    try:
        counts = trace_case(case)
    except BaseException as error:  # noqa: BLE001
        say(failure(case, error))
        return
    say({"event": "traced", "key": case.key, "counts": to_json(counts)})
    for index, counter in enumerate(request["counters"]):
        board.turn_to(index)
        opinion = ask.ask_case(case, counter, counts, request["usable_bytes"])
        said = {"sentence": private(opinion.sentence), "warnings": tuple(map(private, opinion.warnings))}
        say({"event": "opinion", "key": case.key, "opinion": to_json(opinion) | said})
        gc.collect()


_OPERATIONS: dict[str, Callable[[Mapping[str, Any], Board, Say], None]] = {
    "trace": _trace,
    "calibrate": _calibrate,
    "measure": _measure,
    "memory": _memory,
    "probe": _probe,
    "crosscheck": _crosscheck,
}


def failure(case: Case, error: BaseException) -> dict[str, Any]:
    """The event for a member that raised: status, exception type and message, and the user's own line."""
    ours = isinstance(error, AttnprofError)  # its message says it all
    detail = private((str(error).strip() if ours else told(error))[: 4 * _MESSAGE])[:_MESSAGE]
    line = "" if ours else _users_line(error)
    return {"event": "failed", "key": case.key, "status": _status(error), "detail": f"{detail}\n{line}" if line else detail}


def _status(error: BaseException) -> str:
    text = str(error).lower()
    if isinstance(error, InvalidOutputError):
        return "invalid_output"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return "oom"
    if isinstance(error, RuntimeError) and any(phrase in text for phrase in _NO_MEMORY):
        return "oom"
    if isinstance(error, (UntraceableError, UnsupportedError)) or is_too_large(error):
        return "unsupported"
    if isinstance(error, (RuntimeError, NotImplementedError)) and "not implemented for '" in text:
        return "unsupported"  # a kernel that this device lacks for this dtype
    return "error"


def _users_line(error: BaseException) -> str:
    """'file.py:12: source' of the innermost frame that is neither torch's nor ours (mechanism files are the user's)."""
    found = ""
    trace = error.__traceback__
    torch_root = str(Path(torch.__file__).parent)
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        own = file.startswith(str(_OWN)) and not file.startswith(str(Path(mechanisms.__file__).parent / ""))
        ours = own or file == mechanisms.__file__ or file.startswith((torch_root, "<"))
        if not ours:
            source = linecache.getline(file, trace.tb_lineno).strip()
            found = private(f"{Path(file).name}:{trace.tb_lineno}: {source}")
        trace = trace.tb_next
    return found
