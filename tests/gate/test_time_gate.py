"""The time gate: verdicts from recorded samples, and pairs of processes on the code of two checkouts."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from attnprof.__main__ import main
from attnprof.errors import UsageError
from attnprof.execute.lockstep import BASE, HEAD, Broken, Found, Sampled, Unfinished
from attnprof.gate import timing
from attnprof.gate.latency import PASSED, REGRESSED, UNDECIDED, Estimate, Pairing, Rule, decide, estimate
from attnprof.gate.rows import Outcome, Reason, Row
from attnprof.gate.timed import row_of
from attnprof.gate.timing import Options, judge, time_rows
from attnprof.profiling.measuring.contention import BUSY
from attnprof.records import Case, Placement
from tests.repository import case, mine, worktrees

RULE = Rule()
ROOT = Path(__file__).resolve().parents[2]


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
    assert sentence.startswith("a 1x8x9x9 inference: latency +10.0 % (")
    assert "5 pairs of processes; medians 10.0 ms -> 11.0 ms)" in sentence
    assert "more than 5 % slower, confirmed by 5 more (+10.0 %)" in sentence
    assert rows["a"].detail["confirming"]["verdict"] == REGRESSED


def test_what_a_second_measurement_does_not_find_is_inconclusive() -> None:
    rows, _ = rows_of({"a": SLOWER + SAME}, Options(on_inconclusive="fail"))
    assert (rows["a"].reason, rows["a"].outcome) == (Reason.NOT_CONFIRMED, Outcome.INCONCLUSIVE)
    assert "measured again, latency" in rows["a"].sentence
    rows, asked = rows_of({"a": SLOWER}, Options(confirm=False))
    assert (rows["a"].reason, rows["a"].outcome, len(asked)) == (Reason.CLEAR_GAP, Outcome.REGRESSED, 5)


@pytest.mark.parametrize("ratios", [WIDE * 3, SLOWER + SAME], ids=["undecided", "not confirmed"])
def test_a_busy_machine_is_named_where_nothing_was_decided(ratios: list[float]) -> None:
    busy = [Sampled((0.01,) * 10, (0.01 * ratio,) * 10, warnings=(BUSY,)) for ratio in ratios]
    rows, _ = rows_of({"a": busy, "b": ratios})
    assert rows["a"].sentence.endswith(f"; {BUSY}")
    assert BUSY not in rows["b"].sentence
    assert rows["a"].reason is rows["b"].reason


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


# the two checkouts, and the command

SPEC = """\
name: own
input: {channels: 16, hw: [32x32]}
modes: inference
mechanisms:
  - {import: "../mine.py:Mine", as: mine}
measure: {device: cpu}
"""


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
