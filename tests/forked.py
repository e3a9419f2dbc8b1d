"""Children of a test that are forks of its process: they have torch already, which a fresh interpreter imports for 2 to 4 s."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast

from attnprof import lockstep_worker
from attnprof.execute.side import Side

_LEFT_S = 0.02  # between two looks at whether a child has ended

alive: set[int] = set()  # forks of this process that nobody has waited for


def fork(run: Callable[[], int]) -> int:
    """The process id of a child in a session of its own that calls `run` and leaves with what it returns (70: it raised)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the threads of pytest-xdist, which the child has not
        pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.setsid()
            code = run()
        except BaseException as error:  # noqa: BLE001 - the child must end here whatever happens
            with contextlib.suppress(OSError):
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    alive.add(pid)
    return pid


class Process:
    """As much of a subprocess.Popen as a Side asks of one."""

    def __init__(self, pid: int) -> None:
        self.pid, self.returncode = pid, 0

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, -N for signal N. Raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + (60.0 if timeout is None else timeout)
        while self.pid in alive:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                alive.discard(pid)
                self.returncode = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a fork", timeout or 60.0)
            else:
                time.sleep(_LEFT_S)
        return self.returncode


def start_side(name: str, order: Mapping[str, Any]) -> Side:
    """`attnprof.execute.side.start` with a fork in place of the fresh interpreter; what it does from then on is the same."""
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    parent = os.getpid()

    def run() -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        faulthandler.disable()  # pytest's would name every module that any test has imported
        ours.close()
        null = os.open(os.devnull, os.O_RDONLY)
        for end, place in ((null, 0), (write, 1), (write, 2)):
            os.dup2(end, place)
        sys.stdout, sys.stderr = os.fdopen(1, "w", encoding="utf-8"), os.fdopen(2, "w", encoding="utf-8")  # pytest has others
        return lockstep_worker.main(theirs.detach(), parent)

    pid = fork(run)
    theirs.close()
    os.close(write)
    side = Side(name, cast("subprocess.Popen[bytes]", Process(pid)), ours, read)
    side.send(order)
    return side


def answer_of(ask: Callable[[], Any]) -> Any:
    """What `ask` returns in a fork, by way of JSON; {'failed': reason} where it raises."""
    read, write = os.pipe()

    def run() -> int:
        warnings.simplefilter("ignore")  # pytest makes errors of them
        try:
            answer = ask()
        except Exception as error:  # noqa: BLE001 - the parent is told
            answer = {"failed": f"{type(error).__name__}: {error}"}
        with os.fdopen(write, "w", encoding="utf-8") as wire:
            json.dump(answer, wire)
        return 0

    process = Process(fork(run))
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as wire:
        said = wire.read()
    code = process.wait()
    return json.loads(said) if said else {"failed": f"exit status {code}"}
