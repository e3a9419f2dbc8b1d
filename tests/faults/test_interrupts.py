"""Ctrl-C once and twice, at a terminal and without one, a scheduler's SIGTERM, and a reader of stdout that goes away."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.driver import Driver, counts_by_key, records, run, start, wait_for_records, workers_of, write_sweep
from tests.repository import worktrees

pytestmark = pytest.mark.fault

COMMAND = ("run", "sweep.yaml", "--allow-import", "slow.py:*", "--out", "out", "--jobs", "2")


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_once_and_twice(tmp_path: Path, times: int) -> None:
    write_sweep(tmp_path, 16)
    store = tmp_path / "out" / "sweep.jsonl"
    driver = start(tmp_path, *COMMAND)
    wait_for_records(store, 3)
    servers, _ = workers_of(driver)
    if times == 2:  # a server that does not answer keeps the driver at dealing with the first one
        os.kill(servers[0], signal.SIGSTOP)
        driver.kill(signal.SIGINT)
        time.sleep(0.5)
    driver.kill(signal.SIGINT)
    assert driver.wait() == 130
    if times == 2:
        os.kill(servers[0], signal.SIGCONT)
    assert "Traceback" not in driver.stderr
    assert ("interrupted twice: left at once" in driver.stderr) == (times == 2)
    assert "--resume" in driver.stderr
    driver.wait_until_nobody_is_left()
    done = counts_by_key(store)
    assert 3 <= len(done) < 16
    again = run(tmp_path, *COMMAND, "--resume")
    assert again.process.returncode == 0
    assert f"[trace {16 - len(done)}/{16 - len(done)}]" in again.stderr
    assert len(counts_by_key(store)) == 16
    assert {record["case"]["key"] for record in records(store)} == set(counts_by_key(store))


def test_stdout_closed_early_loses_no_record(tmp_path: Path) -> None:
    write_sweep(tmp_path, 4, seconds=0.0)
    driver = start(tmp_path, *COMMAND, "--json", reader_gone=True)
    assert driver.wait() == 141, driver.stderr
    assert "Traceback" not in driver.stderr
    assert len(counts_by_key(tmp_path / "out" / "sweep.jsonl")) == 4
    assert (tmp_path / "out" / "sweep.md").is_file(), "the reports are written before anything is printed"


TERMINAL: dict[str, Any] = {"terminal": True, "TERM": "xterm", "NO_COLOR": "-"}


def said_at_the_end(driver: Driver) -> int:
    """Cases that an interrupted run says are done, with what to do."""
    (done,) = re.findall(r"interrupted: (\d+) of \d+ cases are done\b.*\. Run it again with --resume", driver.stderr)
    return int(done)


def test_ctrl_c_at_a_terminal_while_it_measures(tmp_path: Path) -> None:
    """All of the foreground gets the signal, the children too, and the bar is a thread of its own."""
    write_sweep(tmp_path, 1, seconds=0.01, device="cpu", blocks=6)
    store = tmp_path / "out" / "sweep.jsonl"
    driver = start(tmp_path, *COMMAND, **TERMINAL)
    wait_for_records(store, 6 + 1)
    before = store.read_bytes()
    driver.press_ctrl_c()
    assert driver.wait() == 130, driver.stderr
    driver.wait_until_nobody_is_left()
    assert "\x1b[" in driver.stderr, "it had a bar"
    assert "Traceback" not in driver.stderr
    assert store.read_bytes().startswith(before)
    assert 1 <= said_at_the_end(driver) == len(counts_by_key(store)) < 6
    assert {record["status"] for record in records(store) if record["timing"] is None} == {"interrupted"}
    assert "interrupted" in driver.stdout, "the table says which are not measured"


STRIKES = """
import os, signal, stat, sys, time
from attnprof.__main__ import main
from attnprof.store import writer

sync = os.fsync

def strikes(descriptor):
    there = os.pread(descriptor, 10**7, 0) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    if b'"status":"ok"' in there and not os.path.exists("struck"):
        with open("struck", "wb") as file:
            file.write(there.splitlines()[-1])
        assert len(os.listdir("/proc/self/task")) > 1, "one thread would take the signal by itself"
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)  # for another thread to take it
    sync(descriptor)

writer.os.fsync = strikes
sys.argv = sys.argv[3:]
main()
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_ctrl_c_at_a_terminal_while_a_record_is_written(tmp_path: Path) -> None:
    """The record is what the last minute's measuring was for: it is written to its end, whichever thread the signal meets."""
    write_sweep(tmp_path, 1, seconds=0.01, device="cpu", blocks=3)
    driver = start(tmp_path, *COMMAND, before=[sys.executable, "-c", STRIKES], **TERMINAL)
    assert driver.wait() == 130, driver.stderr
    assert "Traceback" not in driver.stderr
    lines = (tmp_path / "out" / "sweep.jsonl").read_bytes().splitlines()
    assert (tmp_path / "struck").read_bytes() in lines
    assert said_at_the_end(driver) == len(counts_by_key(tmp_path / "out" / "sweep.jsonl")) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_sigterm_and_sighup_end_a_run_in_order(tmp_path: Path, number: signal.Signals) -> None:
    """A scheduler's time limit, a connection that is gone: as Ctrl-C."""
    write_sweep(tmp_path, 16)
    store = tmp_path / "out" / "sweep.jsonl"
    driver = start(tmp_path, *COMMAND)
    wait_for_records(store, 3)
    driver.kill(number)
    assert driver.wait() == 130, driver.stderr
    driver.wait_until_nobody_is_left()
    assert "Traceback" not in driver.stderr
    done = counts_by_key(store)
    assert 3 <= said_at_the_end(driver) == len(done) < 16
    assert (tmp_path / "out" / "sweep.md").is_file(), "what there is, is reported"
    if number == signal.SIGHUP:
        return
    again = run(tmp_path, *COMMAND, "--resume")
    assert again.process.returncode == 0, again.stderr
    assert f"[trace {16 - len(done)}/{16 - len(done)}]" in again.stderr
    assert len(counts_by_key(store)) == 16


GATED = """\
name: own
input: {channels: 16, hw: [32x32]}
modes: inference
mechanisms:
  - {import: "../mine.py:Mine", as: mine}
measure: {device: cpu}
claims: [macs >= 1]
"""
GATE = (
    "gate",
    "specs/own.yaml",
    "--base-ref",
    "HEAD",
    "--allow-import",
    "*",
    "--report-json",
    "gate.json",
    "--junit",
    "gate.xml",
)


def test_sigterm_to_a_gate_that_times_leaves_its_reports(repository: Path) -> None:
    """A CI job that is cancelled: what was judged until then is in the files, and nothing of the base is left."""
    (repository / "specs" / "own.yaml").write_text(GATED)
    driver = start(repository, *GATE)
    deadline = time.monotonic() + 60
    while "lockstep_worker" not in "".join(map(_command, driver.family())):
        assert time.monotonic() < deadline, driver.stderr
        time.sleep(0.05)
    driver.kill(signal.SIGTERM)
    assert driver.wait() == 130, driver.stderr
    driver.wait_until_nobody_is_left()
    assert "Traceback" not in driver.stderr
    said = {row["class"]: row["reason"] for row in json.loads((repository / "gate.json").read_text())["rows"]}
    assert said == {"claims": "CLAIM_HOLDS", "time": "INTERRUPTED"}
    assert "interrupted while latency was measured" in (repository / "gate.xml").read_text()
    assert "interrupted while latency was measured" in " ".join(driver.stdout.split())
    assert worktrees(repository) == 1


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""  # it has gone
