"""kill -9 at random moments, of whoever takes part in a run."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.faults.driver import (
    Driver,
    counts_by_key,
    last_of_each,
    records,
    run,
    start,
    wait_for_records,
    workers_of,
    write_sweep,
)

pytestmark = [pytest.mark.fault, pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")]

Check = Callable[[Path, Path], None]  # of a run's folder and of that of the run that nobody disturbed
COMMAND = ("run", "sweep.yaml", "--allow-import", "slow.py:*", "--out", "out", "--jobs", "2")


def kill_at_random(folder: Path, kills: int, chance: random.Random, longest_s: float, check: Check) -> tuple[int, int]:
    """Start the sweep, kill -9 it at a random moment, go on with --resume, until it was killed so often; then let it end.

    What had been on the disk at a kill must be there ever after, byte for byte. (kills that struck, runs that were through
    before they did; a sweep that is through begins anew.)
    """
    store = folder / "out" / "sweep.jsonl"
    struck = through = 0
    kept = b""
    while struck < kills:
        driver = start(folder, *COMMAND, "--resume", "-q")
        # half of the kills strike the start and the end of a run too, half of them between its first record and its last
        if chance.random() < 0.5:
            time.sleep(chance.uniform(0.0, longest_s))
        else:
            seen = _records_in(store)
            while driver.process.poll() is None and _records_in(store) == seen:
                time.sleep(0.005)
            time.sleep(chance.uniform(0.0, 1.0))
        before = store.read_bytes() if store.exists() else b""
        if driver.process.poll() is None:
            driver.kill()
            assert driver.wait() in (-signal.SIGKILL, 0)  # it may have ended in between
        assert before.startswith(kept), "what an earlier run left is gone"
        if driver.process.returncode == 0:
            through += 1
            check(folder, folder / "undisturbed")
            store.unlink()
            kept = b""
            continue
        struck += 1
        driver.wait_until_nobody_is_left()
        kept = before[: before.rfind(b"\n") + 1]
        assert store.read_bytes().startswith(kept) if kept else True, "what was on the disk is gone"
        counts_by_key(store) if store.exists() and not _torn(store) else None
    last = run(folder, *COMMAND, "--resume")
    assert last.process.returncode == 0, last.stderr
    assert store.read_bytes().startswith(kept), "what the killed run left is gone"
    return struck, through


def _records_in(store: Path) -> int:
    return store.read_bytes().count(b'"kind":"record"') if store.exists() else 0


def _torn(store: Path) -> bool:
    return not store.read_bytes().endswith(b"\n")


def check_traced(folder: Path, undisturbed: Path) -> None:
    """0 lost, 0 twice, 0 torn, and every count as in the run that nobody disturbed."""
    found, wanted = (counts_by_key(place / "out" / "sweep.jsonl") for place in (folder, undisturbed))
    assert found == wanted
    assert len(records(folder / "out" / "sweep.jsonl")) == len(wanted)


def check_measured(folder: Path, undisturbed: Path) -> None:
    """The same of a run that measures: each is counted once, which may have been said before it was measured, and timed.

    Twice only where a kill struck between two records of its block: all that are compared were timed together.
    """
    found, wanted = (counts_by_key(place / "out" / "sweep.jsonl") for place in (folder, undisturbed))
    assert found == wanted
    by_key: dict[str, list[Mapping[str, Any]]] = {}
    for record in records(folder / "out" / "sweep.jsonl"):
        by_key.setdefault(record["case"]["key"], []).append(record)
    together: dict[str, set[str]] = {}
    for key, of_one in by_key.items():
        statuses = [record["status"] for record in of_one]
        assert set(statuses[1:]) <= {"ok"}
        assert statuses[-1] == "ok"
        together.setdefault(json.dumps(of_one[-1]["case"]["shape"]), set()).add(of_one[-1]["timing"]["block"])
        assert [record["counts"] for record in of_one] == [wanted[key]] * len(of_one)
    assert all(len(blocks) == 1 for blocks in together.values()), "no ratio is lost to a kill"


def _random_kills(folder: Path, kills: int, seed: int, check: Check = check_traced, **sweep: Any) -> None:
    undisturbed = folder / "undisturbed"
    undisturbed.mkdir()
    for place in (folder, undisturbed):
        write_sweep(place, **sweep)
    began = time.monotonic()
    calm = run(undisturbed, *COMMAND)
    assert calm.process.returncode == 0, calm.stderr
    assert len(counts_by_key(undisturbed / "out" / "sweep.jsonl")) == sweep["cases"] * sweep.get("blocks", 1)
    struck, through = kill_at_random(folder, kills, random.Random(seed), time.monotonic() - began, check)
    check(folder, undisturbed)
    print(f"{struck} kills, {through} runs that were through before their kill")


def test_kill_9_of_the_driver_at_random_moments(tmp_path: Path) -> None:
    _random_kills(tmp_path, cases=16, kills=2, seed=1)


def test_kill_9_of_a_driver_that_measures_at_random_moments(tmp_path: Path) -> None:
    _random_kills(tmp_path, kills=2, seed=5, check=check_measured, cases=2, blocks=3, seconds=0.01, device="cpu")


@pytest.mark.longest
@pytest.mark.timeout(3600)
def test_20_kills_of_a_driver_that_measures_at_random_moments(tmp_path: Path) -> None:
    _random_kills(tmp_path, kills=20, seed=2, check=check_measured, cases=4, blocks=8, seconds=0.01, device="cpu")


@pytest.mark.longest
@pytest.mark.timeout(3600)
def test_60_kills_of_the_driver_at_random_moments(tmp_path: Path) -> None:
    _random_kills(tmp_path, cases=400, kills=60, seed=2)


@pytest.mark.parametrize(("moment", "seconds", "at_records"), [("while it counts", 0.15, 2), ("while it measures", 0.01, 5)])
def test_a_run_that_measures_counts_no_case_twice_for_a_kill_9(
    tmp_path: Path, moment: str, seconds: float, at_records: int
) -> None:
    """What is counted is on the disk before its turn to be measured comes."""
    block, cases, store = 2, 4, tmp_path / "out" / "sweep.jsonl"
    write_sweep(tmp_path, block, seconds, device="cpu", blocks=2)
    driver = start(tmp_path, *COMMAND)
    wait_for_records(store, at_records)
    driver.kill()
    driver.wait()
    driver.wait_until_nobody_is_left()
    there = len({record["case"]["key"] for record in records(store) if record["counts"] is not None})
    assert (there < cases) == (moment == "while it counts")
    ended = sum(record["status"] == "ok" for record in records(store))
    before = [record for record in records(store) if record["status"] == "interrupted"]
    assert before
    assert "still under way" in before[0]["detail"]
    quick = ("--set", "measure.run_budget_s=0.1") if seconds > 0.1 else ()
    last = run(tmp_path, *COMMAND, "--resume", *quick)
    assert last.process.returncode == 0, last.stderr
    assert f"counts of {there - ended // block * block} more" in last.stderr, "a block that was cut is timed again as a whole"
    assert (f"[trace {cases - there}/{cases - there}]" if there < cases else "[measure") in last.stderr
    assert ("[trace" in last.stderr) == (there < cases)
    found = records(store)
    assert sum(record["status"] == "interrupted" for record in found) == cases, "each is counted once"
    final = last_of_each(found).values()
    macs = {(record["case"]["args"]["n"], record["case"]["shape"]["height"]): record["counts"]["macs"] for record in final}
    assert macs == {(n, height): 8 * (8 + n) * height * 5 for n in range(block) for height in (5, 6)}
    assert {record["status"] for record in final} == {"ok"}
    assert all(record["timing"] is not None for record in final) == (not quick)


def test_kill_9_of_a_child_costs_its_case_and_resume_counts_it(tmp_path: Path) -> None:
    write_sweep(tmp_path, 12)
    store = tmp_path / "out" / "sweep.jsonl"
    driver = start(tmp_path, *COMMAND)
    wait_for_records(store, 2)
    _, children = workers_of(driver)
    os.kill(random.Random(3).choice(children), signal.SIGKILL)
    assert driver.wait() == 5, driver.stderr
    lost = [record for record in records(store) if record["status"] != "ok"]
    assert len(records(store)) == 12
    assert [record["status"] for record in lost] == ["crashed"]
    assert "SIGKILL" in lost[0]["detail"]
    assert "crashed" in driver.stdout
    again = run(tmp_path, *COMMAND, "--resume")
    assert again.process.returncode == 0, again.stderr
    assert len(counts_by_key(store)) == 12


def test_kill_9_of_the_fork_server_costs_nothing(tmp_path: Path) -> None:
    write_sweep(tmp_path, 12)
    store = tmp_path / "out" / "sweep.jsonl"
    driver = start(tmp_path, *COMMAND)
    wait_for_records(store, 2)
    servers, children = workers_of(driver)
    assert len(servers) == 1
    os.kill(servers[0], signal.SIGKILL)
    assert driver.wait() == 0, driver.stderr
    assert len(counts_by_key(store)) == len(records(store)) == 12
    assert not set(children) & set(driver.family())


DAEMON = """
import os, time
from torch import nn

class Daemon(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 1)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(300)
            os._exit(0)

    def forward(self, x):
        return self.layer(x)
"""


@pytest.mark.parametrize("ends", ["by itself", "by kill -9"])
def test_no_orphan_outlives_the_run(tmp_path: Path, ends: str) -> None:
    """A module that starts a daemon with a session of its own: it would hold the device for as long as it likes."""
    write_sweep(tmp_path, 8)
    (tmp_path / "daemon.py").write_text(DAEMON)
    sweep = (tmp_path / "sweep.yaml").read_text().replace("mechanisms:\n", "mechanisms:\n  - {import: 'daemon.py:Daemon'}\n")
    (tmp_path / "sweep.yaml").write_text(sweep)
    driver: Driver = start(tmp_path, *COMMAND, "--allow-import", "daemon.py:*", "--jobs", "1")
    wait_for_records(tmp_path / "out" / "sweep.jsonl", 2)
    assert len(driver.family()) >= 3, "the server, its child and the daemon"
    if ends == "by kill -9":
        driver.kill()
    driver.wait()
    driver.wait_until_nobody_is_left()
