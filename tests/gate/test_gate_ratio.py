"""The ratio gate: verdicts from recorded samples, the section of the baseline, and the commands with a sampler of ours."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnprof import stats
from attnprof.errors import UsageError
from attnprof.gate import baseline, ledger, ratio_class, ratio_run, timing
from attnprof.gate.ratios import PASSED, REGRESSED, UNDECIDED, Held, Ratios, decide, mismatch, pairs_of
from attnprof.gate.rows import Outcome, Reason, Row
from attnprof.gate.timing import Options
from attnprof.profiling.measuring.contention import BUSY
from attnprof.records import ALONE, NOT_MEASURED_BUDGET, Case, Placement, Record, Shape, Timing
from tests.command import Call
from tests.gate.test_gate import check_junit
from tests.gate.test_gate_cli import MINE, call, edit

__all__ = ["call"]  # the fixture

SPEC = """\
name: own
input: {channels: 16, hw: [9x9, 17x17]}
modes: inference
mechanisms:
  - se
  - {import: "./mine.py:Mine", as: mine}
baseline: se
measure: {device: cpu}
"""
ALLOW = ("--allow-import", "*mine.py:Mine")
GATE = ("gate", "spec.yaml", "--baseline", "main", *ALLOW)
HERE = ("This CPU", "2.13", "")
SAME = [1.00, 1.01, 0.99, 1.02, 0.98]
SLOWER = [1.20, 1.21, 1.19, 1.22, 1.18]
WIDE = [1.00, 1.15, 0.95, 1.20, 1.05]
HELD = Held("se", 2.0, 1.9, 2.1, 5, 50, 1)


def case(label: str = "mine", mechanism: str = "channel/eca", **fields: Any) -> Case:
    given: dict[str, Any] = {"shape": Shape(1, 8, 9, 9), "device": "cpu", "settings": {"sdpa": "auto"}}
    return Case(mechanism, label, {}, **{**given, **fields})


REFERENCE = case("se", "channel/se")


class Sampler:
    """What times cases: process after process, each label so many times as slow as the reference times two."""

    def __init__(self, factors: dict[str, Sequence[float]], **fields: Any) -> None:
        self.left = {label: list(each) for label, each in factors.items()}
        self.fields = fields  # of every record but the reference's
        self.asked: list[tuple[tuple[str, ...], int, int]] = []

    def __call__(self, cases: Sequence[Case], processes: int, first: int, left_s: float | None) -> Iterable[Record]:
        self.asked.append((tuple(each.label for each in cases), processes, first))
        for each in cases:
            factors = [0.5] * processes
            if each.label in self.left:
                factors = [self.left[each.label].pop(0) for _ in range(processes)]
            numbers = [(process, number) for process in range(processes) for number in range(3)]
            timing = Timing(
                latency_s=tuple(0.02 * factors[process] for process, _ in numbers),
                rounds=tuple(number for _, number in numbers),
                block=f"{each.shape.text()} {first}",
                process_of=tuple(process for process, _ in numbers),
            )
            record = Record(each, timing=timing, environment={"threads": 1})
            yield replace(record, **self.fields) if each.label in self.left and self.fields else record


def found_of(
    factors: dict[str, Sequence[float]], options: Options | None = None, **fields: Any
) -> tuple[dict[str, Row], Sampler]:
    """The rows by label of cases that are held at 2.0, and what the sampler was asked for."""
    cases = [REFERENCE, *(case(label) for label in factors)]
    pairs = pairs_of(cases, "se", ratio_class.traced_keys(cases))
    stored = Ratios("This CPU", "2.13", {pair.key: HELD for pair in pairs})
    sample = Sampler(factors, **fields)
    rows = ratio_class.rows(pairs, _baseline(pairs, stored), "b.json", lambda: HERE, sample, options or Options())
    return {row.label: row for row in rows}, sample


def _baseline(pairs: Sequence[Any], stored: Ratios | None) -> baseline.Baseline:
    points = {pair.key: replace(baseline.point_of_case(pair.case), key=pair.key, status="error") for pair in pairs}
    return baseline.Baseline("own", baseline.Made("0", "2.13", "0"), points, ratios=stored)


def judged_by(sample: ratio_run.Sampler) -> Row:
    """The row of one case that is held at 2.0, whatever times it."""
    (pair,) = pairs_of([REFERENCE, case("mine")], "se", ratio_class.traced_keys([REFERENCE, case("mine")]))
    stored = Ratios("This CPU", "2.13", {pair.key: HELD})
    (row,) = ratio_class.rows([pair], _baseline([pair], stored), "b.json", lambda: HERE, sample, Options())
    return row


def test_fewer_processes_than_the_least_decide_nothing() -> None:
    """What is left of a budget that ends early."""
    whole = Sampler({"mine": [*SLOWER, *SLOWER, *SLOWER]})
    row = judged_by(lambda cases, processes, first, left_s: whole(cases, 1 if first else 2, first, left_s))
    assert (row.reason, row.outcome) == (Reason.CI_TOO_WIDE, Outcome.WARN)
    assert row.detail["found"]["ratio"]["processes"] == 4


def test_what_fails_where_it_is_measured_again_has_failed() -> None:
    whole = Sampler({"mine": [*SLOWER, *SLOWER]})

    def sample(cases: Sequence[Case], processes: int, first: int, left_s: float | None) -> Iterable[Record]:
        for record in whole(cases, processes, first, left_s):
            failed = first > 0 and record.case.label == "mine"
            yield replace(record, status="crashed", detail="killed by SIGKILL", timing=None) if failed else record

    row = judged_by(sample)
    assert (row.reason, row.outcome) == (Reason.FAILED, Outcome.FAILED)
    assert row.sentence.endswith("and measured again, mine: crashed: killed by SIGKILL")


@pytest.mark.parametrize("factors", [[1.03 * each for each in WIDE * 3], SLOWER + SAME], ids=["undecided", "not confirmed"])
def test_a_busy_machine_is_named_where_nothing_was_decided(factors: list[float]) -> None:
    whole = Sampler({"mine": factors})

    def sample(cases: Sequence[Case], processes: int, first: int, left_s: float | None) -> Iterable[Record]:
        for record in whole(cases, processes, first, left_s):
            assert record.timing is not None
            yield replace(record, timing=replace(record.timing, warnings=(BUSY,) if first else ()))

    row = judged_by(sample)
    assert row.reason in (Reason.CI_TOO_WIDE, Reason.NOT_CONFIRMED)
    assert row.sentence.endswith(f"; {BUSY}")
    quiet, _ = found_of({"mine": factors})
    assert BUSY not in quiet["mine"].sentence


# --- the rule


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(2.21, 2.4, REGRESSED), (1.0, 2.2, PASSED), (2.0, 2.205, PASSED), (2.0, 2.3, UNDECIDED), (2.205, 2.3, UNDECIDED)],
)
def test_the_interval_is_held_against_the_stored_upper_bound_and_the_tolerance(low: float, high: float, verdict: str) -> None:
    assert decide(stats.Ratio((low + high) / 2, low, high, 9, "over 5 processes", 5), HELD, 0.05) == verdict


def test_the_reference_of_a_block_is_what_the_reports_give_ratios_to() -> None:
    other = [replace(each, shape=Shape(1, 8, 5, 5)) for each in (case(), case("eca"))]
    cases = [case(), REFERENCE, *other]
    (pair,) = pairs_of(cases, "se", ratio_class.traced_keys(cases))
    assert (pair.case.label, pair.reference.label) == ("mine", "se")
    assert pair.key == replace(case(), device="none").key


def test_in_a_network_the_reference_is_the_network_alone() -> None:
    place = Placement("resnet18", at="body")
    alone = case("resnet18", ALONE, host=replace(place, at=""))
    cases = [alone, case("se", "channel/se", host=place)]
    (pair,) = pairs_of(cases, ALONE, ratio_class.traced_keys(cases))
    assert (pair.case.label, pair.reference.label) == ("se", "resnet18")


@pytest.mark.parametrize(
    ("device", "torch", "words"),
    [
        ("This CPU", "2.13", ""),
        ("That CPU", "2.13", "on This CPU, and here is That CPU"),
        ("This CPU", "2.14", "with torch 2.13"),
    ],
)
def test_ratios_of_another_device_or_torch_are_not_compared(device: str, torch: str, words: str) -> None:
    why = mismatch(Ratios("This CPU", "2.13", {}), device, torch, "b.json")
    assert words in why
    assert bool(why) == bool(words)


# --- the rows


def test_an_equal_ratio_passes_at_the_least_number_of_processes() -> None:
    rows, sample = found_of({"mine": SAME})
    assert (rows["mine"].reason, rows["mine"].outcome) == (Reason.WITHIN_TOL, Outcome.PASS)
    assert sample.asked == [(("se", "mine"), 5, 0)]
    assert rows["mine"].before == 2.0
    assert rows["mine"].after == pytest.approx(2.0, rel=1e-3)
    assert rows["mine"].sentence.startswith("mine 1x8x9x9 inference: latency / se 2 (1.9 to 2.1) -> 2 (")


def test_a_regression_is_confirmed_by_a_fresh_measurement_of_that_pair_only() -> None:
    rows, sample = found_of({"mine": SLOWER + SLOWER, "eca": SAME})
    assert (rows["mine"].reason, rows["mine"].outcome) == (Reason.CLEAR_GAP, Outcome.REGRESSED)
    assert rows["eca"].outcome is Outcome.PASS
    assert sample.asked == [(("se", "mine", "eca"), 5, 0), (("se", "mine"), 5, 15)], "no seed twice"
    assert "above 2.21, the stored upper bound and 5 % (+10 %), confirmed by 5 more processes (2.4)" in rows["mine"].sentence
    assert rows["mine"].detail["found"]["again"]["verdict"] == REGRESSED
    json.dumps(dict(rows["mine"].detail), allow_nan=False)


def test_what_a_second_measurement_does_not_find_is_inconclusive() -> None:
    rows, _ = found_of({"mine": SLOWER + SAME}, Options(on_inconclusive="fail"))
    assert (rows["mine"].reason, rows["mine"].outcome) == (Reason.NOT_CONFIRMED, Outcome.INCONCLUSIVE)
    assert "measured again 2 (" in rows["mine"].sentence
    rows, sample = found_of({"mine": SLOWER}, Options(confirm=False))
    assert (rows["mine"].outcome, len(sample.asked)) == (Outcome.REGRESSED, 1)


@pytest.mark.parametrize(("asked", "outcome"), [("warn", Outcome.WARN), ("fail", Outcome.INCONCLUSIVE), ("pass", Outcome.PASS)])
def test_what_is_undecided_gets_more_processes_and_then_means_what_was_asked_for(asked: str, outcome: Outcome) -> None:
    rows, sample = found_of({"mine": [1.03 * each for each in WIDE * 3], "eca": SAME}, Options(on_inconclusive=asked))
    assert (rows["mine"].reason, rows["mine"].outcome) == (Reason.CI_TOO_WIDE, outcome)
    assert [labels for labels, *_ in sample.asked] == [("se", "mine", "eca"), ("se", "mine"), ("se", "mine")]
    assert rows["mine"].detail["found"]["ratio"]["processes"] == 15


def test_bounds_have_the_confidence_that_was_asked_for() -> None:
    rows, _ = found_of({"mine": WIDE}, Options(tolerance=9, confidence=0.95))
    logs = [math.log(each) for each in WIDE]
    mean = sum(logs) / 5
    error = math.sqrt(sum((each - mean) ** 2 for each in logs) / 4 / 5)
    high = 2 * math.exp(mean + 2.131846786 * error)  # t of 95 % on one side at 4 degrees of freedom
    assert rows["mine"].detail["found"]["ratio"]["high"] == pytest.approx(high)


def test_a_lower_ratio_says_so() -> None:
    rows, _ = found_of({"mine": [each / 2 for each in SAME]})
    assert (rows["mine"].reason, rows["mine"].outcome) == (Reason.LOWER, Outcome.IMPROVED)


def test_what_fails_or_is_not_timed_is_told() -> None:
    rows, _ = found_of({"mine": SAME}, timing=None, status="crashed", detail="killed by SIGSEGV")
    assert (rows["mine"].reason, rows["mine"].outcome) == (Reason.FAILED, Outcome.FAILED)
    assert "mine: crashed: killed by SIGSEGV" in rows["mine"].sentence
    rows, _ = found_of({"mine": SAME * 3}, timing=None, detail=f"{NOT_MEASURED_BUDGET}: about 9 s needed")
    assert (rows["mine"].reason, rows["mine"].outcome) == (Reason.BUDGET, Outcome.WARN)
    rows, _ = found_of({"mine": SAME * 3}, timing=Timing((0.1,), (0,), block="another"))
    assert (rows["mine"].reason, rows["mine"].outcome) == (Reason.NOT_MEASURED, Outcome.WARN)
    rows, _ = found_of({"mine": SAME}, environment={"threads": 4})
    assert (rows["mine"].reason, rows["mine"].outcome) == (Reason.ENV_MISMATCH, Outcome.MISMATCH)
    assert "timed with 4 threads, in the baseline with 1" in rows["mine"].sentence


def test_without_time_nothing_is_decided() -> None:
    cases = [REFERENCE, case()]
    pairs = pairs_of(cases, "se", ratio_class.traced_keys(cases))
    ticks = iter([0.0, 700.0])
    found = ratio_run.judge(pairs, {pairs[0].key: HELD}, Sampler({"mine": SAME}), Options(), lambda: next(ticks))
    assert (found[pairs[0].key].verdict, found[pairs[0].key].ratio) == (UNDECIDED, None)


# --- the section of the file


def test_ratios_are_written_and_read_back_and_a_file_without_them_is_as_before() -> None:
    cases = [REFERENCE, case()]
    (pair,) = pairs_of(cases, "se", ratio_class.traced_keys(cases))
    whole = _baseline([pair], Ratios("This CPU", "2.13", {pair.key: HELD}))
    text = baseline.write(whole)
    assert baseline._from_json(json.loads(text)) == replace(whole, points=baseline._from_json(json.loads(text)).points)
    assert baseline._from_json(json.loads(text)).ratios == whole.ratios
    without = baseline.write(replace(whole, ratios=None))
    assert "ratios" not in json.loads(without)
    assert next(line for line in text.splitlines() if line not in without.splitlines()) == '  "ratios": {'


@pytest.mark.parametrize(
    "change", [{"low": 3.0}, {"ratio": "2"}, {"processes": 1}, {"threads": True}, {"against": None}, {"high": math.nan}]
)
def test_a_damaged_ratio_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    cases = [REFERENCE, case()]
    (pair,) = pairs_of(cases, "se", ratio_class.traced_keys(cases))
    data = json.loads(baseline.write(_baseline([pair], Ratios("This CPU", "2.13", {pair.key: HELD}))))
    data["ratios"]["points"][pair.key] |= change
    (tmp_path / "b.json").write_text(json.dumps(data))
    with pytest.raises(UsageError, match="the file is damaged"):
        baseline.read(tmp_path / "b.json")


def test_a_point_that_is_gone_takes_its_ratio_along() -> None:
    cases = [REFERENCE, case()]
    (pair,) = pairs_of(cases, "se", ratio_class.traced_keys(cases))
    old = _baseline([pair], Ratios("This CPU", "2.13", {pair.key: HELD}))
    assert ledger.merged(old, replace(old, ratios=None)).ratios == old.ratios, "--exact-only leaves them"
    assert ledger.merged(old, replace(old, ratios=None, points={})).ratios is None
    gone = baseline.Accepted("point", pair.key, "mine", "1x8x9x9 inference", 1, 0, "why", "2026-01-01")
    assert ledger.accept(old, [gone]).ratios is None


# --- the commands


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Sampler]:
    """`timed(factors, device)`: what `save` and `gate` measure with from then on."""

    def use(factors: Sequence[float], device: str = "This CPU", unusable: str = "", **fields: Any) -> Sampler:
        sample = Sampler({"mine": [each for each in factors for _ in range(2)]}, **fields)  # two sizes
        monkeypatch.setattr(ratio_run, "sampler", lambda *_: sample)
        monkeypatch.setattr(ratio_run, "model_of", lambda _: (device, unusable))
        return sample

    return use


@pytest.fixture
def repo(call: Call, timed: Callable[..., Sampler], tmp_path: Path) -> Path:
    """A folder with a module, its spec, and baselines/main.json with the ratios of both sizes."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "spec.yaml").write_text(SPEC)
    timed(SAME)
    done = call("baseline", "save", "spec.yaml", "--name", "main", *ALLOW, "-q")
    assert (done.code, done.out, done.err) == (0, "baselines/main.json\n", "")
    return tmp_path


def test_save_stores_ratios_and_show_and_diff_tell_them(call: Call, repo: Path, timed: Callable[..., Sampler]) -> None:
    shown = call("baseline", "show", "main").out
    assert "2 ratios of latency, measured on This CPU with torch" in shown
    assert [line.split()[:5] for line in shown.splitlines() if line.startswith("mine") and " se " in line] == [
        ["mine", "1x16x9x9", "inference", "se", "2"],
        ["mine", "1x16x17x17", "inference", "se", "2"],
    ]
    timed(SLOWER, device="That CPU")
    assert call("baseline", "save", "spec.yaml", "--name", "other", *ALLOW, "-q").code == 0
    told = " ".join(call("baseline", "diff", "main", "other").out.split())
    assert "mine 1x16x9x9 inference: latency / se 2 (" in told
    assert "The ratios of baselines/main.json were measured on This CPU, those of baselines/other.json on That CPU." in told
    assert "2 of 42 numbers differ: 2 more." in told


@pytest.mark.parametrize("words", [("--exact-only",), ("--set", "measure.device=none")])
def test_counts_alone_measure_nothing_and_leave_the_ratios(
    call: Call, repo: Path, timed: Callable[..., Sampler], words: tuple[str, ...]
) -> None:
    sample, before = timed(SLOWER), (repo / "baselines" / "main.json").read_text()
    assert call("baseline", "save", "spec.yaml", "--name", "main", *ALLOW, *words).code == 0
    assert sample.asked == []
    assert (repo / "baselines" / "main.json").read_text() == before
    assert call("baseline", "save", "spec.yaml", "-o", "new.json", *ALLOW, *words).code == 0
    assert "ratios" not in json.loads((repo / "new.json").read_text())


def test_a_spec_without_a_reference_has_no_ratios_and_says_so(call: Call, repo: Path, timed: Callable[..., Sampler]) -> None:
    edit(repo / "spec.yaml", "baseline: se\n", "")
    sample = timed(SAME)
    done = call("baseline", "save", "spec.yaml", "-o", "new.json", *ALLOW)
    assert (done.code, sample.asked) == (0, [])
    assert "no ratios are measured for new.json: the spec names no `baseline:`" in done.err


def test_what_cannot_be_timed_is_told_when_saving(call: Call, repo: Path, timed: Callable[..., Sampler]) -> None:
    timed(SAME, status="crashed", detail="killed by SIGSEGV", timing=None)
    done = call("baseline", "save", "spec.yaml", "-o", "new.json", *ALLOW, "-q")
    assert done.code == 5
    assert "warning: mine 1x16x9x9 inference: no ratio: mine: crashed: killed by SIGSEGV" in done.err
    assert "ratios" not in json.loads((repo / "new.json").read_text())
    timed(SAME, unusable="this torch is built without CUDA")
    done = call("baseline", "save", "spec.yaml", "-o", "other.json", *ALLOW, "-q")
    assert (done.code, (repo / "other.json").exists()) == (3, False)
    assert "--exact-only saves the counts alone" in done.err


def test_the_exact_gate_never_begins_to_measure(call: Call, repo: Path, timed: Callable[..., Sampler]) -> None:
    sample = timed(SAME)
    done = call(*GATE)
    assert (done.code, done.out, sample.asked) == (0, "own: passed (exit code 0): 40 passed.\n", [])


def test_a_slower_ratio_is_exit_code_1_in_every_output(call: Call, repo: Path, timed: Callable[..., Sampler]) -> None:
    timed(SLOWER * 2)
    files = ("--report-json", "gate.json", "--junit", "junit.xml", "--markdown", "gate.md", "--annotations", "github")
    done = call(*GATE, "--only", "exact,ratio", *files)
    assert done.code == 1
    assert "mine 1x16x9x9 inference: latency / se 2 (" in done.out
    assert "`attnprof baseline save spec.yaml -o baselines/main.json` measures all of" in " ".join(done.out.split())
    assert done.out.splitlines()[-1] == "own: regressed (exit code 1): 2 regressed, 40 passed."
    assert "::error file=spec.yaml,line=6" in done.err
    rows = [row for row in json.loads((repo / "gate.json").read_text())["rows"] if row["class"] == "ratio"]
    assert {(row["reason"], row["metric"], row["line"]) for row in rows} == {("CLEAR_GAP", "latency_ratio", 6)}
    assert [row["from"] for row in rows] == pytest.approx([2.0, 2.0], rel=1e-2)
    suite = check_junit((repo / "junit.xml").read_bytes()).find(".//testsuite[@name='attnprof.ratio']")
    assert suite is not None
    assert (suite.get("failures"), suite[1].get("name")) == ("2", "1x16x9x9 inference:latency_ratio")
    assert "latency / se" in (repo / "gate.md").read_text()
    timed(SLOWER)
    assert call(*GATE, "--only", "ratio", "--tol", "latency=30%").code == 0


def test_another_device_is_3_and_the_other_classes_are_judged(call: Call, repo: Path, timed: Callable[..., Sampler]) -> None:
    sample = timed(SAME, device="That CPU")
    done = call(*GATE, "--only", "exact,ratio", "--json")
    assert (done.code, sample.asked) == (3, [])
    reasons = [(row["class"], row["reason"]) for row in done.json["rows"] if row["outcome"] != "pass"]
    assert reasons == [("ratio", "ENV_MISMATCH")] * 2
    assert sum(row["class"] == "exact" for row in done.json["rows"]) == 40
    assert "were measured on This CPU, and here is That CPU" in done.json["rows"][-1]["sentence"]


def test_a_baseline_without_ratios_or_none_at_all_is_3(call: Call, repo: Path, timed: Callable[..., Sampler]) -> None:
    sample = timed(SAME)
    call("baseline", "save", "spec.yaml", "-o", "exact.json", "--exact-only", *ALLOW)
    for words, said in (
        (("--baseline", "exact.json"), "exact.json holds no ratios: `attnprof baseline save"),
        (("--baseline", "mian"), "baselines/mian.json: there is no such baseline. Did you mean baselines/main.json?"),
        ((), "no --baseline is given"),
    ):
        done = call("gate", "spec.yaml", *ALLOW, "--only", "ratio", *words)
        assert (done.code, sample.asked) == (3, [])
        assert said in " ".join(done.out.split())


def test_new_vanished_and_other_references(call: Call, repo: Path, timed: Callable[..., Sampler]) -> None:
    sample = timed(SAME)
    edit(repo / "spec.yaml", "hw: [9x9, 17x17]", "hw: [9x9, 5x5]")
    done = call(*GATE, "--only", "ratio", "--explain")
    told = " ".join(done.out.split())
    assert done.code == 1
    assert "[VANISHED] mine 1x16x17x17 inference: vanished, its ratio to se is in the baseline only" in told
    assert "[NEW_POINT] mine 1x16x5x5 inference: the baseline has no ratio to se of it" in told
    assert [labels for labels, *_ in sample.asked] == [("se", "mine")], "only what can be held against something"
    timed(SAME)
    assert call(*GATE, "--only", "ratio", "--on-missing", "warn").code == 0
    edit(repo / "spec.yaml", "  - se\n", "  - se\n  - eca\n")
    edit(repo / "spec.yaml", "baseline: se", "baseline: eca")
    done = call(*GATE, "--only", "ratio", "--match", "mine", "--on-missing", "warn")
    assert done.code == 3
    assert "the baseline has it to se, and the spec's reference is eca" in " ".join(done.out.split())


def test_match_names_the_case_and_its_reference_comes_along(call: Call, repo: Path, timed: Callable[..., Sampler]) -> None:
    sample = timed(SAME)
    assert call(*GATE, "--only", "ratio", "--match", "mine").code == 0
    assert [labels for labels, *_ in sample.asked] == [("se", "mine", "se", "mine")]
    done = call(*GATE, "--only", "ratio", "--match", "se")
    assert done.code == 3
    assert "no ratio is about what --match names" in done.out
    assert call(*GATE, "--only", "ratio", "--match", "nothing").code == 3


def test_options_under_which_nothing_can_be_measured_are_2(call: Call, repo: Path) -> None:
    for words, said in (
        (("--set", "measure.device=none"), "the spec's device is none"),
        (("--min-processes", "1"), "an interval over processes wants two or more"),
        (("--tol", "latency=1e-3"), "the tolerance of latency is a share"),
    ):
        done = call(*GATE, "--only", "ratio", *words)
        assert done.code == 2
        assert said in done.err
    done = call(*GATE, "--only", "ratoi")
    assert (done.code, "did you mean 'ratio'?" in done.err) == (2, True)


def test_an_interrupt_leaves_the_rows_of_other_classes(call: Call, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ratio_run, "model_of", interrupt)
    done = call(*GATE, "--only", "exact,ratio", "--json")
    assert done.code == 130
    assert [row["reason"] for row in done.json["rows"] if row["class"] == "ratio"] == ["INTERRUPTED"]


def test_user_code_needs_permission_to_be_timed(call: Call, repo: Path) -> None:
    for words in (("baseline", "save", "spec.yaml"), ("gate", "spec.yaml", "--baseline", "main", "--only", "ratio")):
        done = call(*words)
        assert done.code == 2
        assert "pass --allow-import" in done.err


def test_dry_run_lists_ratios_and_says_how_long_without_torch(repo: Path) -> None:
    code = "import sys; from attnprof.cli import cli; cli(standalone_mode=False); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, *GATE, "--only", "exact,ratio", "--dry-run"]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["exact"] * 4 + ["ratio"] * 2 + ["4", "counting:", "ratio:"]
    assert lines[4].endswith("mine 1x16x9x9 inference / se")
    assert "5 to 15 processes, at most 5 s of sampling of 4 cases in each, within --budget." in lines[-1]


def test_two_cases_are_really_timed_in_processes_of_their_own() -> None:
    cases = [REFERENCE, case()]
    pairs = pairs_of(cases, "se", ratio_class.traced_keys(cases))
    model, unusable = ratio_run.model_of("cpu")
    assert (bool(model), unusable) == (True, "")
    points = ratio_run.measure(pairs, ratio_run.sampler("se", 0.05, 60.0), 2, None)
    held = ratio_run.section(points.values(), model, "2.13").points[pairs[0].key]
    assert (held.against, held.processes, held.threads) == ("se", 2, 1)
    assert 0 < held.low <= held.ratio <= held.high


def test_an_interrupt_of_one_class_that_measures_is_one_of_the_other_too(
    call: Call, repo: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def never(*_: object) -> None:
        raise AssertionError("measured though it was to end")

    for name in ("mine.py", "spec.yaml", "baselines"):
        (repo / name).rename(repository / name)
    monkeypatch.chdir(repository)
    monkeypatch.setattr(ratio_run, "model_of", interrupt)
    monkeypatch.setattr(timing, "time_pair", never)
    done = call(*GATE, "--only", "ratio,time", "--base-ref", "HEAD", "--json")
    assert done.code == 130
    assert [(row["class"], row["reason"]) for row in done.json["rows"]] == [("ratio", "INTERRUPTED"), ("time", "INTERRUPTED")]
