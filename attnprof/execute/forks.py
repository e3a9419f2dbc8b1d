"""The fork server as the driver sees it: started on first use, heard, ended with whatever it forked."""

from __future__ import annotations

import atexit
import json
import os
import select
import socket
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any

from attnprof.errors import AttnprofError
from attnprof.execute import server

START_S = 120.0  # for the server to import torch
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

# glibc gives the top of its heap back and asks for it again, a page fault per 4 KiB, in every pass of one process and none of
# another with the same code, as their heaps happen to lie: equal code then differs by 4 to 7 %. Here it keeps what it had.
KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # the most it takes: what is larger is mapped anew every time
    "MALLOC_TOP_PAD_": str(64 << 20),
}

Event = dict[str, Any]


@dataclass
class Server:
    """The running fork server, what it has said, and how the children ended that nobody has asked after yet."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    buffer: bytearray = field(default_factory=bytearray)
    endings: dict[int, int] = field(default_factory=dict)
    gone: bool = False

    def lines(self) -> list[Event]:
        """Complete messages that are there now, but for ends of children, which are noted. Nothing once the server is gone."""
        try:
            data = self.channel.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.gone = True
            return []
        self.buffer += data
        *complete, rest = self.buffer.split(b"\n")
        self.buffer = bytearray(rest)
        messages = [json.loads(line) for line in complete]
        self.endings |= {message["pid"]: message["status"] for message in messages if "status" in message}
        return [message for message in messages if "status" not in message]


_running: Server | None = None


def running_server() -> Server:
    """The server of this process; started on first use, and again should it have ended."""
    global _running
    if _running is not None and (_running.gone or _running.process.poll() is not None):
        close_server()
    if _running is None:
        ours, theirs = socket.socketpair()
        environment = {
            **KEEP_MEMORY,
            **os.environ,
            **dict.fromkeys(THREAD_VARIABLES, "1"),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
        }
        command = server.boot_server(theirs.fileno())
        process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True, env=environment
        )
        theirs.close()
        _running = Server(process, ours)
        try:
            answer(_running, "ready", START_S)
        except BaseException:
            close_server()
            raise
    return _running


def close_server() -> None:
    """End the server and, with it, whatever it forked."""
    global _running
    if _running is not None:
        _running.channel.close()
        try:
            _running.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            _running.process.kill()
            _running.process.wait()
        _running = None


atexit.register(close_server)


def answer(forks: Server, name: str, seconds: float) -> Event:
    """The next message of the server that has `name`; others are late ends of earlier children."""
    deadline = time.monotonic() + seconds
    while True:
        ready, _, _ = select.select([forks.channel], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            raise AttnprofError(f"the fork server did not answer within {seconds:.0f} s")
        for message in forks.lines():
            if name in message:
                return message
        if forks.gone:
            raise AttnprofError(f"the fork server ended (exit code {forks.process.wait()}) before it answered.")
