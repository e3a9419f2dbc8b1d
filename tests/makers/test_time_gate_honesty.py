"""The experiment on the time gate: its slowdown is what it says, it goes on where it stopped, and its report counts right."""

from __future__ import annotations

import math
import statistics
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnprof import stats
from attnprof.execute import Options, run_cases
from attnprof.execute.checkout import checkouts
from attnprof.gate import timing
from attnprof.gate.timed import Judged, row_of
from attnprof.records import Case
from tests.makers import interval_honesty, time_gate_honesty, time_gate_report


def row(condition: str, index: int, ratios: str, low: float, outcome: str, reason: str, again: str = "") -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(time_gate_honesty.FIELDS, "")
    found |= {
        "code": time_gate_honesty.digest(time_gate_honesty.ROOT),
        "condition": condition,
        "index": index,
        "date": "2026-01-01",
        "cpu": "Example",
        "cores": 2,
        "torch": "2.13",
    }
    found |= {"busy_share": 0.5, "seconds": 4.0, "base_s": 0.005, "head_s": 0.005, "ratio": 1.0, "low": low, "high": low + 0.1}
    found |= {"ratios": ratios, "outcome": outcome, "reason": reason, "again": again[:4], "again_ratios": again}
    return found


def macs(folder: Path, mechanism: str) -> int:
    case = replace(time_gate_honesty.CASE, mechanism=f"{folder}/{mechanism}", device="none")
    (record,) = run_cases([case], Options())
    assert record.counts is not None, record.detail
    return record.counts.macs


def test_the_slowdown_is_a_tenth_more_work_by_count() -> None:
    with time_gate_honesty.scratch("slow") as folder, checkouts(folder, "HEAD") as (base, head):
        assert 11 * macs(base.tree, "mine.py:Mine") == 10 * macs(head.tree, "mine.py:Mine") > 0


def test_equal_sides_differ_by_a_comment_only() -> None:
    with time_gate_honesty.scratch("same") as folder:
        assert Path.cwd() == folder
        changed = subprocess.run(["git", "diff", "-U0"], check=True, capture_output=True, text=True).stdout.splitlines()
        lines = [line for line in changed if line[0] in "+-" and line[:3] not in ("+++", "---")]
        assert lines == ['-"""Mine."""', '+"""Mine, of today."""']
    assert Path.cwd() != folder
    assert not folder.exists()


def test_results_are_kept_and_gone_on_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def gate(condition: str, index: int) -> dict[str, Any]:
        asked.append((condition, index))
        return row(condition, index, "1.01 0.99", 0.9, "pass", "WITHIN_TOL")

    monkeypatch.setattr(time_gate_honesty, "gate", gate)
    common = ["--out", str(tmp_path / "x.md"), "--same", "0"]
    time_gate_honesty.main([*common, "--slow", "2"])
    time_gate_honesty.main([*common, "--slow", "3", "--resume"])
    time_gate_honesty.main([*common, "--slow", "9", "--resume", "--seconds", "0"])
    assert asked == [("slow", 0), ("slow", 1), ("slow", 2)]
    assert [found["index"] for found in interval_honesty.load(tmp_path / "x.csv")] == ["0", "1", "2"]
    assert "0 of 3 regressed" in (tmp_path / "x.md").read_text(encoding="utf-8")
    time_gate_honesty.main([*common, "--slow", "1"])
    assert asked[3:] == [("slow", 0)], "without --resume it starts anew"


def test_the_gates_on_record_meet_their_aims() -> None:
    """50 of equal code beside a burner, none regressed; 50 of a tenth more work, 45 or more; and README says how many."""
    rows = interval_honesty.load(time_gate_honesty.ROOT / "reports" / "time_gate_honesty.csv")
    found = {name: [each for each in rows if each["condition"] == name] for name in ("same", "slow")}
    regressed = {name: sum(each["outcome"] == "regressed" for each in own) for name, own in found.items()}
    assert {name: len(own) for name, own in found.items()} == {"same": 50, "slow": 50}
    assert len({each["code"] for each in rows}) == 1, "of one code"
    for each in rows:  # outcomes are what the product's rule says of the ratios beside them
        logs = [math.log(ratio) for ratio in time_gate_report.ratios_of(each)]
        low = sum(logs) / len(logs) - stats.t_quantile(len(logs) - 1, 0.9) * statistics.stdev(logs) / math.sqrt(len(logs))
        assert math.isclose(math.exp(low), float(each["low"]), rel_tol=2e-4)
        assert each["outcome"] != "regressed" or min(float(each["low"]), float(each["again_low"])) > 1.05
    assert regressed["same"] == 0
    assert regressed["slow"] >= 45
    text = " ".join((time_gate_honesty.ROOT / "README.md").read_text(encoding="utf-8").split())
    said = f"none regressed, of 50 with a tenth more work {regressed['slow']} did"
    assert f"of 50 gates of equal code beside a busy neighbour {said}" in text
    report = (time_gate_honesty.ROOT / "reports" / "time_gate_honesty.md").read_text(encoding="utf-8")
    assert report == time_gate_report.render(rows)


def test_the_report_counts_right() -> None:
    rows = [row("same", n, "1.00 1.02 0.98 1.01 0.99", 0.97, "pass", "WITHIN_TOL") for n in range(3)]
    rows += [row("same", 3, "1.20 1.00 0.98 1.01 0.99", 0.95, "warn", "CI_TOO_WIDE")]
    rows += [row("slow", 0, "1.10 1.10 1.11 1.09 1.10", 1.08, "regressed", "CLEAR_GAP", "1.10 1.11 1.09 1.10 1.10")]
    rows += [row("slow", 1, "1.10 1.10 1.11 1.09 1.10", 1.08, "warn", "NOT_CONFIRMED", "1.00 1.01 0.99 1.00 1.00")]
    text = time_gate_report.render([{name: str(value) for name, value in each.items()} for each in rows])
    assert "| same | 0 of 50 regressed | 0 of 4 regressed |" in text
    assert "| slow | at least 45 of 50 regressed | 1 of 2 regressed |" in text
    assert "| outcomes | 3 pass (WITHIN_TOL), 1 warn (CI_TOO_WIDE) |" in text
    assert "| the ratio of one pair of processes above 1.05 | 1 of 4 |" in text
    assert "| the mean over five pairs above 1.05 | 0 of 4 |" in text
    assert "| this gate, without confirming | 2 of 2 |" in text
    assert "| measured again | 2 of 2 |" in text
    assert "Example, 2 cores, torch 2.13" in text
    assert "| pairs of processes per gate, 5 / 50 / 95 % | 10 / 10 / 10 |" in text


def test_a_gate_fills_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through real children, a pair or two, with little time for each."""

    def quick(cases: list[Case], ref: str, folder: Path, options: timing.Options) -> Any:
        few = replace(options, min_processes=2, max_processes=2, sample_s=0.1, confirm=False)
        return timing.time_rows(cases, ref, folder, few)

    monkeypatch.setattr(time_gate_honesty, "time_rows", quick)
    found = time_gate_honesty.gate("same", 0)
    assert set(found) == {name for name in time_gate_honesty.FIELDS if not name.startswith("again")}
    assert len(found["ratios"].split()) == found["processes"] == 2
    assert float(found["low"]) <= float(found["ratio"]) <= float(found["high"])


def test_a_gate_that_measured_nothing_counts() -> None:
    unmeasured = row_of(Judged(time_gate_honesty.CASE, "undecided", None), timing.Options().rule, "warn", "", {})
    found = time_gate_honesty.row_of(unmeasured)
    assert found == {"outcome": "warn", "reason": "CI_TOO_WIDE"}
    rows = [row("slow", 0, "1.10 1.10 1.11 1.09 1.10", 1.08, "regressed", "CLEAR_GAP"), row("slow", 1, "", 0.0, **found)]
    rows[1] |= {"ratio": ""}
    text = time_gate_report.render([{name: str(value) for name, value in each.items()} for each in rows])
    assert "| slow | at least 45 of 50 regressed | 1 of 2 regressed |" in text
    assert "| outcomes | 1 regressed (CLEAR_GAP), 1 warn (CI_TOO_WIDE) |" in text


def test_gates_of_other_code_are_not_gone_on_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def gate(condition: str, index: int) -> dict[str, Any]:
        return row(condition, index, "1.01 0.99", 0.9, "pass", "WITHIN_TOL")

    monkeypatch.setattr(time_gate_honesty, "gate", gate)
    common = ["--out", str(tmp_path / "x.md"), "--same", "0", "--slow"]
    assert time_gate_honesty.main([*common, "1"]) == 0
    monkeypatch.setattr(time_gate_honesty, "digest", lambda _: "another")
    assert time_gate_honesty.main([*common, "1", "--resume"]) == 0, "there is nothing to add: the report alone"
    assert time_gate_honesty.main([*common, "2", "--resume"]) == 1
    assert len(interval_honesty.load(tmp_path / "x.csv")) == 1
