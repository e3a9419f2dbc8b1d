"""Two Ray nodes on this machine, for tests: their own port, folder and token; whatever they started is gone when they are."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
_STARTED = "Ray runtime started"
_SOON = {  # Ray takes a quarter of a minute to notice that a node is gone; a test need not
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "2",
}


@dataclass
class Cluster:
    """Its address, the processes that started its nodes, and what a driver needs in its environment."""

    address: str
    environment: dict[str, str]
    folder: Path
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *arguments: str) -> None:
        """One more node, with one core."""
        log = self.folder / f"node{len(self.nodes)}.log"
        command = [str(Path(sys.executable).with_name("ray")), "start", *arguments, "--num-cpus=1", "--block"]
        with log.open("wb") as output:
            node = subprocess.Popen(
                [*command, "--object-store-memory=100000000"],
                env=self.environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.nodes.append(node)
        deadline = time.monotonic() + 120
        while _STARTED not in log.read_text(errors="replace"):
            assert node.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.1)

    def stop(self) -> None:
        """End every node, then what is left of them."""
        started = [pid for node in self.nodes for pid in (*descendants(node.pid), node.pid)]
        for node in self.nodes:
            node.send_signal(signal.SIGTERM)
        for node in self.nodes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.wait(timeout=20)
        for pid in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for node in self.nodes:
            node.wait()

    def processes(self, word: str, node: int | None = None) -> list[int]:
        """The processes of the nodes (of one of them) that have `word` in their command line."""
        nodes = self.nodes if node is None else [self.nodes[node]]
        return [pid for one in nodes for pid in descendants(one.pid) if word in command_line(pid)]


@contextlib.contextmanager
def two_nodes() -> Iterator[Cluster]:
    """A head and a second node, one core each."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # sockets have short names
    port = _free_port()
    environment = {
        **os.environ,
        **_SOON,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("RAY_ADDRESS", None)
    cluster = Cluster(f"127.0.0.1:{port}", environment, folder)
    try:
        cluster.start("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder / 't'}")
        cluster.start(f"--address={cluster.address}")
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                parent = int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, new = [], [pid]
    while new:
        new = [child for parent in new for child in children.get(parent, [])]
        found += new
    return found


def command_line(pid: int) -> str:
    """What a process was started as; '' for one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
