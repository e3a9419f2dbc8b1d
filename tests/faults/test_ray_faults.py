"""A Ray cluster that loses workers, nodes and its driver: the run completes, its traced numbers are the undisturbed ones."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from attnprof import store
from attnprof.plan import expand
from attnprof.records import Record, Shape
from attnprof.spec import parse_file
from tests.faults.ray_cluster import ROOT, Cluster, command_line, descendants, two_nodes

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'attnprof[ray]'"),
]

SPEC = """
name: two
input: {batch: 1, channels: 16, hw: [5x5, 7x9, 9x9]}
modes: [inference, training]
mechanisms: [nonlocal, se, gcnet]
baseline: nonlocal
metrics: [params, macs, peak_memory, latency]
measure: {budget_s: 0.3, run_budget_s: 60, device: cpu}
"""
CASES = 18


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with two_nodes() as found:
        yield found


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "two.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="module")
def undisturbed(spec: Path) -> dict[str, Record]:
    return traced(spec)


def traced(spec: Path) -> dict[str, Record]:
    """The same cases traced on this machine."""
    from attnprof.execute import run_cases

    return {record.case.key: record for record in run_cases(expand(parse_file(str(spec)), "none"))}


@pytest.fixture(autouse=True)
def _no_driver_left() -> Iterator[None]:
    yield
    while Driver.started:
        process = Driver.started.pop()
        process.kill()
        process.wait()


class Driver:
    """`attnprof run --executor ray` as a process, its standard error line by line."""

    started: ClassVar[list[subprocess.Popen[bytes]]] = []

    def __init__(self, cluster: Cluster, spec: Path, out: Path, *more: str) -> None:
        self.out, self.log, self.table = out, out.with_suffix(".err"), out.with_suffix(".out")
        words = ["run", str(spec), "--executor", "ray", "--ray-address", cluster.address, "--out", str(out), *more]
        with self.log.open("wb") as errors, self.table.open("wb") as table:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "attnprof", *words], env=cluster.environment, cwd=ROOT, stdout=table, stderr=errors
            )
        self.started.append(self.process)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def until(self, what: Callable[[], bool], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def records(self, name: str = "two") -> dict[str, Record]:
        path = self.out / f"{name}.jsonl"
        return dict(store.load(path).records) if path.exists() else {}

    def ends(self, code: int = 0) -> dict[str, Record]:
        assert self.process.wait(timeout=200) == code, self.said()
        return self.records()


def check(found: dict[str, Record], undisturbed: dict[str, Record]) -> None:
    """Every case is there, ok and measured, on a node; its counts are those of the undisturbed run."""
    assert len(found) == CASES == len(undisturbed)
    counts = {_place(one): one.counts for one in undisturbed.values()}
    for record in found.values():
        assert (record.status, record.detail) == ("ok", ""), record.case
        assert record.counts == counts[_place(record)]
        assert record.timing is not None
        assert record.timing.n >= 10
        assert record.environment["executor"] == "ray"


def test_ray_worker_killed_while_measuring(
    cluster: Cluster, spec: Path, undisturbed: dict[str, Record], tmp_path: Path
) -> None:
    driver = Driver(cluster, spec, tmp_path / "out")
    driver.until(lambda: "[measure 1/" in driver.said())
    driver.until(lambda: bool(cluster.processes("ray::attnprof measure")))
    (victim,) = cluster.processes("ray::attnprof measure")
    children = descendants(victim)
    os.kill(victim, signal.SIGKILL)
    found = driver.ends()
    check(found, undisturbed)
    assert "lost (WorkerCrashedError" in driver.said()
    assert "tried again" in driver.said()
    assert not [pid for pid in children if "attnprof" in command_line(pid)]
    assert driver.table.read_text().startswith("two\n")  # nothing of Ray's stands in the result


@pytest.mark.longest
def test_ray_node_killed_while_measuring(cluster: Cluster, tmp_path: Path) -> None:
    """While a block of seconds is timed: what ends within the second in which Ray's worker outlives its node is not lost."""
    spec = tmp_path / "two.yaml"
    spec.write_text(SPEC.replace("5x5, 7x9, 9x9", "65x65, 66x65, 67x65"))
    undisturbed = traced(spec)
    cluster.start(f"--address={cluster.address}")
    (raylet,) = (pid for pid in cluster.processes("raylet/raylet", node=-1) if "--raylet_socket_name" in command_line(pid))
    driver = Driver(cluster, spec, tmp_path / "out")
    driver.until(lambda: bool(cluster.processes("ray::attnprof measure", node=-1)))
    os.kill(raylet, signal.SIGKILL)
    found = driver.ends()
    check(found, undisturbed)
    assert "lost (" in driver.said()
    assert "tried again" in driver.said()
    assert {record.environment["node"] for record in found.values()}


@pytest.mark.longest
def test_ray_interrupted_gives_what_it_has_and_cancels_the_rest(cluster: Cluster, spec: Path, tmp_path: Path) -> None:
    driver = Driver(cluster, spec, tmp_path / "out")
    driver.until(lambda: "[measure 4/" in driver.said())
    driver.process.send_signal(signal.SIGINT)
    found = driver.ends(130)
    assert len(found) == CASES
    statuses = [record.status for record in found.values()]
    assert set(statuses) == {"ok", "interrupted"}
    assert all(record.counts is not None for record in found.values())
    assert measured(found).keys() == {key for key, record in found.items() if record.status == "ok"}
    assert len(measured(found)) >= 3  # what was said to be measured, but for the record that was on its way
    gone(cluster)


def measured(found: dict[str, Record]) -> dict[str, Record]:
    """Those that were measured: the others stand there with what was counted."""
    return {key: record for key, record in found.items() if record.timing is not None}


def gone(cluster: Cluster) -> None:
    """No task is left on the cluster, nor what a task has started."""
    deadline = time.monotonic() + 20
    while cluster.processes("attnprof.execute.server") or cluster.processes("ray::attnprof"):
        assert time.monotonic() < deadline, [command_line(pid) for pid in cluster.processes("attnprof")]
        time.sleep(0.1)


@pytest.mark.longest
def test_ray_driver_killed_leaves_no_child_and_resume_completes(
    cluster: Cluster, spec: Path, undisturbed: dict[str, Record], tmp_path: Path
) -> None:
    driver = Driver(cluster, spec, tmp_path / "out")
    driver.until(lambda: "[measure 4/" in driver.said())
    driver.process.kill()
    driver.process.wait()
    gone(cluster)
    kept = driver.records()
    assert len(kept) == CASES, "all were counted before the first was measured"
    assert len(measured(kept)) >= 3  # what was said to be measured, but for the line that was being written
    resumed = Driver(cluster, spec, tmp_path / "out", "--resume")
    found = resumed.ends()
    check(found, undisturbed)
    assert all(found[key] == record for key, record in measured(kept).items())
    assert all(found[key].counts == record.counts for key, record in kept.items())
    assert f"the counts of {CASES - len(measured(kept))} more" in resumed.said()
    assert "[trace" not in resumed.said()
    assert len({record.environment["node"] for record in found.values()}) > 1


@pytest.mark.longest
def test_ray_head_killed_is_said_and_what_is_finished_is_kept(spec: Path, tmp_path: Path) -> None:
    with two_nodes() as cluster:
        driver = Driver(cluster, spec, tmp_path / "out")
        driver.until(lambda: "[measure 4/" in driver.said())
        for pid in cluster.processes("gcs_server", node=0):
            os.kill(pid, signal.SIGKILL)
        assert driver.process.wait(timeout=100) != 0
    assert "the head of the Ray cluster is gone" in driver.said()
    assert "--resume" in driver.said()
    assert "Traceback" not in driver.said()
    assert len(measured(driver.records())) >= 4


@pytest.mark.longest
@pytest.mark.timeout(1500)
def test_two_ray_nodes_run_the_segmentation_spec_while_one_is_killed(tmp_path: Path) -> None:
    """Killed in its second block, when there are rows of either node. A short time per cell, so that there are such blocks."""
    from attnprof.execute import run_cases

    spec, short = ROOT / "specs/segmentation.yaml", ["--set", "measure.budget_s=0.5", "--set", "measure.run_budget_s=240"]
    with two_nodes() as cluster:
        driver = Driver(cluster, spec, tmp_path / "out", "--device", "cpu", *short)
        driver.until(lambda: len(_nodes(driver.records("segmentation"))) == 2, seconds=900)
        driver.until(lambda: bool(cluster.processes("ray::attnprof measure", node=1)), seconds=900)
        (raylet,) = (pid for pid in cluster.processes("raylet/raylet", node=1) if "--raylet_socket_name" in command_line(pid))
        os.kill(raylet, signal.SIGKILL)
        assert driver.process.wait(timeout=900) == 0, driver.said()
        found = driver.records("segmentation")
    assert "tried again" in driver.said()
    local = {_place(record): record.counts for record in run_cases(expand(parse_file(str(spec)), "none"))}
    assert {_place(record): record.counts for record in found.values()} == local
    assert all(record.status == "ok" for record in found.values())
    assert all(record.timing is not None or record.detail.startswith("not measured (") for record in found.values())
    timed = {
        name: sum(r.timing is not None and r.environment["node"] == name for r in found.values()) for name in _nodes(found)
    }
    table = (tmp_path / "out" / "segmentation.md").read_text(encoding="utf-8")
    assert "Measured on" in table
    for name, rows in timed.items():
        (letter,) = re.findall(rf"([A-Z]): [^;]*node {name[:6]} \({rows} rows?\)", table)
        assert len(re.findall(rf"^\|.*\| {letter} +\|", table, re.MULTILINE)) == rows, name
    print(timed)


def _place(record: Record) -> tuple[str, Shape, str]:
    return record.case.label, record.case.shape, record.case.mode


def _nodes(found: dict[str, Record]) -> set[str]:
    """The nodes that have timed something."""
    return {record.environment["node"] for record in found.values() if record.timing is not None}
