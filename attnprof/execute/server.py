"""The fork server: a process that has imported torch once and forks a child per request.

Not `multiprocessing`'s: that one imports the caller's `__main__` again in every child, which runs a user's unguarded script
twice. This one runs nothing but `serve`. It never runs an op nor touches CUDA, so its forks may; where CUDA is found
initialised, or 'spawn' is asked for, the fork becomes a fresh interpreter.

Wire: the parent sends one JSON line with three file descriptors (requests and answers, output, board); the server answers
{"pid": n} and, when that child has ended, {"pid": n, "status": wait status}. It leaves when the parent's end closes, with all
that came of it: its children, the groups of those, and what left those groups (it adopts orphans, PR_SET_CHILD_SUBREAPER, and
kills them: a daemon that a module started must not hold the device). Should it be killed itself, the kernel kills its children
(PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_WORKER = "attnprof.worker"


def serve(descriptor: int) -> None:
    """Fork on request until the parent closes its end."""
    channel = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    awake, wake = os.pipe()
    for end in (awake, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # fork beside the idle threads of a maths library
    importlib.import_module(_WORKER)
    gc.collect()
    gc.freeze()  # a collection in a child need not walk all of torch (0.1 s each), nor copy its pages
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    channel.sendall(b'{"ready": true}\n')
    forked: set[int] = set()
    try:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # the parent has gone: nobody is left to answer
            _answer(channel, awake, wake, forked)
    finally:
        _end_all(forked)


def _answer(channel: socket.socket, awake: int, wake: int, forked: set[int]) -> None:
    """Fork a child per request and tell of each that ends, until the parent closes its side."""
    while True:
        ready, _, _ = select.select([channel.fileno(), awake], [], [])
        if awake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(awake, 4096)
            _reap(channel, forked)
        if channel.fileno() in ready:
            data, descriptors, _, _ = socket.recv_fds(channel, 65536, 3)
            if not data:
                return
            while not data.endswith(b"\n"):
                data += channel.recv(65536)
            request = json.loads(data)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for end in (awake, wake):
                    os.close(end)
                channel.close()
                _become_child(request, descriptors)
            forked.add(pid)
            for descriptor in descriptors:
                os.close(descriptor)
            channel.sendall(json.dumps({"pid": pid}).encode() + b"\n")


def _reap(channel: socket.socket, forked: set[int]) -> None:
    """Tell of every child that has ended, and end what those left behind."""
    ended = False
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            break
        if pid in forked:  # an orphan's end is nobody's business
            forked.discard(pid)
            ended = True
            channel.sendall(json.dumps({"pid": pid, "status": status}).encode() + b"\n")
    if ended:
        _kill_orphans(forked)


def _kill_orphans(forked: set[int]) -> bool:
    """Kill what this process has adopted. True where there was anything."""
    mine = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    try:
        orphans = {int(pid) for pid in mine.read_text(encoding="ascii").split()} - forked
    except OSError:  # no Linux, or no /proc: the groups are killed by the parent
        return False
    for pid in orphans:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return bool(orphans)


def _end_all(forked: set[int]) -> None:
    """Kill the children, their groups, and whoever is adopted when those are gone; a process that forks on has some rounds."""
    for pid in forked:
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)
    for _ in range(50):
        found = _kill_orphans(set())
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
        if found:
            time.sleep(0.01)


def _become_child(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Own session, dies with the server, no core dump, output captured, then the worker. Never returns."""
    code = 70
    try:
        os.setsid()
        die_with_parent(request["server"])
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, output, _ = descriptors
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(null)
        os.close(output)
        os.chdir(request["cwd"])
        sys.path[:] = request["path"]
        wire, board = descriptors[0], descriptors[2]
        torch = sys.modules.get("torch")
        if request["spawn"] or (torch is not None and torch.cuda.is_initialized()):
            for descriptor in (wire, board):
                os.set_inheritable(descriptor, True)
            command = [sys.executable, "-c", _boot(f"import os; from {_WORKER} import main; os._exit(main({wire}, {board}))")]
            os.execv(sys.executable, command)  # noqa: S606 - no shell is wanted
        code = importlib.import_module(_WORKER).main(wire, board)
    except BaseException as error:  # noqa: BLE001 - the child must end here whatever happens
        with contextlib.suppress(OSError):
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def die_with_parent(server: int) -> None:
    """Have the kernel kill this process when the server ends (Linux); leave at once where it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(70)


def import_path() -> list[str]:
    """The import path of this process; the current folder by name."""
    return [entry or str(Path.cwd()) for entry in sys.path]


def _boot(code: str) -> str:
    return f"import sys; sys.path[:] = {import_path()!r}; {code}"


def boot_server(descriptor: int) -> list[str]:
    """The command that starts the server with this process's import path."""
    return [sys.executable, "-c", _boot(f"from {__name__} import serve; serve({descriptor})")]
