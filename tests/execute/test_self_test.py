"""`doctor`: what A against A says about a machine, by numbers worked out by hand; and what is refused."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from attnprof import execute
from attnprof.cli import cli, doctor
from attnprof.errors import UsageError
from attnprof.execute import Options
from attnprof.records import Case, Record, Timing
from attnprof.report import self_test
from attnprof.stats import Ratio


def test_quantiles_by_hand() -> None:
    assert self_test.quantile([4.0, 1.0, 3.0, 2.0, 5.0], 0.5) == 3.0
    assert self_test.quantile([0.0, 10.0], 0.95) == pytest.approx(9.5)
    assert self_test.quantile([7.0], 0.05) == 7.0


def test_a_summary_by_hand() -> None:
    ratios = [Ratio(1.0, 0.9, 1.1, 40), Ratio(1.02, 1.01, 1.03, 40), Ratio(0.99, 0.98, 1.0, 40)]
    found = self_test.summary(ratios)
    assert (found.covers, found.ratios, found.cover_1) == ("within one process", 3, 2)
    assert found.median_half_width == pytest.approx(0.01)
    assert found.spread == pytest.approx((0.991, 1.0, 1.018))
    farthest = sorted([1 / 0.9 - 1, 0.03, 1 / 0.98 - 1])  # 0.0204, 0.03, 0.1111
    assert found.smallest_difference == pytest.approx(farthest[1] + 0.9 * (farthest[2] - farthest[1]))
    with pytest.raises(ValueError, match="no ratios"):
        self_test.summary([])


def test_the_smallest_difference_is_one_that_would_be_told() -> None:
    """Moved by it, an interval leaves 1 out, whichever of the two is the slower; moved by less, one of them does not."""
    ratio = Ratio(1.01, 0.96, 1.07, 40)
    found = 1 + self_test.summary([ratio]).smallest_difference
    assert ratio.low * found > 1 - 1e-12
    assert ratio.high / found < 1 + 1e-12
    less = 1 + (found - 1) * 0.99
    assert ratio.low * less < 1 or ratio.high / less > 1


def timed(case: Case, factor: float, processes: int) -> Record:
    """Eight rounds in each process, around 1 ms x factor."""
    samples = tuple(1e-3 * factor * (1 + 0.01 * math.sin(n)) for n in range(8))
    own = tuple(process for process in range(processes) for _ in samples) if processes > 1 else ()
    return Record(case, timing=Timing(samples * processes, tuple(range(8)) * processes, "b", process_of=own))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Case], Options]]:
    """Runs that measure nothing: the second of two equal members takes 1 % longer."""
    seen: list[tuple[list[Case], Options]] = []

    def run_cases(cases: Sequence[Case], options: Options) -> Iterator[Record]:
        seen.append((list(cases), options))
        for case in cases:
            yield timed(case, 1.01 if case.label.endswith("again") else 1.0, options.replicates)

    monkeypatch.setattr(execute, "run_cases", run_cases)
    return seen


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["doctor", *arguments], standalone_mode=False)


def test_a_against_a_in_json(asked: list[tuple[list[Case], Options]]) -> None:
    result = run("--aa", "--device", "cpu", "--json")
    assert result.return_value == 0, result.output
    data = json.loads(result.stdout)
    found = data["self_test"]
    assert (found["device"], found["comparisons"], found["replicates"], found["budget_s"]) == ("cpu", 10, 1, 1.0)
    (within,) = found["summaries"]
    assert within["covers"] == "within one process"
    assert (within["ratios"], within["cover_1"]) == (20, 0), "a constant 1 % is told from none"
    assert within["spread"] == pytest.approx([1 / 1.01] * 3)
    assert within["smallest_difference"] == pytest.approx(0.01)
    assert len(asked) == 10
    cases, options = asked[-1]
    assert len({case.block for case in cases}) == 1, "one block: every pair is interleaved"
    assert [case.mechanism for case in cases] == ["spatial/ccnet"] * 2 + ["spatial/nonlocal"] * 2
    assert len({case.key for case in cases}) == 4
    assert len({options.seed for _, options in asked}) == 10
    assert options.budget_s == 1.0


def test_replicates_are_summed_up_apart(asked: list[tuple[list[Case], Options]]) -> None:
    result = run("--aa", "--device", "cpu", "--replicates", "3", "--budget", "0.5", "-q")
    assert result.return_value == 0, result.output
    assert asked[0][1] == Options(budget_s=0.5, replicates=3, seed=0)
    assert asked[1][1].seed == 3, "no process measures what another has"
    assert "within one process" in result.stdout
    assert "over 3 processes" in result.stdout
    assert "0 of 60" in result.stdout
    assert "0 of 20" in result.stdout
    assert "2 d.o.f." in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_progress_has_words(asked: list[tuple[list[Case], Options]]) -> None:
    lines = run("--aa", "--device", "cpu").stderr.splitlines()
    assert lines[0] == "[A against A 1/10] ccnet and nonlocal, each against itself on cpu"
    assert len(lines) == len(asked) == 10


@pytest.mark.parametrize(
    ("difference", "before", "after", "words"),
    [
        (0.48, 1.9, 3.1, "Other work was running: load 1.9 before, 3.1 after, on 2 cores"),
        (0.02, 0.1, 1.8, "Other work was running"),  # what came meanwhile: 0.8 beside the test itself
        (0.48, 0.2, 1.2, "No other work was seen"),
        (0.02, 0.2, 1.2, ""),
        (0.48, None, None, "not known"),
        (0.02, None, None, ""),
    ],
)
def test_a_large_smallest_difference_is_held_against_the_load(
    difference: float, before: float | None, after: float | None, words: str
) -> None:
    said = self_test.load_remark(difference, {"cores": 2, "load": {"before": before, "after": after}})
    assert words in said
    assert bool(said) == bool(words)


def test_the_load_stands_in_what_is_printed(asked: list[tuple[list[Case], Options]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (7.25, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    result = run("--aa", "--device", "cpu", "-q")
    assert "Other work was running: load 7.25 before, 7.25 after, on 2 cores" in " ".join(result.stdout.split())
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    found = json.loads(run("--aa", "--device", "cpu", "--json", "-q").stdout)["self_test"]
    assert (found["load"], found["cores"]) == ({"before": 7.25, "after": 7.25}, 2)

    def missing() -> tuple[float, float, float]:
        raise OSError

    monkeypatch.setattr(os, "getloadavg", missing)
    found = json.loads(run("--aa", "--device", "cpu", "--json", "-q").stdout)["self_test"]
    assert found["load"] == {"before": None, "after": None}


def test_a_self_test_that_was_not_measured_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_cases(cases: Sequence[Case], _: Options) -> Iterator[Record]:
        for case in cases:
            yield replace(timed(case, 1.0, 1), timing=None, status="crashed", detail="killed by SIGSEGV")

    monkeypatch.setattr(execute, "run_cases", run_cases)
    result = run("--aa", "--device", "cpu")
    assert result.return_value == 5
    assert result.stdout == ""
    assert "ccnet A was not timed: crashed: killed by SIGSEGV" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--aa", "--roofline"), "one at a time"),
        (("--budget", "2"), "--budget: only with --aa"),
        (("--replicates", "2"), "--replicates: only with --aa"),
        (("--aa", "--device", "none"), "not none"),
        (("--aa", "--device", "tpu"), "tpu"),
    ],
)
def test_what_is_refused(arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, UsageError)
    assert words in str(result.exception)
    assert result.exception.exit_code == 2


def test_a_short_self_test_for_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through real children: as many ratios as were asked for, each with an interval that is not empty."""
    monkeypatch.setattr(doctor, "_AA_COMPARISONS", 2)
    result = run("--aa", "--device", "cpu", "--budget", "0.05", "--json", "-q")
    assert result.return_value == 0, result.output
    data = json.loads(result.stdout)
    (within,) = data["self_test"]["summaries"]
    assert within["ratios"] == 4
    assert within["median_half_width"] > 0
    assert data["environment"]["flags"]["threads"] == 1
