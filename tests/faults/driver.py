"""A run of attnprof in a process of its own, which can be killed, and what it leaves: processes and the lines of its store."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MARK = "ATTNPROF_TEST_MARK"

SLOW = '''
import time
from torch import nn

class Slow(nn.Module):
    """A pointwise convolution that takes its time."""

    def __init__(self, channels, n=0, seconds=0.15):
        super().__init__()
        self.layer, self.seconds = nn.Conv2d(channels, channels + n, 1), seconds

    def forward(self, x):
        time.sleep(self.seconds)
        return self.layer(x)
'''


def write_sweep(folder: Path, cases: int, seconds: float = 0.15, device: str = "none", blocks: int = 1) -> None:
    """sweep.yaml and slow.py: blocks of so many cases with counts of their own, each takes so long to count and to run."""
    sizes = ", ".join(f"{5 + more}x5" for more in range(blocks))
    (folder / "slow.py").write_text(SLOW)
    (folder / "sweep.yaml").write_text(
        f"name: sweep\ninput: {{channels: 8, hw: [{sizes}]}}\nmodes: inference\n"
        f"measure: {{device: {device}, budget_s: 0.1}}\nmechanisms:\n"
        f"  - {{import: 'slow.py:Slow', args: {{n: {list(range(cases))}, seconds: {seconds}}}}}\n"
    )


@dataclass
class Driver:
    """A running `attnprof`, its streams in files, and the mark by which its whole family is known."""

    process: subprocess.Popen[str]
    mark: str
    folder: Path
    terminal: int | None = None  # the far end of the one that its stderr is

    @property
    def stderr(self) -> str:
        """What it has said so far."""
        return (self.folder / f"{self.mark}.err").read_text(errors="replace")

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return (self.folder / f"{self.mark}.out").read_text(errors="replace")

    def family(self) -> list[int]:
        """Everybody who has the mark in the environment, and lives; the driver itself apart."""
        return [pid for pid in marked(self.mark) if pid != self.process.pid]

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal."""
        os.kill(self.process.pid, number)

    def press_ctrl_c(self) -> None:
        """At its terminal: everybody in the foreground gets the signal, its children too."""
        assert self.terminal is not None
        os.write(self.terminal, b"\x03")

    def wait(self, seconds: float = 120.0) -> int:
        """Its exit code."""
        return self.process.wait(seconds)

    def wait_until_nobody_is_left(self, seconds: float = 10.0) -> None:
        """Fails where somebody of the family outlives the driver."""
        deadline = time.monotonic() + seconds
        while self.family() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self.family() == []


_started: list[Driver] = []


def start(
    folder: Path,
    *arguments: str,
    before: Sequence[str] = (),
    reader_gone: bool = False,
    terminal: bool = False,
    **environment: str,
) -> Driver:
    """Start `attnprof ARGUMENTS` in a folder, and have it end with the test.

    before: a command that is to start it. reader_gone: nobody reads stdout. terminal: stderr is one.
    """
    mark = uuid.uuid4().hex
    own = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", **os.environ, **environment, _MARK: mark}
    own.pop("PYTHONUNBUFFERED", None)
    reads, writes = os.pipe()
    os.close(reads)
    far, near = pty.openpty() if terminal else (None, None)
    with (folder / f"{mark}.out").open("w") as out, (folder / f"{mark}.err").open("w") as err:
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "attnprof", *arguments],
            cwd=folder,
            env={name: value for name, value in own.items() if value != "-"},
            stdin=subprocess.DEVNULL,
            stdout=writes if reader_gone else out,
            stderr=err if near is None else near,
            text=True,
            start_new_session=terminal,
            preexec_fn=_at_a_terminal if terminal else hear_interrupts,  # noqa: PLW1509
        )
    os.close(writes)
    driver = Driver(process, mark, folder, far)
    _started.append(driver)
    if near is not None:
        os.close(near)
        threading.Thread(target=_copy, args=(driver,), daemon=True).start()
    return driver


def end_all() -> None:
    """End whatever `start` has started, stopped ones too, with all that they have started."""
    while _started:
        driver = _started.pop()
        if driver.process.poll() is None:
            driver.process.kill()
            driver.process.wait()
        for pid in driver.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _copy(driver: Driver) -> None:
    """What comes out at the far end of a terminal, into the file that stderr would be, until everybody has left the other."""
    assert driver.terminal is not None
    with (driver.folder / f"{driver.mark}.err").open("ab", buffering=0) as err, contextlib.suppress(OSError):
        while seen := os.read(driver.terminal, 65536):
            err.write(seen)
    os.close(driver.terminal)


def _at_a_terminal() -> None:
    """For a child with a session of its own: its stderr is the terminal that sends it signals."""
    hear_interrupts()
    fcntl.ioctl(2, termios.TIOCSCTTY, 0)


def run(folder: Path, *arguments: str, before: Sequence[str] = (), **environment: str) -> Driver:
    """Run it to its end."""
    driver = start(folder, *arguments, before=before, reader_gone=False, terminal=False, **environment)
    driver.wait(280)
    return driver


def hear_interrupts() -> None:
    """For a child: what a script starts in the background ignores SIGINT, under nohup SIGHUP, and its children with it."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def marked(mark: str) -> list[int]:
    """Processes with the mark in their environment, zombies apart."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if f"{_MARK}={mark}".encode() in (entry / "environ").read_bytes():
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                found += [int(entry.name)] if state != "Z" else []
        except OSError:
            continue
    return found


def children_of(pid: int) -> list[int]:
    """The processes that one has started."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def workers_of(driver: Driver) -> tuple[list[int], list[int]]:
    """(fork servers, the children that they have now)."""
    servers = children_of(driver.process.pid)
    return servers, [child for server in servers for child in children_of(server)]


def lines(store: Path) -> Iterator[Mapping[str, Any]]:
    """The whole lines of a store; a line that is none fails here."""
    for line in store.read_bytes().split(b"\n"):
        if line:
            yield json.loads(line)


def records(store: Path) -> list[Mapping[str, Any]]:
    """The records of a store, one per line, as they were written."""
    return [line["record"] for line in lines(store) if line["kind"] == "record"]


def last_of_each(found: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """{key: record}: the last of a key is the one that holds."""
    return {record["case"]["key"]: record for record in found}


def counts_by_key(store: Path) -> dict[str, Any]:
    """{key: counts} of the cases that are ok. A key that is there twice fails here."""
    found: dict[str, Any] = {}
    for record in records(store):
        if record["status"] == "ok":
            assert record["case"]["key"] not in found, "a case stands there twice"
            found[record["case"]["key"]] = record["counts"]
    return found


def wait_for_records(store: Path, count: int, seconds: float = 60.0) -> None:
    """Until so many records are on the disk."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if store.exists() and store.read_bytes().count(b'"kind":"record"') >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"{store.name} got no {count} records")
