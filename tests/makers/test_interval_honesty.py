"""The experiment on intervals: its work is what it says, it goes on where it stopped, and its report counts right."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from attnprof.execute import Options, run_cases
from tests.makers import interval_honesty, interval_report, interval_work


def row(condition: str, index: int, logs: list[float], **more: Any) -> dict[str, Any]:
    low, high = interval_report.product(logs)
    found = {
        "condition": condition,
        "index": index,
        "date": "2026-01-01",
        "cpu": "Example",
        "cores": 2,
        "torch": "2.13",
        "threads": 1,
        "busy_share": 0.5,
        "seconds": 4.0,
        "first_s": 0.005,
        "macs_ratio": 1.1 if condition.startswith("slow") else 1,
        "pairs": len(logs),
        "ratio": 1.0,
        "low": math.exp(low),
        "high": math.exp(high),
        "logs": " ".join(str(round(1e4 * log)) for log in logs),
    }
    return found | more


def test_the_slowdown_is_a_tenth_more_work_by_count() -> None:
    cases = interval_honesty.cases_of("slow")
    assert [case.args["units"] for case in cases] == [10, 11]
    traced = run_cases([replace(case, device="none") for case in cases], Options())
    macs = {record.case.label: record.counts.macs for record in traced if record.counts is not None}
    assert 11 * macs["A"] == 10 * macs["B"] > 0


def test_repeats_apply_the_block_so_often() -> None:
    module, x = interval_work.Repeats(64, units=3).eval(), torch.randn(1, 64, 5, 5)
    with torch.no_grad():
        assert torch.equal(module(x), module.block(module.block(module.block(x))))


def test_equal_cases_are_told_apart_by_label_only() -> None:
    first, again = interval_honesty.cases_of("quiet")
    assert first.block == again.block
    assert first.key != again.key
    assert (first.mechanism, dict(first.args)) == (again.mechanism, dict(again.args))


def test_results_are_kept_and_gone_on_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def compare(condition: str, index: int) -> dict[str, Any]:
        asked.append((condition, index))
        return row(condition, index, [0.01, -0.02, 0.03, -0.01, 0.0, 0.02, -0.03])

    monkeypatch.setattr(interval_honesty, "compare", compare)
    monkeypatch.setattr(interval_report, "SIMULATED", 2)
    out = tmp_path / "x.md"
    common = ["--out", str(out), "--busy", "0", "--crowded", "0", "--slow", "0", "--placement", "0"]
    interval_honesty.main([*common, "--quiet", "2"])
    interval_honesty.main([*common, "--quiet", "3", "--resume"])
    interval_honesty.main([*common, "--quiet", "9", "--resume", "--seconds", "0"])
    assert asked == [("quiet", 0), ("quiet", 1), ("quiet", 2)]
    assert [found["index"] for found in interval_honesty.load(tmp_path / "x.csv")] == ["0", "1", "2"]
    assert "3 of 3 intervals cover 1" in out.read_text(encoding="utf-8")
    interval_honesty.main([*common, "--quiet", "1"])
    assert asked[3:] == [("quiet", 0)], "without --resume it starts anew"


def test_the_report_counts_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interval_report, "SIMULATED", 2)
    level = [0.01 * (-1) ** n * (n % 5 + 1) for n in range(40)]
    above = [log + 0.2 for log in level]
    rows = [row("quiet", n, level) for n in range(3)] + [row("quiet", 3, above)]
    rows += [row("slow", 0, above), row("slow", 1, level)]
    text = interval_report.render([{name: str(value) for name, value in each.items()} for each in rows])
    assert "| found | 3 of 4 intervals cover 1 |" in text
    assert "| found | 1 of 2 intervals lie above 1 |" in text
    assert "| attnprof | 3 of 4 |" in text
    assert "| attnprof | 1 of 2 |" in text
    assert "Example, 2 cores, torch 2.13, threads 1" in text


def test_the_bootstrap_is_that_of_the_median() -> None:
    low, high = interval_report.bootstrap([0.01 * rank for rank in range(-50, 51)])
    assert -0.3 < low < -0.05
    assert 0.05 < high < 0.3


@pytest.fixture
def _same_process() -> Iterator[None]:
    """Cores and threads of this process are put back."""
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    yield
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_same_process")
def test_every_arm_of_the_control_gives_its_pairs() -> None:
    for arm in interval_honesty.ARMS:
        found = interval_work.placement(arm, 0, 3)
        assert len(found) == 3
        assert all(a > 0 and b > 0 for a, b in found)


def test_a_process_of_the_control_becomes_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def ran(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[-4:] == ["placement", "moved", "3", str(interval_honesty.PLACEMENT_ROUNDS)]
        return subprocess.CompletedProcess(command, 0, "[[0.002, 0.001], [0.001, 0.001]]")

    monkeypatch.setattr(subprocess, "run", ran)
    found = interval_honesty.place("moved", 3)
    assert set(found) <= set(interval_honesty.FIELDS)
    assert (found["condition"], found["logs"]) == ("placement moved", "6931 0")


def test_a_comparison_fills_every_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through real children, with little time for each."""
    monkeypatch.setattr(interval_honesty, "BUDGET_S", 0.05)
    found = interval_honesty.compare("slow", 0)
    assert set(found) == set(interval_honesty.FIELDS)
    assert found["macs_ratio"] == "1.1"
    assert len(found["logs"].split()) == found["pairs"] >= 10
    assert float(found["low"]) <= float(found["ratio"]) <= float(found["high"])


def test_the_committed_experiment_meets_its_aims_and_readme_quotes_it() -> None:
    rows = interval_honesty.load(interval_honesty.ROOT / "reports" / "interval_honesty.csv")
    own = {name: [row for row in rows if row["condition"] == name] for name in ("quiet", "busy", "crowded", "slow")}
    assert {name: len(each) for name, each in own.items()} == {"quiet": 200, "busy": 200, "crowded": 200, "slow": 100}
    covering = {name: sum(float(row["low"]) <= 1 <= float(row["high"]) for row in each) for name, each in own.items()}
    told = sum(float(row["low"]) > 1 for row in own["slow"])
    widths = [(float(row["high"]) - float(row["low"])) / 2 / float(row["ratio"]) for row in own["quiet"]]
    assert min(covering["quiet"], covering["busy"], covering["crowded"]) >= 184
    assert statistics.median(widths) <= 0.03
    assert told >= 90
    readme = " ".join((interval_honesty.ROOT / "README.md").read_text(encoding="utf-8").split())
    covered = f"{covering['quiet']}, {covering['busy']} and {covering['crowded']} of 200 intervals cover 1"
    assert f"{covered}; an injected 10 % slowdown is told from 1 in {told} of 100" in readme
