"""Conversations with children: start, listen, bound, end. Waits in select; kills a child's whole process group."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnprof.execute import server
from attnprof.execute.board import Board, create, page
from attnprof.execute.forks import START_S, Event, Server, answer, running_server
from attnprof.execute.private import private

RING_BYTES = 64 * 1024
LINE_BYTES = 64 * 2**20  # of one event: the largest networks have a few MiB
_GRACE_S = 5.0  # for a killed child to be gone
_GLANCE_S = 1.0  # turns change without a word: the board is looked at so often
_IDLE_S = 300.0  # for a child with which nobody has a turn


@dataclass(frozen=True)
class Ending:
    """How a conversation ended.

    'end' (all answered), 'died', 'timeout' (of a member), 'deadline' (of the run) or 'lost' (the fork server ended, and the
    child with it: nobody in particular is to blame).
    """

    kind: str
    member: int = -1
    status: int | None = None  # wait status, where it died by itself
    output: str = ""
    flooded: bool = False

    def reason(self) -> str:
        """What happened, in words."""
        if self.flooded:
            return f"it wrote more than {LINE_BYTES // 2**20} MiB where its results go, and no result"
        if self.kind == "lost":
            return "the fork server ended, and its children with it"
        if self.status is None:
            return self.kind
        code = os.waitstatus_to_exitcode(self.status)
        if code >= 0:
            return f"the process left with exit code {code} and no answer"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = " (the kernel's out-of-memory killer, perhaps)" if code == -signal.SIGKILL else ""
        return f"killed by {name}{hint}"


@dataclass(frozen=True)
class Task:
    """What a child is asked, how many members it works on, and its bounds.

    timeout_s: for every member, or one for each. deadline: of the whole conversation (monotonic). spawn: a fresh interpreter.
    """

    request: Mapping[str, Any]
    members: int = 1
    timeout_s: float | Sequence[float] = 300.0
    deadline: float | None = None
    spawn: bool = False

    def bound_s(self, member: int) -> float:
        """Seconds that a member may take."""
        return self.timeout_s if isinstance(self.timeout_s, (int, float)) else self.timeout_s[member]

    @property
    def longest_s(self) -> float:
        """Seconds that the slowest of its members may take."""
        return self.timeout_s if isinstance(self.timeout_s, (int, float)) else max(self.timeout_s)


@dataclass
class _Child:
    """A child in conversation: its ends, what it said, how it ended."""

    task: Task
    pid: int
    forks: Server
    wire: socket.socket
    output: int
    board: Board
    token: str
    said: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)
    wire_open: bool = True
    done: bool = False  # it said that it has answered everything
    flooded: bool = False  # a line came to no end

    @property
    def status(self) -> int | None:
        """Its wait status, once it has ended."""
        return self.forks.endings.get(self.pid)

    @property
    def over(self) -> bool:
        """Whether nothing more is to be waited for."""
        return self.done or self.flooded or self.status is not None or self.forks.gone

    @property
    def ends(self) -> list[Any]:
        """What it may be heard on."""
        ends: list[Any] = [self.wire] if self.wire_open else []
        return [*ends, self.output] if self.output != -1 else ends

    def hear(self, ready: Sequence[Any]) -> list[Event]:
        """Take in what has come on its ends. Gives the events that it said."""
        events = self._listen() if self.wire in ready else []
        if self.output in ready:
            data = os.read(self.output, 65536)
            self.tail = (self.tail + data)[-RING_BYTES:]
            if not data:
                os.close(self.output)
                self.output = -1
        return events

    def _listen(self) -> list[Event]:
        try:
            data = self.wire.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            self.wire_open = False
            return []
        self.said += data
        *complete, self.said = self.said.split(b"\n") if b"\n" in data else [self.said]
        if len(self.said) > LINE_BYTES:
            self.flooded, self.wire_open = True, False
        events = [event for line in complete if (event := self._event(line)) is not None]
        self.done = self.done or any(event["event"] == "end" for event in events)
        return [event for event in events if event["event"] != "end"]

    def _event(self, line: bytes | bytearray) -> Event | None:
        """What a line says. One without the token is none of the worker's: it is kept as output."""
        token, _, text = line.partition(b" ")
        with contextlib.suppress(ValueError):
            event = json.loads(text) if token == self.token.encode() else None
            if isinstance(event, dict) and "event" in event:
                return event
        self.tail = (self.tail + line + b"\n" if line else self.tail)[-RING_BYTES:]
        return None


def converse(
    request: Mapping[str, Any],
    members: int = 1,
    timeout_s: float | Sequence[float] = 300.0,
    deadline: float | None = None,
    spawn: bool = False,
) -> Iterator[Event | Ending]:
    """Send a request to a fresh child and give its events until it ends, a member's time is up, or the deadline passes.

    The last item is the Ending. Closing the iterator kills the child.
    """
    tasks = iter([Task(request, members, timeout_s, deadline, spawn)])
    for _, item in converse_each(lambda: next(tasks, None), 1):
        yield item


def converse_each(next_task: Callable[[], Task | None], jobs: int) -> Iterator[tuple[Task, Event | Ending]]:
    """Hold up to `jobs` conversations at once, each with a fresh child; what comes is given with the task that it is about.

    `next_task` is asked whenever a child could be started; None: there is nothing to do now. It is over when there is nothing
    to do and nobody is working. The last item of every task is its Ending. Closing the iterator kills every child.
    """
    working: list[_Child] = []
    try:
        while True:
            while len(working) < jobs and (task := next_task()) is not None:
                working.append(_start(task))
            if not working:
                return
            wait = _GLANCE_S
            for child in list(working):
                kind, glance = ("", 0.0) if child.over else _verdict(child)
                if kind or child.over:
                    working.remove(child)
                    yield from ((child.task, item) for item in _concluded(child, kind))
                else:
                    wait = min(wait, glance)
            for child, event in _hear(working, wait) if working else ():
                yield child.task, event
    finally:
        for child in working:
            _end(child)
            child.forks.endings.pop(child.pid, None)


def _hear(children: Sequence[_Child], seconds: float) -> Iterator[tuple[_Child, Event]]:
    """Wait for anything from the children or the server, at most so long, and take it in."""
    servers = {id(child.forks): child.forks for child in children if not child.forks.gone}
    ends = [forks.channel for forks in servers.values()] + [end for child in children for end in child.ends]
    ready, _, _ = select.select(ends, [], [], max(seconds, 0))
    for forks in servers.values():
        if forks.channel in ready:
            forks.lines()
    for child in children:
        yield from ((child, event) for event in child.hear(ready))


def _concluded(child: _Child, kind: str) -> Iterator[Event | Ending]:
    """The rest of what a child has said, and its ending. kind: why it has to be killed, '' where it ended by itself."""
    try:
        member = child.board.current
        yield from _drain(child)
    finally:
        _end(child)
    status = child.forks.endings.pop(child.pid, None)
    if child.done:
        kind = "end"
    elif not kind and status is None and child.forks.gone:
        kind, member = "lost", -1
    yield Ending(kind or "died", member, None if kind else status, child.tail.decode(errors="replace"), child.flooded)


def _verdict(child: _Child) -> tuple[str, float]:
    """('timeout' | 'deadline' | '', seconds until it has to be asked again while the turn stays as it is)."""
    now, board, task = time.monotonic(), child.board, child.task
    if task.deadline is not None and now >= task.deadline:
        return "deadline", 0.0
    wait = _GLANCE_S if task.deadline is None else task.deadline - now
    current = board.current
    if current < 0:  # starting, ending, or waiting for the GPU
        left = max(task.longest_s, _IDLE_S) - board.idle_s
        return ("", min(wait, left)) if left > 0 else ("timeout", 0.0)
    left = task.bound_s(current) - board.spent_s(current)
    if left > 0:
        return "", min(wait, left)
    time.sleep(0.02)  # a turn may have changed between two reads: ask again before the kill
    if board.current == current and board.spent_s(current) >= task.bound_s(current):
        return "timeout", 0.0
    return "", 0.01


def _start(task: Task) -> _Child:
    forks = running_server()
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    with page() as file:
        board = create(file.fileno(), task.members)
        order = {"cwd": str(Path.cwd()), "path": server.import_path(), "spawn": task.spawn, "server": forks.process.pid}
        line = json.dumps(order).encode() + b"\n"
        socket.send_fds(forks.channel, [line], [theirs.fileno(), write, file.fileno()])
    theirs.close()
    os.close(write)
    try:
        pid = answer(forks, "pid", START_S)["pid"]
    except BaseException:
        ours.close()
        os.close(read)
        raise
    token = os.urandom(8).hex()
    child = _Child(task, pid, forks, ours, read, board, token)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died before it read: the conversation will find out
        ours.sendall(json.dumps({**task.request, "token": token}).encode() + b"\n")
    return child


def _drain(child: _Child) -> Iterator[Event]:
    """What the child had said before it ended and is not read yet (bounded: it may be talking still)."""
    for _ in range(2 * RING_BYTES // 4096):
        ready = select.select(child.ends, [], [], 0)[0] if child.ends else []
        if not ready:
            return
        yield from child.hear(ready)


def _end(child: _Child) -> None:
    """Kill the group (the child, and what it may have started), collect the status, close everything."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    if child.status is None:
        with contextlib.suppress(ProcessLookupError):  # it may not have its own group yet
            os.kill(child.pid, signal.SIGKILL)
    deadline = time.monotonic() + _GRACE_S
    try:
        while child.status is None and not child.forks.gone and time.monotonic() < deadline:
            for _ in _hear([child], deadline - time.monotonic()):
                pass  # what it says after its end is nothing to anybody
    finally:
        child.wire.close()
        if child.output != -1:
            os.close(child.output)
            child.output = -1


def last_lines(output: str, lines: int = 12, characters: int = 2000) -> str:
    """The end of a child's output, for `detail`: without what stands in no record."""
    said = [line for line in output.strip().splitlines() if not line.startswith("USDT:")]  # torch's profiler
    return private("\n".join(said[-lines:])[-4 * characters :])[-characters:]
