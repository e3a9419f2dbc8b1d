"""The time gate: verdicts from recorded samples, and pairs of processes on the code of two checkouts."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnprof import lockstep_worker
from attnprof.__main__ import main
from attnprof.errors import AttnprofError, UsageError
from attnprof.execute.checkout import Checkout, checkouts, commit_of, localised, orders
from attnprof.execute.lockstep import BASE, HEAD, Broken, Found, Sampled, Sampling, Unfinished, time_pair
from attnprof.execute.options import Progress
from attnprof.execute.side import Side, start
from attnprof.gate import timing
from attnprof.gate.latency import PASSED, REGRESSED, UNDECIDED, Estimate, Pairing, Rule, decide, estimate
from attnprof.gate.rows import Outcome, Reason, Row
from attnprof.gate.timed import row_of
from attnprof.gate.timing import Options, judge, time_rows
from attnprof.profiling import loading
from attnprof.records import Case, Placement, Shape
from tests import forked

RULE = Rule()
ROOT = Path(__file__).resolve().parent.parent


def case(name: str = "a", mechanism: str = "spatial/ccnet", **fields: Any) -> Case:
    given: dict[str, Any] = {"shape": Shape(1, 8, 9, 9), "device": "cpu", "settings": {"sdpa": "auto"}}
    return Case(mechanism, name, {}, **{**given, **fields})


def pairings(*ratios: float) -> list[Pairing]:
    return [Pairing((0.01, 0.01, 0.01), (0.01 * ratio, 0.01 * ratio, 9.0)) for ratio in ratios]


# the estimate and the verdict


def test_a_process_gives_the_median_of_its_rounds_ratios() -> None:
    pairing = Pairing((1.0, 2.0, 4.0), (1.5, 2.2, 40.0))
    assert pairing.ratio == pytest.approx(1.5)


def test_the_interval_is_students_over_processes() -> None:
    logs = [0.00, 0.02, 0.04, 0.06, 0.08]
    found = estimate(pairings(*map(math.exp, logs)), 0.95)
    assert found is not None
    reach = 2.131846786 * math.sqrt(0.001 / 5)  # t of 95 % on one side at 4 degrees of freedom; the variance is 0.001
    assert math.log(found.ratio) == pytest.approx(0.04)
    assert math.log(found.low) == pytest.approx(0.04 - reach)
    assert math.log(found.high) == pytest.approx(0.04 + reach)
    assert (found.processes, found.rounds) == (5, 15)
    assert found.base_s == pytest.approx(0.01)
    assert found.head_s == pytest.approx(0.01 * math.exp(0.04))


def test_one_process_has_no_interval() -> None:
    assert estimate(pairings(2.0), 0.95) is None
    assert estimate([], 0.95) is None


def bounds(low: float, high: float, processes: int = 5) -> Estimate:
    return Estimate(math.sqrt(low * high), low, high, processes, 50, 0.01, 0.01)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.051, 1.20, REGRESSED),
        (1.050, 1.20, UNDECIDED),
        (0.900, 1.049, PASSED),
        (0.900, 1.050, UNDECIDED),
        (1.020, 1.049, PASSED),
        (0.500, 0.600, PASSED),
        (1.049, 1.051, UNDECIDED),
    ],
)
def test_verdicts_at_their_bounds(low: float, high: float, verdict: str) -> None:
    assert decide(bounds(low, high), RULE) == verdict


def test_fewer_processes_than_the_least_decide_nothing() -> None:
    assert decide(bounds(2.0, 3.0, processes=4), RULE) == UNDECIDED
    assert decide(None, RULE) == UNDECIDED


# measuring until it is decided


def scripted(script: Mapping[str, Sequence[float | Found]]) -> tuple[timing.Sampler, list[tuple[tuple[str, ...], int]]]:
    """A sampler that answers from {label: what each pair finds, a ratio or the thing itself}; and what it was asked."""
    asked: list[tuple[tuple[str, ...], int]] = []
    left = {label: iter(found) for label, found in script.items()}

    def sample(cases: Sequence[Case], number: int, sample_s: float, deadline: float) -> dict[str, Found]:
        asked.append((tuple(each.label for each in cases), number))
        out: dict[str, Found] = {}
        for each in cases:
            one = next(left[each.label])
            out[each.key] = Sampled((0.01,) * 10, (0.01 * one,) * 10) if isinstance(one, float) else one
        return out

    return sample, asked


def rows_of(
    script: Mapping[str, Sequence[float | Found]], options: Options | None = None, clock: Callable[[], float] = lambda: 0.0
) -> tuple[dict[str, Row], list[tuple[tuple[str, ...], int]]]:
    options = options or Options()
    sample, asked = scripted(script)
    judged = judge([case(label) for label in script], sample, options, None, clock)
    rows = [row_of(each, options.rule, options.on_inconclusive, "c0ffee", {"a": (7, 3)}) for each in judged]
    return {row.label: row for row in rows}, asked


SAME = [1.00, 1.01, 0.99, 1.02, 0.98]
SLOWER = [1.10, 1.11, 1.09, 1.12, 1.08]
WIDE = [1.00, 1.10, 0.95, 1.15, 1.05]


def test_an_equal_point_passes_at_the_least_number_of_processes() -> None:
    rows, asked = rows_of({"a": SAME})
    assert (rows["a"].reason, rows["a"].outcome) == (Reason.WITHIN_TOL, Outcome.PASS)
    assert len(asked) == 5
    assert (rows["a"].line, rows["a"].column) == (7, 3)
    assert rows["a"].detail["base_commit"] == "c0ffee"
    assert "within 5 %" in rows["a"].sentence


def test_a_regression_is_confirmed_by_fresh_processes_of_that_point_only() -> None:
    rows, asked = rows_of({"a": SLOWER + SLOWER, "b": SAME})
    assert (rows["a"].reason, rows["a"].outcome) == (Reason.CLEAR_GAP, Outcome.REGRESSED)
    assert rows["b"].outcome is Outcome.PASS
    assert [labels for labels, _ in asked] == [("a", "b")] * 5 + [("a",)] * 5
    numbers = [number for _, number in asked]
    assert len(set(numbers)) == len(numbers)  # no seed twice
    assert rows["a"].before == pytest.approx(0.01)
    assert rows["a"].after == pytest.approx(0.011)
    sentence = rows["a"].sentence
    assert sentence.startswith("a 1x8x9x9 inference: latency 10.0 ms -> 11.0 ms (+10.0 %, ")
    assert "more than 5 % slower, confirmed by 5 more (+10.0 %)" in sentence
    assert rows["a"].detail["confirming"]["verdict"] == REGRESSED


def test_what_a_second_measurement_does_not_find_is_inconclusive() -> None:
    rows, _ = rows_of({"a": SLOWER + SAME}, Options(on_inconclusive="fail"))
    assert (rows["a"].reason, rows["a"].outcome) == (Reason.NOT_CONFIRMED, Outcome.INCONCLUSIVE)
    assert "measured again, latency" in rows["a"].sentence
    rows, asked = rows_of({"a": SLOWER}, Options(confirm=False))
    assert (rows["a"].reason, rows["a"].outcome, len(asked)) == (Reason.CLEAR_GAP, Outcome.REGRESSED, 5)


def test_an_undecided_point_gets_more_processes_up_to_the_most() -> None:
    rows, asked = rows_of({"a": WIDE * 3, "b": SAME})
    assert (rows["a"].reason, rows["a"].outcome) == (Reason.CI_TOO_WIDE, Outcome.WARN)
    assert [labels for labels, _ in asked] == [("a", "b")] * 5 + [("a",)] * 10
    rows, asked = rows_of({"a": [*WIDE, *[1.0] * 10]})
    assert rows["a"].outcome is Outcome.PASS
    assert 5 < len(asked) < 15
    assert len(asked) % 2 == 1  # looked at after 5, 7, 9, ...


@pytest.mark.parametrize(("asked", "outcome"), [("warn", Outcome.WARN), ("fail", Outcome.INCONCLUSIVE), ("pass", Outcome.PASS)])
def test_what_is_undecided_means_what_was_asked_for(asked: str, outcome: Outcome) -> None:
    rows, _ = rows_of({"a": WIDE * 3}, Options(on_inconclusive=asked))
    assert rows["a"].outcome is outcome


def test_a_point_that_became_faster_says_so() -> None:
    rows, _ = rows_of({"a": [0.5, 0.51, 0.49, 0.5, 0.5]})
    assert (rows["a"].reason, rows["a"].outcome) == (Reason.LOWER, Outcome.IMPROVED)


def test_the_budget_ends_it_undecided() -> None:
    ticks = iter(range(0, 10_000, 20))
    rows, asked = rows_of({"a": SAME}, Options(budget_s=120), clock=lambda: float(next(ticks)))
    assert (rows["a"].reason, rows["a"].outcome) == (Reason.BUDGET, Outcome.WARN)
    assert 0 < len(asked) < 5
    assert "raise --budget" in rows["a"].sentence


def test_a_pair_that_ran_out_of_time_counts_for_nothing() -> None:
    rows, _ = rows_of({"a": [Unfinished()] * 15})
    assert rows["a"].before is None
    assert rows["a"].outcome is Outcome.WARN
    assert "not measured" in rows["a"].sentence


def test_what_a_slowed_gpu_gave_is_left_out() -> None:
    slowed = Sampled((0.01,) * 10, (0.05,) * 10, slowed=True, warnings=("hot",))
    rows, asked = rows_of({"a": [slowed, slowed, *SAME, 1.0, 1.0]})
    assert rows["a"].outcome is Outcome.PASS
    assert len(asked) == 7
    assert rows["a"].detail["slowed"] == 2
    rows, _ = rows_of({"a": [slowed] * 15})
    assert (rows["a"].reason, rows["a"].outcome) == (Reason.THROTTLED, Outcome.WARN)


def failing(*sides: str, absent: bool = False) -> Broken:
    return Broken(
        dict.fromkeys(sides, ("error", "ValueError: no such luck\nmine.py:3: raise")), frozenset(sides if absent else ())
    )


@pytest.mark.parametrize(
    ("broken", "reason", "outcome", "words"),
    [
        (failing(HEAD), Reason.FAILED, Outcome.FAILED, "error: ValueError: no such luck mine.py:3: raise (not in the base)"),
        (failing(BASE), Reason.BASE_FAILED, Outcome.INCONCLUSIVE, "it fails in the base: error: ValueError"),
        (failing(BASE, absent=True), Reason.NEW_POINT, Outcome.WARN, "new, not in the base"),
        (failing(BASE, HEAD), Reason.FAILED_BEFORE, Outcome.WARN, "it fails in the base too"),
        (failing(HEAD, absent=True), Reason.FAILED, Outcome.FAILED, "no such luck"),
    ],
)
def test_what_fails_costs_its_own_row(broken: Broken, reason: Reason, outcome: Outcome, words: str) -> None:
    rows, asked = rows_of({"a": [1.0, broken], "b": SAME}, Options(on_inconclusive="fail"))
    assert (rows["a"].reason, rows["a"].outcome) == (reason, outcome)
    assert words in rows["a"].sentence
    assert rows["b"].outcome is Outcome.PASS
    assert [labels for labels, _ in asked] == [("a", "b")] * 2 + [("b",)] * 3


def test_a_failure_while_confirming_confirms_nothing() -> None:
    rows, _ = rows_of({"a": [*SLOWER, failing(BASE)]})
    assert (rows["a"].reason, rows["a"].outcome) == (Reason.NOT_CONFIRMED, Outcome.WARN)
    assert "measured again, base fails: error" in rows["a"].sentence


def test_head_that_fails_while_it_is_confirmed_has_failed() -> None:
    rows, _ = rows_of({"a": [*SLOWER, failing(HEAD)]})
    assert (rows["a"].reason, rows["a"].outcome) == (Reason.FAILED, Outcome.FAILED)
    assert "and fails where it is measured again: error: ValueError: no such luck" in rows["a"].sentence


@pytest.mark.parametrize(("ratio", "outcome"), [(1.0, Outcome.PASS), (1.3, Outcome.WARN)])
def test_many_points_share_the_budget(ratio: float, outcome: Outcome) -> None:
    """40 points whose pairs take 5 s to start and 2 s each beside sampling: 600 s are enough for five pairs, not for ten."""
    now, asked = [0.0], []

    def sample(cases: Sequence[Case], number: int, sample_s: float, deadline: float) -> dict[str, Found]:
        asked.append(sample_s)
        now[0] += 5 + len(cases) * (2 + sample_s)
        return {each.key: Sampled((0.01,) * 10, (0.01 * ratio,) * 10) for each in cases}

    judged = judge([case(f"m{n}") for n in range(40)], sample, Options(), None, lambda: now[0])
    rows = [row_of(each, RULE, "warn", "", {}) for each in judged]
    assert {row.outcome for row in rows} == {outcome}
    assert now[0] <= 620
    if outcome is Outcome.PASS:
        assert len(asked) == 5
    assert min(asked) < max(asked), "later pairs sample for what the first one leaves"


def test_rows_are_plain_json_inside() -> None:
    rows, _ = rows_of({"a": SLOWER + SLOWER, "b": [failing(HEAD)]})
    for row in rows.values():
        assert json.loads(json.dumps(row.detail)) == row.detail


def simulated(change: float, runs: int) -> dict[Outcome, int]:
    """Outcomes of gates whose processes spread by 4.1 %, as was seen on a shared machine."""
    draw, found = random.Random(0), dict.fromkeys(Outcome, 0)

    def sample(cases: Sequence[Case], number: int, sample_s: float, deadline: float) -> dict[str, Found]:
        return {each.key: Sampled((1.0,), (math.exp(draw.gauss(math.log(1 + change), 0.041)),)) for each in cases}

    for _ in range(runs):
        (judged,) = judge([case()], sample, Options(), None, lambda: 0.0)
        found[row_of(judged, RULE, "warn", "", {}).outcome] += 1
    return found


def test_simulated_gates_are_as_honest_as_the_protocol_says() -> None:
    same, slower = simulated(0.0, 200), simulated(0.10, 200)
    assert same[Outcome.REGRESSED] == 0
    assert same[Outcome.PASS] >= 198
    assert slower[Outcome.REGRESSED] >= 194
    assert slower[Outcome.PASS] == 0
    assert simulated(0.05, 200)[Outcome.REGRESSED] <= 10  # exactly the tolerance


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(confidence=0.5), "--confidence 0.5"),
        (Options(confidence=1.0), "--confidence 1"),
        (Options(min_processes=1), "--min-processes 1"),
        (Options(min_processes=6, max_processes=5), "--max-processes 5 is less"),
    ],
)
def test_options_that_decide_nothing_are_refused(options: Options, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        time_rows([case()], "HEAD", tmp_path, options)


def test_a_case_without_a_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--device cpu"):
        time_rows([case(device="none")], "HEAD", tmp_path)


# the two checkouts

MINE = """
import ctypes, os, signal, time
from torch import nn

class Mine(nn.Module):
    UNITS = 20
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
    def forward(self, x):
        for _ in range(self.UNITS):
            x = self.conv(x)
        return x

class HeadRaises(Mine): pass
class BaseRaises(Mine): pass
class BothRaise(Mine):
    def forward(self, x): raise ValueError("never did")
class Killed(Mine): pass
class Hangs(Mine): pass
class NotFinite(Mine): pass
class Later(Mine): pass
"""
EDITS = {
    "UNITS = 20": "UNITS = 60",
    "class HeadRaises(Mine): pass": "class HeadRaises(Mine):\n    def forward(self, x): raise ValueError('no such luck')",
    "class Killed(Mine): pass": "class Killed(Mine):\n    def forward(self, x): os.kill(os.getpid(), signal.SIGKILL)",
    "class Hangs(Mine): pass": "class Hangs(Mine):\n    def forward(self, x): time.sleep(100)",
    "class NotFinite(Mine): pass": "class NotFinite(Mine):\n    def forward(self, x): return super().forward(x) / 0",
    "class Later(Mine): pass": (
        "class Later(Mine):\n    runs = 0\n    def forward(self, x):\n        self.runs += 1\n        print('words')\n"
        "        if self.runs > 3: ctypes.string_at(0)\n        return super().forward(x)\n"
        "class New(Mine): pass"
    ),
}
QUICK = Sampling(min_rounds=5, warmup_s=0.1, timeout_s=5.0)


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    command = ["git", "-C", str(folder), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a user's module, committed; its working tree is clean."""
    folder = tmp_path / "repo"
    (folder / "specs").mkdir(parents=True)
    (folder / "mine.py").write_text(MINE.replace("class BaseRaises(Mine): pass", "class BaseRaises(Mine):\n    forward = None"))
    (folder / "specs" / "own.yaml").write_text("name: own\n")
    (folder / ".gitignore").write_text("built\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "base")
    return folder


def edited(text: str) -> str:
    for before, after in EDITS.items():
        assert before in text
        text = text.replace(before, after)
    return text


def mine(name: str) -> Case:
    return case(name, f"mine.py:{name}", shape=Shape(1, 16, 32, 32))


def worktrees(folder: Path) -> int:
    return git(folder, "worktree", "list", "--porcelain").count("worktree ")


def test_the_base_is_the_commit_and_head_the_working_tree(repository: Path) -> None:
    (repository / "mine.py").write_text("changed, not committed")
    (repository / "new.py").write_text("new")
    hook = repository / ".git" / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {repository}/hook-was-run\n")
    hook.chmod(0o755)
    with checkouts(repository / "specs", "HEAD") as (base, head):
        assert (base.tree / "mine.py").read_text().startswith(MINE[:20])
        assert not (base.tree / "new.py").exists()
        assert (head.tree, head.home, base.home) == (repository, repository, repository)
        assert base.commit == git(repository, "rev-parse", "HEAD")
        assert base.moved(repository / "specs" / "x") == base.tree / "specs" / "x"
        assert base.moved(Path("/elsewhere/x")) == Path("/elsewhere/x")
        assert worktrees(repository) == 2
    assert worktrees(repository) == 1
    assert not base.tree.exists()
    assert not base.tree.parent.exists()
    assert not (repository / "hook-was-run").exists()
    assert (repository / "mine.py").read_text() == "changed, not committed"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_the_base_is_removed_whatever_happens(repository: Path, error: type[BaseException]) -> None:
    trees: list[Path] = []

    def leave() -> None:
        with checkouts(repository, "HEAD") as (base, _):
            (base.tree / "mine.py").write_text("dirty")
            trees.append(base.tree.parent)
            raise error

    with pytest.raises(error):
        leave()
    assert not trees[0].exists()
    assert worktrees(repository) == 1


def test_a_cancelled_job_leaves_no_worktree(repository: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from attnprof.execute.checkout import checkouts\n"
        "with checkouts(Path(sys.argv[1]), 'HEAD') as (base, _):\n    print(base.tree, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(repository)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        tree = Path(process.stdout.readline().strip())
        assert tree.is_dir()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143
    assert not tree.parent.exists()
    assert worktrees(repository) == 1


def test_other_worktrees_keep_what_git_knows_of_them(repository: Path, tmp_path: Path) -> None:
    """One on a disk that is not mounted at the moment has its HEAD and its index in the repository: they stay."""
    disk, unmounted = tmp_path / "disk", tmp_path / "unmounted"
    git(repository, "worktree", "add", "-q", "-b", "topic", str(disk / "base"))  # with the name that ours has
    (disk / "base" / "mine.py").write_text("staged")
    git(disk / "base", "add", "-A")
    disk.rename(unmounted)
    with checkouts(repository, "HEAD") as (base, _):
        assert worktrees(repository) == 3
    with checkouts(repository, "HEAD") as (base, _):  # where git cannot remove ours, for its folder is gone
        shutil.rmtree(base.tree)
    assert worktrees(repository) == 2
    unmounted.rename(disk)
    assert git(disk / "base", "diff", "--cached", "--name-only") == "mine.py"
    assert git(disk / "base", "branch", "--show-current") == "topic"


def test_what_a_killed_gate_left_is_dropped_once_its_folder_is_gone(repository: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from attnprof.execute.checkout import checkouts\n"
        "with checkouts(Path(sys.argv[1]), 'HEAD'):\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", code, str(repository)]
    killed = subprocess.run(command, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.glob("attnprof-base-*")
    with checkouts(repository, "HEAD"):
        pass
    assert (left / "base" / "mine.py").is_file()  # of another gate, that may be alive
    assert worktrees(repository) == 2
    shutil.rmtree(left)
    with checkouts(repository, "HEAD"):
        pass
    assert worktrees(repository) == 1
    assert not (repository / ".git" / "worktrees").exists()


def test_what_git_cannot_do_is_a_sentence(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"'nowhere' names no commit of this repository: .*git fetch"):
        commit_of(repository, "nowhere")
    with pytest.raises(UsageError, match="'--all' names no commit"):
        commit_of(repository, "--all")
    plain = tmp_path / "plain"
    plain.mkdir()
    for asked in (lambda: commit_of(plain, "HEAD"), lambda: time_rows([case()], "HEAD", plain)):
        with pytest.raises(UsageError, match="plain is in no git repository"):
            asked()
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repository}", "shallow")
    with pytest.raises(UsageError, match=r"shallow.*fetch-depth: 0"):
        commit_of(tmp_path / "shallow", "HEAD~1")
    monkeypatch.setenv("PATH", str(plain))
    with pytest.raises(UsageError, match="needs git"):
        commit_of(repository, "HEAD")


def test_a_hooks_environment_does_not_lead_elsewhere(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    with checkouts(repository, "HEAD") as (base, _):
        assert (base.tree / "mine.py").is_file()


def test_each_side_imports_from_its_own_checkout(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("built", "src"):
        (repository / name).mkdir()
    monkeypatch.setattr(sys, "path", ["", str(repository / "src"), str(repository / "built"), "/elsewhere"])
    monkeypatch.chdir(repository / "specs")
    base, head = Checkout(tmp_path / "base", repository, "c"), Checkout(repository, repository)
    of_base, of_head = orders(base, head)
    top = str(tmp_path / "base")
    assert of_head["path"] == [str(repository / "specs"), str(repository / "src"), str(repository / "built"), "/elsewhere"]
    assert of_base["path"] == [f"{top}/specs", f"{top}/src", str(repository / "built"), "/elsewhere"]
    assert (of_base["cwd"], of_head["cwd"]) == (f"{top}/specs", str(repository / "specs"))
    assert of_base["kept"] == [str(repository / "built")]
    monkeypatch.chdir("/")
    assert [order["cwd"] for order in orders(base, head)] == [top, str(repository)]


def test_files_are_named_from_where_the_children_run(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = Checkout(repository, repository)
    monkeypatch.chdir(repository / "specs")
    absolute = case("a", f"{repository}/mine.py:Mine")
    assert localised(absolute, head).mechanism == "../mine.py:Mine"
    assert localised(case("a", "../mine.py:Mine"), head).mechanism == "../mine.py:Mine"
    assert localised(case("a", "pkg.mine:Mine"), head).mechanism == "pkg.mine:Mine"
    assert localised(case("a", "spatial/ccnet"), head) == case("a", "spatial/ccnet")
    placed = case("a", host=Placement("../net.py:Net", {}, "layer1"))
    assert localised(placed, head).host == Placement("../net.py:Net", {}, "layer1")
    monkeypatch.chdir("/")
    assert localised(absolute, head).mechanism == "mine.py:Mine"
    assert localised(case("a", "elsewhere/mine.py:Mine"), head).mechanism == "/elsewhere/mine.py:Mine"


def test_a_folder_that_the_base_has_not_leads_to_the_same_file(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spec that is new stands in a new folder: what it names with '..' is in the base all the same."""
    new = repository / "new" / "specs"
    new.mkdir(parents=True)
    monkeypatch.chdir(new)
    with checkouts(new, "HEAD") as sides:
        told = [Path(order["cwd"]) for order in orders(*sides)]
        assert told == [sides[0].tree / "new" / "specs", new]
        for side, folder in zip(sides, told, strict=True):
            named = localised(case("a", f"{repository}/mine.py:Mine"), side).mechanism
            assert named == "../../mine.py:Mine"
            assert (folder / named.partition(":")[0]).resolve() == side.tree / "mine.py"
    shutil.rmtree(repository / "new")
    (repository / "new").write_text("a file in the commit")
    git(repository, "add", "new")
    git(repository, "commit", "-qm", "file")
    (repository / "new").unlink()
    new.mkdir(parents=True)
    monkeypatch.chdir(new)
    with checkouts(new, "HEAD") as (base, head):
        assert [order["cwd"] for order in orders(base, head)] == [str(base.tree), str(new)]
        assert localised(case("a", "../../mine.py:Mine"), base).mechanism == "mine.py:Mine"
        assert localised(case("a", "../../mine.py:Mine"), head).mechanism == "../../mine.py:Mine"


def test_a_folder_is_never_made_outside_of_the_base(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "out").symlink_to(tmp_path)
    git(repository, "add", "out")
    git(repository, "commit", "-qm", "link")
    (repository / "out").unlink()
    (repository / "out" / "specs").mkdir(parents=True)
    monkeypatch.chdir(repository / "out" / "specs")
    with checkouts(repository, "HEAD") as (base, head):
        assert orders(base, head)[0]["cwd"] == str(base.tree)
    assert not (tmp_path / "specs").exists()


def test_what_was_imported_from_the_wrong_checkout_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    order = {"home": str(home), "tree": str(tmp_path / "tree"), "kept": [str(home / "built")]}
    stray = type(sys)("stray")
    monkeypatch.setitem(sys.modules, "stray", stray)
    for file in (home / "built" / "stray.py", tmp_path / "tree" / "stray.py", Path("/usr/stray.py")):
        stray.__file__ = str(file)
        lockstep_worker.check_origin(order)
    stray.__file__ = str(home / "pkg" / "stray.py")
    with pytest.raises(lockstep_worker.ForeignCodeError, match=r"'stray' was imported from the working tree, pkg/stray\.py"):
        lockstep_worker.check_origin(order)
    lockstep_worker.check_origin({**order, "tree": str(home)})  # head may


def test_absent_is_not_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "inner.py").write_text("import no_such_package\nclass A: pass\n")
    (tmp_path / "fine.py").write_text("class A: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def found(path: str) -> bool:
        with pytest.raises((UsageError, ModuleNotFoundError)) as caught:
            loading.load(case("a", path))
        return lockstep_worker.is_absent(caught.value, case("a", path))

    assert found("fine:B")
    assert found("gone:A")
    assert found("gone.below:A")
    assert found(f"{tmp_path}/gone.py:A")
    assert not found("inner:A")
    assert not found(f"{tmp_path}/inner.py:A")


@pytest.fixture
def submodule(repository: Path) -> Path:
    """extern/lib, a submodule of the repository that both commits have, with lib/mine.py and lib/pkg/mine.py."""
    other = repository.parent / "other"
    (other / "pkg").mkdir(parents=True)
    for file in (other / "mine.py", other / "pkg" / "mine.py", other / "pkg" / "__init__.py"):
        file.write_text("class Mine: pass\n")
    git(other, "init", "-q")
    git(other, "add", "-A")
    git(other, "commit", "-qm", "other")
    git(repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "extern/lib")
    git(repository, "commit", "-qm", "submodule")
    return repository / "extern" / "lib"


def test_what_lies_in_a_submodule_is_not_called_new(repository: Path, submodule: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "uses.py").write_text("import pkg.mine\n")
    git(repository, "add", "uses.py")
    git(repository, "commit", "-qm", "uses")
    monkeypatch.chdir(repository)
    monkeypatch.setattr(sys, "path", [str(submodule), str(repository), *sys.path])
    with checkouts(repository, "HEAD") as sides:
        assert sides[0].submodules == (sides[0].tree / "extern" / "lib",)
        order = orders(*sides)[0]
        monkeypatch.chdir(order["cwd"])
        monkeypatch.setattr(sys, "path", order["path"])

        def said(path: str) -> tuple[bool, bool]:
            """(called absent, the submodule is named) of what a fresh child of the base says."""
            for name in [name for name in sys.modules if name.partition(".")[0] in ("extern", "mine", "pkg", "uses")]:
                del sys.modules[name]
            with pytest.raises((UsageError, ImportError)) as caught:
                loading.load(case("a", path))
            event = lockstep_worker.failed(caught.value, case("a", path), order)
            return event["absent"], "'extern/lib', and submodules are not checked out in the base" in event["detail"]

        files = ["extern/lib/mine.py:Mine", "extern/lib/../lib/mine.py:Mine", "uses.py:Mine"]
        modules = ["pkg.mine:Mine", "pkg:Mine", "extern.lib.mine:Mine", "extern.lib:mine", "uses:Mine"]
        for path in [*files, *modules]:
            assert said(path) == (False, True), path
        for path in ("extern/lib/gone.py:Mine", "gone.py:Mine", "gone.below:Mine", "mine.py:Gone", "extern/mine.py:Mine"):
            assert said(path) == (True, False), path


def test_an_import_path_in_a_submodule_hides_nothing_that_git_ignores(
    repository: Path, submodule: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "built").mkdir()
    monkeypatch.setattr(sys, "path", [str(submodule / "pkg"), str(repository / "built")])
    order, _ = orders(Checkout(Path("/base"), repository, "c"), Checkout(repository, repository))
    assert order["path"] == ["/base/extern/lib/pkg", str(repository / "built")]
    assert order["kept"] == [str(repository / "built")]


def test_attnprof_itself_can_be_what_is_gated(tmp_path: Path) -> None:
    """Catalogue and hosts come from the checkout, what measures does not."""
    package = Path(timing.__file__).resolve().parent.parent
    for name in ("mechanisms/channel/se.py", "hosts/resnet.py"):
        copy = tmp_path / "attnprof" / name
        copy.parent.mkdir(parents=True)
        copy.write_text((package / name).read_text(encoding="utf-8") + "\nOF_THE_BASE = True\n", encoding="utf-8")
    code = (
        "import json, sys\nfrom attnprof import lockstep_worker as worker\nworker.enter(json.loads(sys.argv[1]))\n"
        "from attnprof import hosts, mechanisms\nfrom attnprof.hosts import resnet\n"
        "se = sys.modules[mechanisms.load('channel/se').build.__module__]\n"
        "print(se.OF_THE_BASE, resnet.OF_THE_BASE, dict(mechanisms.names()), worker.measure.__file__)\n"
    )
    order = {"home": str(package.parent), "tree": str(tmp_path), "cwd": str(tmp_path), "path": [], "cores": [], "kept": []}
    order["path"] = [str(package.parent), *sys.path]
    command = [sys.executable, "-c", code, json.dumps(order)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=package.parent).stdout.split()
    assert " ".join(said[:-1]) == "True True {'channel': ('se',)}"
    assert said[-1] == str(package / "profiling" / "measuring" / "measure.py")


# pairs of processes


def test_what_runs_no_code_of_the_repository_is_not_measured(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def pair(cases: Sequence[Case], *_: Any) -> dict[str, Found]:
        asked.extend(each.label for each in cases)
        return {each.key: Sampled((0.01,) * 10, (0.01,) * 10) for each in cases}

    monkeypatch.setattr(timing, "time_pair", pair)
    own, theirs = mine("Mine"), case("ccnet")
    rows = {row.label: row for row in time_rows([theirs, own], "HEAD", repository)}
    assert set(asked) == {"Mine"}
    assert (rows["ccnet"].reason, rows["ccnet"].outcome) == (Reason.EQUAL, Outcome.PASS)
    assert rows["Mine"].reason is Reason.WITHIN_TOL
    (row,) = time_rows([theirs], "HEAD", repository)
    assert (row.reason, row.outcome) == (Reason.NOTHING_SELECTED, Outcome.MISMATCH)  # an empty gate is never green
    assert "runs no code of this repository" in row.sentence
    placed = case("net", host=Placement("mine.py:Net", {}, "layer"))
    (row,) = time_rows([placed], "HEAD", repository)
    assert row.reason is Reason.WITHIN_TOL
    monkeypatch.setattr(timing, "_OWN", repository / "src" / "attnprof" / "gate")
    (row,) = time_rows([theirs], "HEAD", repository)
    assert row.reason is Reason.WITHIN_TOL


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
        found = time_pair([mine(name) for name in names], sides, replace(QUICK, timeout_s=2.0), 0, 0.1)
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
        "Hangs": ({HEAD}, "timeout", "killed after 2 s"),
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


# the command

SPEC = """\
name: own
input: {channels: 16, hw: [32x32]}
modes: inference
mechanisms:
  - {import: "../mine.py:Mine", as: mine}
measure: {device: cpu}
"""


@pytest.mark.parametrize(
    ("found", "more", "code", "words"),
    [
        ([1.0] * 5, (), 0, "WITHIN_TOL"),
        (SLOWER * 2, (), 1, "more than 5 % slower, confirmed by 5 more"),
        (SLOWER, ("--no-confirm",), 1, "CLEAR_GAP"),
        (SLOWER, ("--tol", "latency=20%"), 0, "within 20 %"),
        ([1.03] * 5, ("--tol", "latency=1%", "--no-confirm"), 1, "more than 1 % slower"),
        (WIDE * 3, (), 0, "CI_TOO_WIDE"),
        (WIDE * 3, ("--on-inconclusive", "fail"), 4, "CI_TOO_WIDE"),
        (WIDE, ("--on-inconclusive", "fail", "--max-processes", "5"), 4, "CI_TOO_WIDE"),
        ([1.0] * 3, ("--min-processes", "3"), 0, "3 pairs of processes"),
        ([failing(HEAD)], (), 5, "no such luck"),
        ([failing(BASE)], ("--on-inconclusive", "fail"), 4, "BASE_FAILED"),
        ([failing(BASE, absent=True)], (), 3, "NEW_POINT"),  # it alone: nothing was compared
        ([], ("--base-ref", "nowhere"), 2, "'nowhere' names no commit"),
        ([], ("--confidence", "1.5"), 2, "--confidence 1.5"),
        ([], ("--tol", "latency=+3"), 2, "latency"),
        ([], ("--set", "measure.device=none"), 2, "measure.device=cpu"),
    ],
)
def test_the_command_gates_time(
    found: list[float | Found],
    more: tuple[str, ...],
    code: int,
    words: str,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sample, asked = scripted({"mine": found})
    monkeypatch.setattr(timing, "time_pair", lambda cases, sides, sampling, *rest: sample(cases, *rest))
    monkeypatch.chdir(repository / "specs")
    Path("own.yaml").write_text(SPEC)
    monkeypatch.chdir(repository)
    typed = ["gate", "specs/own.yaml", "--only", "time", "--base-ref", "HEAD", "--explain", "--allow-import", "*", *more]
    monkeypatch.setattr(sys, "argv", ["attnprof", *typed])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == code
    said = capsys.readouterr()
    assert words in " ".join((said.out + said.err).split())
    assert len(asked) == len(found)
    assert worktrees(repository) == 1


@pytest.mark.parametrize(
    ("error", "claim", "code", "words"),
    [
        (KeyboardInterrupt(), "macs >= 1", 130, "interrupted while latency was measured"),
        (KeyboardInterrupt(), "macs <= 1", 1, "interrupted while latency was measured"),
        (UsageError("the device is gone"), "macs >= 1", 5, "latency was not measured: the device is gone"),
    ],
)
def test_what_other_classes_found_outlives_the_time_class(
    error: BaseException,
    claim: str,
    code: int,
    words: str,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(timing, "time_pair", fail)
    (repository / "specs" / "own.yaml").write_text(f"{SPEC}claims: [{claim}]\n")
    monkeypatch.chdir(repository)
    typed = ["gate", "specs/own.yaml", "--base-ref", "HEAD", "--allow-import", "*", "--report-json", "gate.json"]
    monkeypatch.setattr(sys, "argv", ["attnprof", *typed])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == code
    assert words in " ".join(capsys.readouterr().out.split())
    rows = json.loads(Path("gate.json").read_text())["rows"]
    assert {row["class"] for row in rows} == {"claims", "time"}
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
