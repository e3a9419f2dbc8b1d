"""Environments that take something for granted away: a home, a locale, plain names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.faults.driver import counts_by_key, records, run, write_sweep

pytestmark = pytest.mark.fault

_NOBODY = """
import os, pwd, runpy, sys
def unknown(*_):
    raise KeyError("no such user")
pwd.getpwuid = pwd.getpwnam = unknown
sys.argv = ["attnprof", *sys.argv[4:]]
runpy.run_module("attnprof", run_name="__main__")
"""


@pytest.mark.parametrize("home", ["-", "/nonexistent", "/proc/1/nothing"], ids=["unset", "missing", "unusable"])
def test_no_home_directory(tmp_path: Path, home: str) -> None:
    """No HOME, nor a user that the machine knows: also where something would be kept there (the probes of calibration)."""
    (tmp_path / "s.yaml").write_text(
        "input: {channels: 8, hw: 5x5}\nmodes: inference\nmechanisms: [se]\nmetrics: [params, macs, calibrated_memory]\n"
        "measure: {budget_s: 0.1, device: cpu}\n"
    )
    unset = dict.fromkeys(("XDG_CACHE_HOME", "ATTNPROF_CACHE", "USER", "LOGNAME"), "-")
    done = run(tmp_path, "run", "s.yaml", "--out", "out", before=[sys.executable, "-c", _NOBODY], HOME=home, **unset)
    assert done.process.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    counted, record = records(tmp_path / "out" / "s.jsonl")
    assert (counted["status"], record["status"]) == ("interrupted", "ok")
    assert record["calibrated"]["peak_bytes"] > 0, record["detail"]
    assert record["timing"]["n"] >= 10


def test_unicode_and_spaces_in_paths(tmp_path: Path) -> None:
    folder = tmp_path / "größe & co → 100 %" / 'it\'s "here"'
    folder.mkdir(parents=True)
    write_sweep(folder, 2, seconds=0.0)
    (folder / "slow.py").rename(folder / "mein modül.py")
    text = (folder / "sweep.yaml").read_text().replace("slow.py", "mein modül.py").replace("name: sweep", "name: 'süß 1'")
    (folder / "ein spec ü.yaml").write_text(text)
    done = run(
        folder, "run", "ein spec ü.yaml", "--allow-import", "mein modül.py:*", "--out", "aus gabe/ä", "--format", "md,csv,json"
    )
    assert done.process.returncode == 0, done.stderr
    (path,) = (folder / "aus gabe" / "ä").glob("*.jsonl")
    assert len(counts_by_key(path)) == 2
    assert {entry.suffix for entry in path.parent.iterdir()} == {".jsonl", ".md", ".csv", ".json"}
    again = run(folder, "report", "aus gabe/ä", "--format", "md")
    assert again.process.returncode == 0, again.stderr
    assert "süß 1" in path.with_suffix(".md").read_text(encoding="utf-8")


def test_locale_c(tmp_path: Path) -> None:
    """A terminal that says it knows ASCII only: no UnicodeEncodeError, files in UTF-8 all the same."""
    write_sweep(tmp_path, 2, seconds=0.0)
    text = (tmp_path / "sweep.yaml").read_text()
    (tmp_path / "sweep.yaml").write_text(
        text.replace("}}", "}, as: 'größe'}").replace("measure: {device: none}", "measure: {budget_s: 0.1, device: cpu}")
    )
    plain = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run(tmp_path, "run", "sweep.yaml", "--allow-import", "slow.py:*", "--out", "out", "--format", "md,csv,json", **plain)
    assert done.process.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert len(counts_by_key(tmp_path / "out" / "sweep.jsonl")) == 2
    assert "größe" in (tmp_path / "out" / "sweep.md").read_text(encoding="utf-8")
    assert "gr" in done.stdout
    for command in (["list"], ["show", "ccnet"], ["validate", "sweep.yaml"], ["run", "gr\u00f6sse.yaml"]):
        said = run(tmp_path, *command, **plain)
        assert said.process.returncode == (2 if command[0] == "run" else 0), said.stderr
        assert "Error: " not in said.stderr.replace("UsageError", ""), said.stderr
    assert os.environ.get("PYTHONUTF8") != "0"
