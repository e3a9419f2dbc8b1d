"""Ctrl-C once and twice, and a reader of stdout that goes away."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.driver import counts_by_key, records, run, start, wait_for_records, workers_of, write_sweep

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
