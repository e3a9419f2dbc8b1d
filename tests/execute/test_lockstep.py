"""Pairs of processes, a side each on the code of its checkout: what is timed, and what each fault costs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnprof.errors import AttnprofError
from attnprof.execute.checkout import checkouts
from attnprof.execute.lockstep import BASE, HEAD, Broken, Sampled, time_pair
from attnprof.execute.options import Progress
from attnprof.execute.side import Side, start
from attnprof.gate.rows import Outcome, Reason
from attnprof.gate.timing import Options, time_rows
from attnprof.profiling.measuring import contention
from tests import forked
from tests.repository import QUICK, case, edited, git, mine, worktrees


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sides are forks of this process; that they are fresh interpreters is seen where their heaps and interrupts are tested."""
    monkeypatch.setattr("attnprof.execute.lockstep.start", forked.start_side)


def children() -> set[int]:
    """Processes of ours that are one side of a pair."""
    found = set(forked.alive)
    for listed in Path("/proc/self/task").glob("*/children"):
        for pid in listed.read_text().split():
            if "lockstep_worker" in Path(f"/proc/{pid}/cmdline").read_text():
                found.add(int(pid))
    return found


def test_three_times_the_work_is_a_regression(repository: Path, forks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "mine.py").write_text(edited((repository / "mine.py").read_text()))
    monkeypatch.chdir(repository)
    steps: list[Progress] = []
    options = Options(min_processes=2, max_processes=4, sample_s=0.3, sampling=QUICK)
    (row,) = time_rows([mine("Mine")], "HEAD", repository / "specs", options, steps.append, {"Mine": (4, 5)})
    assert (row.reason, row.outcome) == (Reason.CLEAR_GAP, Outcome.REGRESSED), row
    assert (row.kind, row.metric, row.label, row.point) == ("time", "latency", "Mine", "1x16x32x32 inference")
    assert row.before is not None
    assert row.after is not None
    assert 1.5 < row.after / row.before < 6
    assert (row.line, row.column) == (4, 5)
    assert "confirmed by 2 more" in row.sentence or "confirmed by 4 more" in row.sentence  # of a busy machine
    assert {step.stage for step in steps} == {"time", "confirm"}
    assert worktrees(repository) == 1
    assert children() == set()


def test_every_fault_costs_its_own_row(repository: Path, forks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    text = edited((repository / "mine.py").read_text())
    (repository / "mine.py").write_text(
        text.replace("class BaseRaises(Mine):\n    forward = None", "class BaseRaises(Mine): pass")
    )
    monkeypatch.chdir(repository)
    names = ["Mine", "HeadRaises", "BaseRaises", "BothRaise", "Killed", "Hangs", "NotFinite", "Later", "New"]
    with checkouts(repository, "HEAD") as sides:
        found = time_pair([mine(name) for name in names], sides, replace(QUICK, timeout_s=4.0), 0, 0.1)
    by_name = {name: found[mine(name).key] for name in names}
    good = by_name["Mine"]
    assert isinstance(good, Sampled)
    assert len(good.base_s) == len(good.head_s) >= 5
    assert good.environment["torch"]
    wanted = {
        "HeadRaises": ({HEAD}, "error", "ValueError: no such luck"),
        "BaseRaises": ({BASE}, "error", "TypeError"),
        "BothRaise": ({BASE, HEAD}, "error", "never did"),
        "Killed": ({HEAD}, "crashed", "killed by SIGKILL"),
        "Hangs": ({HEAD}, "timeout", "killed after 4 s"),
        "NotFinite": ({HEAD}, "invalid_output", "not finite"),
        "Later": ({HEAD}, "crashed", "words"),
        "New": ({BASE}, "error", "has no 'New'"),
    }
    for name, (sides_, status, words) in wanted.items():
        broken = by_name[name]
        assert isinstance(broken, Broken), (name, broken)
        assert set(broken.failures) == sides_, (name, broken)
        for said in broken.failures.values():
            assert said[0] == status, (name, broken)
            assert words in said[1], (name, broken)
        assert broken.absent == ({BASE} if name == "New" else set()), name
    assert children() == set()


def test_a_child_that_does_not_start_costs_the_points_of_its_pair(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = 0

    def doomed(name: str, order: Mapping[str, Any]) -> Side:
        nonlocal began
        began += 1
        side = start(name, order)
        side.process.kill()  # as the kernel does where memory is short
        return side

    monkeypatch.setattr("attnprof.execute.lockstep.start", doomed)
    monkeypatch.chdir(repository)
    cases = [mine("Mine"), mine("HeadRaises"), case("other", "mine.py:Mine", settings={"threads": 2})]
    with checkouts(repository, "HEAD") as sides:
        found = time_pair(cases, sides, QUICK, 0, 0.1)
    assert began == 4  # a pair of processes for each number of threads
    for each in cases:
        broken = found[each.key]
        assert isinstance(broken, Broken)
        assert set(broken.failures) == {BASE, HEAD}
        for status, detail in broken.failures.values():
            assert status == "crashed"
            assert detail.startswith("the process does not start: killed by SIGKILL")
        assert not broken.absent
    assert children() == set()


def test_a_childs_heap_keeps_what_it_had(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 MiB at the top of the heap: given back and faulted in again by every pass where the C library is left to itself."""
    holds = "class Holds(Mine):\n    def forward(self, x):\n        more = [x.new_zeros(2**18) for _ in range(8)]\n"
    with (repository / "mine.py").open("a") as text:
        text.write(f"{holds}        return x + more[0][0]\n")
    git(repository, "commit", "-aqm", "holds")
    monkeypatch.chdir(repository)

    def page_faults() -> dict[str, float]:
        with checkouts(repository, "HEAD") as sides:
            (found,) = time_pair([mine("Holds")], sides, QUICK, 0, 0.1).values()
        assert isinstance(found, Sampled), found
        return dict(found.environment["page_faults"])

    assert max(page_faults().values()) < 50
    for name, its_own in (("TRIM_THRESHOLD", 2**17), ("TOP_PAD", 2**17)):  # what is set already stays
        monkeypatch.setenv(f"MALLOC_{name}_", str(its_own))
    assert max(page_faults().values()) > 200  # of one side or both: as their heaps happen to lie


@pytest.mark.parametrize("waits_s", [0.0, 1.0])
def test_a_side_that_waited_for_its_core_says_so(
    repository: Path, forks: None, monkeypatch: pytest.MonkeyPatch, waits_s: float
) -> None:
    passes = itertools.count()
    monkeypatch.setattr(contention, "waited_s", lambda: waits_s * next(passes))
    monkeypatch.chdir(repository)
    with checkouts(repository, "HEAD") as sides:
        (found,) = time_pair([mine("Mine")], sides, QUICK, 0, 0.1).values()
    assert isinstance(found, Sampled), found
    assert (contention.BUSY in found.warnings) is bool(waits_s)


def test_an_interrupt_leaves_nothing_behind(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    began: list[set[int]] = []

    def interrupt(*_: Any) -> Any:
        began.append(children())
        raise KeyboardInterrupt

    monkeypatch.setattr("attnprof.execute.lockstep._time_case", interrupt)
    with pytest.raises(KeyboardInterrupt):
        time_rows([mine("Mine")], "HEAD", repository, Options(sampling=QUICK))
    assert len(began[0]) == 2
    assert children() == set()
    assert worktrees(repository) == 1


def test_which_side_goes_first_alternates(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[str] = []

    def note(name: str, order: Any) -> Any:
        named.append(name)
        raise AttnprofError("enough")

    monkeypatch.setattr("attnprof.execute.lockstep.start", note)
    monkeypatch.chdir(repository)
    with checkouts(repository, "HEAD") as sides:
        for number in range(4):
            with pytest.raises(AttnprofError, match="enough"):
                time_pair([mine("Mine")], sides, QUICK, number, 0.1)
    assert named == [HEAD, BASE, HEAD, BASE]
