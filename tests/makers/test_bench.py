"""The benchmark's report: its structure on a run with small sizes. Nothing here depends on how fast the machine is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import forked
from tests.makers import bench

TOOLS = (bench.OURS, *bench.REAL, *bench.META)


def tables(text: str) -> dict[str, list[list[str]]]:
    """{heading: rows of cells}, head and rule left out."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("## "):
            heading = line[3:]
            found[heading] = []
        elif line.startswith("| "):
            found[heading].append([cell.strip() for cell in line.strip("|").split(" | ")])
    return {name: rows[2:] for name, rows in found.items()}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a small run. What a call adds to a process is asked in forks: the numbers are not looked at here, and a
    fresh interpreter for each tool imports torch first. The times and the commands have fresh ones.
    """
    fresh = bench.child

    def child(sizes: bench.Sizes, *task: str) -> dict[str, Any]:
        if task[0] != "grow":
            return fresh(sizes, *task)
        answer: dict[str, Any] = forked.answer_of(lambda: bench.grow(task[1], task[2], sizes))
        return answer

    out: Path = tmp_path_factory.mktemp("bench") / "new" / "bench.md"
    sizes = ["--modules", "nonlocal", "--channels", "64", "--side", "12", "--large", "20"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bench, "child", child)
        bench.main(["--out", str(out), *sizes, "--n-real", "1", "--n-meta", "2", "--n-commands", "1", "--n-warm", "0"])
    return out.read_text(encoding="utf-8")


def test_every_tool_has_its_rows(text: str) -> None:
    times, memory, _ = tables(text).values()
    for rows in (times, memory):
        assert [(row[0], row[1]) for row in rows] == [("nonlocal", tool) for tool in TOOLS]
    for row in times[1:]:
        assert row[6] in ("yes", "no") or row[3].startswith("not available")


def test_n_and_aims_are_stated(text: str) -> None:
    times, memory, commands = tables(text).values()
    assert [row[2] for row in times if row[1] in (bench.OURS, *bench.META)] == ["2", "2"]
    assert [row[5] for row in times if row[1] in bench.META] == ["≥ 2"]
    assert {row[4] for row in memory[1:]} <= {"≥ 10", ""}
    assert [row[1] for row in commands] == ["1"] * 6
    assert [row[6] for row in commands] == ["", "≤ 1.2", "≤ 1.1", "", "≤ 2.5", "≤ 2.5"]
    assert commands[2][9] == "≤ 350 MB"


def test_our_macs_are_the_formulas(text: str) -> None:
    memory = list(tables(text).values())[1]
    assert memory[0][7] == "0"
    places, channels = 12 * 12, 64
    assert memory[0][6] == f"{4 * places * channels * 32 + 2 * places**2 * 32:,}"


def test_no_paths_in_the_report(text: str) -> None:
    assert str(Path.home()) not in text
    assert str(bench.ROOT) not in text


def test_ratios_are_taken_pair_by_pair() -> None:
    assert bench.ratios([2.0, 9.0, 8.0], [1.0, 3.0, 2.0]) == [2.0, 3.0, 4.0]


def test_aims() -> None:
    assert bench.Aim(100).met(100) == "yes"
    assert bench.Aim(100).met(99.9) == "no"
    assert bench.Aim(1.2, least=False).met(1.2) == "yes"
    assert bench.Aim(1.2, least=False).met(1.21) == "no"
    assert bench.Aim(1.2, least=False).text() == "≤ 1.2"


def test_a_tool_that_does_not_work_is_a_row() -> None:
    alone = {"nonlocal": {bench.OURS: [1.0]}}
    times = {"real": alone, "meta": alone, "failed": {"nonlocal": {"fvcore": "ImportError: no"}}}
    rows = bench.time_rows(times, "nonlocal")
    assert [row[3] for row in rows if row[1] == "fvcore"] == ["not available: ImportError: no"]
    answers: dict[str, dict[str, Any]] = {
        bench.OURS: {"bytes": 1, "macs": 2, "formula": 2},
        "fvcore": {"failed": "ImportError: no"},
    }
    assert bench.memory_rows(answers, "nonlocal")[1][2] == "not available: ImportError: no"
