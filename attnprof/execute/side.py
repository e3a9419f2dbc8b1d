"""One child of a lock-step pair, seen from the parent: a fresh interpreter that is asked a line at a time, and killed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from attnprof.execute.child import LINE_BYTES, RING_BYTES, Ending, last_lines
from attnprof.execute.forks import KEEP_MEMORY, THREAD_VARIABLES
from attnprof.execute.server import import_path

_GRACE_S = 5.0  # for a child that is through to be gone
_SHOWN = 60  # bytes of what is no answer
_BOOT = "import os, sys; sys.path[:] = {path!r}; from attnprof.lockstep_worker import main; os._exit(main({wire}, {parent}))"


class SideError(Exception):
    """A side has no answer, or a failure for one."""

    def __init__(self, side: str, status: str, detail: str, absent: bool = False) -> None:
        super().__init__(detail)
        self.side, self.status, self.detail, self.absent = side, status, detail, absent


@dataclass
class Side:
    """One child and the ends that lead to it. output: what it prints to, -1 once it has closed that."""

    name: str
    process: subprocess.Popen[bytes]
    wire: socket.socket
    output: int
    said: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises SideError: a failure, the child's end, or the time that is over."""
        self.send(request)
        return self.answer(timeout_s)

    def answer(self, timeout_s: float) -> dict[str, Any]:
        """The next thing that it says. Raises SideError as `ask` does."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self.said:
            left = deadline - time.monotonic()
            if left <= 0:
                raise SideError(self.name, "timeout", f"killed after {timeout_s:g} s")
            if not self._pump(left):
                raise self._ended()
            if len(self.said) > LINE_BYTES:
                raise SideError(self.name, "crashed", f"it wrote into its own connection: {_shown(self.said)}")
        line, _, rest = self.said.partition(b"\n")
        self.said = bytearray(rest)
        try:
            answer: dict[str, Any] = json.loads(line)
            failed = answer["event"] == "failed"
        except (ValueError, TypeError, KeyError):
            raise SideError(self.name, "crashed", f"it wrote into its own connection: {_shown(line)}") from None
        if failed:
            raise SideError(self.name, answer["status"], answer["detail"], answer["absent"])
        return answer

    def send(self, message: Mapping[str, Any]) -> None:
        """A line to the child; one that has died is found out when it is listened to."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wire.sendall(json.dumps(message).encode() + b"\n")

    def _pump(self, seconds: float) -> bool:
        """Wait for anything from the child, at most so long, and take it in. False: it has closed the connection."""
        ends: list[Any] = [self.wire] if self.output == -1 else [self.wire, self.output]
        ready, _, _ = select.select(ends, [], [], seconds)
        if self.output in ready:
            data = os.read(self.output, 65536)
            self.tail = (self.tail + data)[-RING_BYTES:]
            if not data:
                self._deafen()
        if self.wire not in ready:
            return True
        try:
            data = self.wire.recv(1 << 20)
        except ConnectionResetError:
            return False
        self.said += data
        return bool(data)

    def _deafen(self) -> None:
        if self.output != -1:
            os.close(self.output)
            self.output = -1

    def _ended(self) -> SideError:
        """What it means that the child has closed the connection."""
        try:
            code = self.process.wait(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            return SideError(self.name, "crashed", "the process closed its connection and goes on")
        while self.output != -1 and select.select([self.output], [], [], 0)[0]:  # not for ever: its children may print still
            data = os.read(self.output, 65536)
            self.tail = (self.tail + data)[-RING_BYTES:]
            if not data or len(self.tail) == RING_BYTES:
                break
        output = last_lines(self.tail.decode(errors="replace"))
        reason = Ending("died", status=-code if code < 0 else code << 8).reason()
        status = "oom" if "bad_alloc" in output else "crashed"
        return SideError(self.name, status, f"{reason}\nlast output:\n{output}" if output else reason)

    def kill(self) -> None:
        """End the child and whatever it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.wire.close()
        self._deafen()


def start(name: str, order: Mapping[str, Any]) -> Side:
    """A fresh interpreter that imports torch, then follows `order`: its import path and folder (see `checkout.orders`)."""
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    environment = {**KEEP_MEMORY, **os.environ, **dict.fromkeys(THREAD_VARIABLES, "1"), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    boot = _BOOT.format(path=import_path(), wire=theirs.fileno(), parent=os.getpid())
    process = subprocess.Popen(
        [sys.executable, "-c", boot],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=write,
        start_new_session=True,
        env=environment,
    )
    theirs.close()
    os.close(write)
    side = Side(name, process, ours, read)
    side.send(order)
    return side


def _shown(said: bytes | bytearray) -> str:
    return repr(bytes(said[:_SHOWN]))
