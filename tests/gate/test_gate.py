"""The exact gate without a command line: verdicts, the baseline file, and what the rows become for other programs."""

from __future__ import annotations

import json
import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from attnprof.errors import NothingSelectedError, UsageError
from attnprof.gate import baseline, github, judge, junit, ledger, listing, outputs, summary
from attnprof.gate.baseline import Accepted, Baseline, Made, Point
from attnprof.gate.outputs import Result
from attnprof.gate.rows import CLAIMS, EXACT, EXIT_CODES, POINT, Outcome, Reason, Row, exit_code
from attnprof.records import Case, Counts, OpCost, Record, Shape
from attnprof.report.text import width
from attnprof.spec.quantities import Tolerance, parse_tolerance
from attnprof.spec.values import EXACT_METRICS

MADE = Made("0.1.0", "2.13", "abc")
NUMBERS = {name: 1000 * (index + 1) for index, name in enumerate(EXACT_METRICS)}
HOSTILE = "<b>`|x|`[a](b)\n::error::%0A,\x00\x1b[31m & \ud800 名"


def point(key: str = "k1", label: str = "ccnet", **changed: int) -> Point:
    return with_numbers(Point(key, label, f"spatial/{label}", "1x64x33x33", "inference"), changed)


def with_numbers(plain: Point, changed: Mapping[str, int]) -> Point:
    return replace(plain, metrics={**NUMBERS, **changed})


def held(*points: Point, accepted: tuple[Accepted, ...] = ()) -> Baseline:
    return Baseline("own", MADE, {each.key: each for each in points}, accepted)


def failing(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.fails]


def result(*rows: Row, notes: tuple[str, ...] = ()) -> Result:
    return Result("own", "specs/own.yaml", rows, "base.json", notes=notes)


# --- judge


def test_equal_numbers_pass_one_row_per_metric() -> None:
    rows = judge.judge(held(point()), [point()])
    assert [(row.reason, row.outcome, row.metric) for row in rows] == [(Reason.EQUAL, Outcome.PASS, m) for m in EXACT_METRICS]
    assert exit_code(rows) == 0


def test_one_more_is_a_regression_with_its_sentence() -> None:
    now = point(macs=2065)
    (row,) = failing(judge.judge(held(point()), [now], places={"ccnet": (7, 5)}))
    assert (row.reason, row.outcome, row.before, row.after) == (Reason.HIGHER, Outcome.REGRESSED, 2000, 2065)
    assert row.sentence == "ccnet 1x64x33x33 inference: macs 2,000 -> 2,065 (+3.2 %, +65)"
    assert (row.line, row.column, row.key) == (7, 5, "k1")
    assert exit_code([row]) == 1


@pytest.mark.parametrize("metric", EXACT_METRICS)
def test_every_metric_is_gated(metric: str) -> None:
    more = judge.judge(held(point()), [with_numbers(point(), {metric: NUMBERS[metric] + 1})])
    assert [(row.metric, row.outcome) for row in failing(more)] == [(metric, Outcome.REGRESSED)]
    less = judge.judge(held(point()), [with_numbers(point(), {metric: NUMBERS[metric] - 1})])
    assert [row.reason for row in less if row.outcome is Outcome.IMPROVED] == [Reason.LOWER]
    assert exit_code(less) == 0
    strict = judge.Rules(directions=dict.fromkeys(EXACT_METRICS, judge.EQUAL))
    assert exit_code(judge.judge(held(point()), [with_numbers(point(), {metric: NUMBERS[metric] - 1})], strict)) == 1


@pytest.mark.parametrize(
    ("text", "most"),
    [("5%", 2100), ("0.05%", 2001), ("+100", 2100), ("100", 2100), ("0%", 2000), ("+0.1K", 2100)],
)
def test_a_tolerance_ends_where_it_says(text: str, most: int) -> None:
    rules = judge.Rules({"macs": parse_tolerance("macs", text)})
    assert exit_code(judge.judge(held(point()), [point(macs=most)], rules)) == 0
    assert exit_code(judge.judge(held(point()), [point(macs=most + 1)], rules)) == 1
    assert exit_code(judge.judge(held(point()), [point(flops=3001)], rules)) == 1, "of another metric"


def test_a_tolerance_in_bytes_is_of_bytes() -> None:
    assert parse_tolerance("peak_bytes", "+16MiB").allows(0, 16 * 2**20)
    assert not parse_tolerance("peak_bytes", "+16MiB").allows(0, 16 * 2**20 + 1)
    for metric, text in (("macs", "+16MiB"), ("peak_bytes", "+1M"), ("latency", "+3"), ("macs", "-1%"), ("macs", "5 percent")):
        with pytest.raises(UsageError):
            parse_tolerance(metric, text)


def test_new_vanished_failed_and_recovered_points() -> None:
    broken = Point("k1", "ccnet", "spatial/ccnet", "1x64x33x33", "inference", status="oom", detail="no\nroom")
    new = judge.judge(held(point()), [point(), point("k2", "se")])
    assert [(row.reason, row.outcome, row.metric) for row in new[-1:]] == [(Reason.NEW_POINT, Outcome.WARN, POINT)]
    gone = judge.judge(held(point(), point("k2", "se")), [point()])
    assert [(row.reason, row.before, row.after) for row in failing(gone)] == [(Reason.VANISHED, 1, 0)]
    assert exit_code(gone) == 1
    warned = judge.judge(held(point(), point("k2", "se")), [point()], judge.Rules(missing_fails=False))
    assert exit_code(warned) == 0
    assert warned[-1].outcome is Outcome.WARN
    assert [row.reason for row in judge.judge(held(point()), [broken])] == [Reason.FAILED]
    assert exit_code(judge.judge(held(point()), [broken])) == 5
    assert "oom: no room" in judge.judge(held(point()), [broken])[0].sentence
    assert exit_code(judge.judge(held(), [broken])) == 5, "not known as failing"
    assert exit_code(judge.judge(held(broken), [broken])) == 0
    assert [row.reason for row in judge.judge(held(broken), [point()])] == [Reason.RECOVERED]


def test_an_op_that_is_no_longer_counted_is_no_improvement() -> None:
    before = point(uncounted_calls=0)
    rows = judge.judge(held(before), [point(uncounted_calls=2, macs=10)])
    assert [row.metric for row in failing(rows)] == ["uncounted_calls"]


def test_exit_codes_have_one_order() -> None:
    def row(outcome: Outcome) -> Row:
        return Row(EXACT, Reason.EQUAL, outcome, "")

    rows = [row(outcome) for outcome in Outcome]
    seen = []
    while rows:
        random.Random(1).shuffle(rows)
        seen.append(exit_code(rows))
        rows = [each for each in rows if EXIT_CODES.get(each.outcome) != seen[-1]]
        if seen[-1] == 0:
            break
    assert seen == [1, 3, 5, 4, 130, 0]


def test_another_torch_is_told_with_what_to_do() -> None:
    why = judge.mismatch(held(), replace(MADE, torch="2.14"), "base.json")
    assert "2.13" in why
    assert "2.14" in why
    assert "attnprof baseline save SPEC -o base.json" in why
    assert judge.mismatch(held(), MADE, "base.json") == ""
    assert judge.other_code(held(), MADE) == ""
    assert "abd" in judge.other_code(held(), replace(MADE, counting="abd"))


# --- the file


def test_a_baseline_reads_back_and_is_the_same_in_any_order() -> None:
    points = [point(f"k{n}", label) for n, label in enumerate(("se", "ccnet", HOSTILE.replace("\ud800", "")))]
    points.append(Point("k9", "se", "channel/se", "1x64x9x9", "training", status="unsupported"))
    ledger = (Accepted("macs", "k1", "ccnet", "1x64x33x33 inference", 1, 2, 'because "x"', "2026-11-21T00:00:00Z", "who"),)
    text = baseline.write(held(*points, accepted=ledger))
    assert text == baseline.write(held(*reversed(points), accepted=ledger))
    assert len(text.splitlines()) == 11 + len(points) + len(ledger) - 1
    assert json.loads(text)["points"]["k9"]["status"] == "unsupported"


def test_a_written_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    ledger = (Accepted("macs", "k1", "ccnet", "1x64x33x33 inference", 1, 2, "r", "2026-11-21T00:00:00Z"),)
    saved = held(point(), replace(point("k2", "se"), status="oom", metrics={}), accepted=ledger)
    path.write_text(baseline.write(saved), encoding="utf-8")
    assert baseline.read(path) == saved


def test_points_are_sorted_by_label_and_size() -> None:
    sizes = [replace(point(f"k{side}"), shape=f"1x64x{side}x{side}") for side in (129, 9, 33)]
    lines = [line for line in baseline.write(held(*sizes)).splitlines() if '"label"' in line]
    assert [re.search(r'"shape": "([^"]+)"', line)[1] for line in lines] == ["1x64x9x9", "1x64x33x33", "1x64x129x129"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("edit", "error", "told"),
    [
        (lambda text: text.replace('"schema": 1', '"schema": 2'), NothingSelectedError, "schema is 2"),
        (lambda text: text.replace('"attnprof baseline"', '"other"'), UsageError, "no baseline"),
        (lambda text: f"<<<<<<< ours\n{text}", UsageError, ":1:1: this is no JSON"),
        (lambda text: f"<<<<<<< ours\n{text}", UsageError, "merge conflict"),
        (lambda text: text.replace('"macs": 2000', '"macs": 2000.5'), UsageError, "no integer"),
        (lambda text: text.replace('"macs": 2000, ', ""), UsageError, "damaged"),
        (lambda text: text.replace('"macs": 2000', '"macs": -2000'), UsageError, "damaged (ValueError: -2000 is less than"),
        (lambda text: text.replace('"macs"', '"flops"'), UsageError, "stands twice"),
        (lambda text: text.replace('"k2"', '"k1"'), UsageError, "'k1' stands twice"),
        (lambda _: "[]", UsageError, "no baseline"),
        (lambda _: "[" * 100_000, UsageError, "damaged"),
        (lambda _: "", UsageError, "no JSON"),
    ],
)
def test_what_is_no_baseline_is_said(tmp_path: Path, edit: Callable[[str], str], error: type[Exception], told: str) -> None:
    path = tmp_path / "b.json"
    text = baseline.write(held(point(), point("k2", "se")))
    assert edit(text) != text
    path.write_text(edit(text), encoding="utf-8")
    with pytest.raises(error, match=re.escape(told)):
        baseline.read(path)


def test_the_command_that_is_advised_names_the_files(tmp_path: Path) -> None:
    with pytest.raises(NothingSelectedError, match=re.escape(f"`attnprof baseline save 'my own.yaml' -o {tmp_path}/b.json`")):
        baseline.read(tmp_path / "b.json", "my own.yaml")
    why = judge.mismatch(held(point()), Made("0.1.0", "2.14", "abc"), "b.json", "own.yaml")
    assert "Make it anew with `attnprof baseline save own.yaml -o b.json`" in why


def test_a_missing_baseline_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "main.json").write_text("{}")
    with pytest.raises(NothingSelectedError, match=r"no such baseline.*main\.json.*baseline save"):
        baseline.read(tmp_path / "mian.json")


def accepted(metric: str, before: int, after: int, key: str = "k1") -> Accepted:
    return Accepted(metric, key, "ccnet", "1x64x33x33 inference", before, after, "needed", "2026-11-21T10:00:00Z")


def test_accepting_changes_the_point_and_the_ledger() -> None:
    now = point(macs=2500)
    changed = ledger.accept(held(point(), point("k2", "se")), [accepted("macs", 2000, 2500), accepted(POINT, 1, 0, "k2")])
    assert list(changed.points) == ["k1"]
    assert [each.metric for each in changed.accepted] == ["macs", POINT]
    rows = judge.judge(changed, [now])
    assert exit_code(rows) == 0
    (row,) = [row for row in rows if row.reason is Reason.ACCEPTED]
    assert row.sentence.endswith("macs 2,500 (accepted 2026-11-21: needed)")
    assert exit_code(judge.judge(changed, [point(macs=2501)])) == 1
    assert ledger.accept(changed, [accepted("macs", 2000, 2500)]) == changed, "once is enough"
    later = held(point(), accepted=(accepted("macs", 1000, 1500),))
    assert {row.reason for row in judge.judge(later, [point()])} == {Reason.EQUAL}, "of another value"


def test_accepting_what_the_baseline_does_not_say_is_refused() -> None:
    for change in (accepted("macs", 1999, 2500), accepted("macs", 2000, 2500, "k7")):
        with pytest.raises(NothingSelectedError, match="Run the gate again"):
            ledger.accept(held(point()), [change])


def test_saving_anew_keeps_the_ledger_of_what_is_still_there() -> None:
    old = held(point(), accepted=(accepted("macs", 1, 2), accepted("macs", 1, 2, "k3"), accepted(POINT, 1, 0, "k4")))
    assert [each.key for each in ledger.merged(old, held(point())).accepted] == ["k1", "k4"]
    assert ledger.merged(None, held(point())) == held(point())


def test_a_point_has_the_integers_of_its_record() -> None:
    ops = (OpCost("mm", "", "forward", 3, 1, 2, 3), OpCost("add", "", "backward", 4, 1, 2, 3))
    counts = Counts(1, 2, 3, 4, 5, 6, 7, 8, uncounted={"x": 2, "y": 5}, ops=ops)
    case = Case("channel/se", "se", {}, Shape(1, 64, 9, 9), dtype="bfloat16", settings={"sdpa": "math"})
    found = baseline.point_of(Record(case, counts=counts))
    assert list(found.metrics.values()) == [1, 2, 3, 4, 5, 6, 7, 8, 7, 7]
    assert found.text == "1x64x9x9 bfloat16 inference sdpa=math"
    failed = baseline.point_of(Record(case, status="oom", detail="why"))
    assert (failed.status, dict(failed.metrics), failed.detail) == ("oom", {}, "why")


# --- what the rows become


def regressions(count: int, label: str = "ccnet", sentence: str = "") -> list[Row]:
    first = Row(EXACT, Reason.HIGHER, Outcome.REGRESSED, sentence, f"spatial/{label}", label, "", "macs", "", 1, 2, 3, 5)
    return [replace(first, point=f"p{n}", key=f"k{n}", sentence=sentence or f"{label} p{n}: macs 1 -> 2") for n in range(count)]


def test_the_console_has_eighty_columns_and_says_what_is_worse_first() -> None:
    rows = [*judge.judge(held(point(), point("k2", HOSTILE)), [point(macs=2065), point("k3", "名" * 60)]), *regressions(70)]
    text = outputs.console(result(*rows, notes=("A note. " * 30,)))
    assert max(map(width, text.splitlines())) <= 80
    assert text.index("regressed:") < text.index("warned:")
    assert "  ccnet 1x64x33x33 inference: macs 2,000 -> 2,065 (+3.2 %, +65)\n" in text
    assert "and 22 more" in text
    assert text.splitlines()[-1] == "own: regressed (exit code 1): 72 regressed, 1 warned, 9 passed."
    explained = outputs.console(result(*rows), explain=True)
    assert "[HIGHER] ccnet" in explained
    assert "[EQUAL] ccnet" in explained
    assert "more (" not in explained


def test_the_json_report_is_whole() -> None:
    rows = judge.judge(held(point(), point("k2", "se")), [point(macs=2065)], places={"ccnet": (3, 5)})
    data = json.loads(json.dumps(outputs.data(result(*rows, notes=("n",))), allow_nan=False))
    assert (data["schema"], data["kind"], data["exit_code"]) == (outputs.SCHEMA, outputs.KIND, 1)
    assert len(data["rows"]) == len(rows)
    assert sum(data["counts"].values()) == len(rows)
    (row,) = [row for row in data["rows"] if row["reason"] == "HIGHER"]
    assert (row["class"], row["metric"], row["from"], row["to"], row["line"]) == ("exact", "macs", 2000, 2065, 3)
    assert {"label", "mechanism", "point", "key", "outcome", "sentence", "column", "detail"} <= set(row)


_SUITE = {"id", "name", "package", "tests", "failures", "errors", "hostname", "timestamp", "time"}


def check_junit(document: bytes) -> ET.Element:
    """What the Ant schema that Jenkins and others publish asks for: element order, required attributes, counts that add up."""
    root = ET.fromstring(document)
    assert root.tag == "testsuites"
    assert not root.attrib, "the schema gives it none"
    for index, suite in enumerate(root):
        assert suite.tag == "testsuite"
        assert _SUITE <= set(suite.attrib) <= _SUITE | {"skipped"}
        assert suite.get("id") == str(index)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp", ""))
        assert re.fullmatch(r"\d+\.\d+", suite.get("time", ""))
        tags = [child.tag for child in suite]
        cases = suite.findall("testcase")
        assert tags == ["properties", *["testcase"] * len(cases), "system-out", "system-err"]
        assert all(set(each.attrib) == {"name", "value"} for each in suite.iterfind("properties/property"))
        for case in cases:
            assert set(case.attrib) == {"name", "classname", "time"}
            assert all(case.get(name) == " ".join(case.get(name, "").split()) != "" for name in ("name", "classname")), "tokens"
            assert len(case) <= 1
            for child in case:
                assert child.tag in ("skipped", "error", "failure")
                assert child.tag == "skipped" or child.get("type")
        for plural, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.get(plural, "")) == len(suite.findall(f"testcase/{tag}"))
        assert int(suite.get("tests", "")) == len(cases)
    return root


def test_junit_keeps_to_the_schema() -> None:
    rows = judge.judge(held(point(), point("k2", "se")), [point(macs=2065), point("k3", HOSTILE)])
    rows += [
        Row(EXACT, Reason.ENV_MISMATCH, Outcome.MISMATCH, "other torch"),
        Row(CLAIMS, Reason.CLAIM_HOLDS, Outcome.PASS, "s"),
    ]
    root = check_junit(junit.render(result(*rows), datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC), 1.5))
    assert [suite.get("name") for suite in root] == ["attnprof.exact", "attnprof.claims"]
    failures = root.findall(".//failure")
    assert failures[0].text == "ccnet 1x64x33x33 inference: macs 2,000 -> 2,065 (+3.2 %, +65)"
    named = next(case for case in root.iterfind(".//testcase") if case.find("failure") is not None)
    assert (named.get("classname"), named.get("name")) == ("ccnet", "1x64x33x33 inference:macs")


def test_junit_takes_any_name() -> None:
    check_junit(junit.render(result(*regressions(2, HOSTILE, HOSTILE)), datetime.now(UTC), 0.0))
    check_junit(junit.render(result(*regressions(1, " ", " ")), datetime.now(UTC), 0.0))


def test_the_summary_folds_what_passed_and_escapes() -> None:
    rows = judge.judge(held(point(), point("k2", "se")), [point(macs=2065), point("k2", "se"), point("k3", HOSTILE)])
    text = summary.render(result(*rows))
    assert text.index("macs 2,000") < text.index("<details>")
    assert "<b>" not in text
    assert "\x1b" not in text
    assert text.count("<details>") == text.count("</details>") == 1
    assert "- se 1x64x33x33 inference: params, macs," in text


@pytest.mark.parametrize("worse", [0, 5, 5000])
def test_five_thousand_rows_fit_into_a_step_summary(worse: int) -> None:
    long = "a/very-long_label[" + "recurrence=1,reduction=16," * 12 + "]"
    rest = [
        replace(row, reason=Reason.WITHIN_TOL, outcome=Outcome.PASS, sentence=f"{long} {row.point}: macs 1 -> 2, within 5%")
        for row in regressions(5000 - worse, long)
    ]
    rows = [*rest, *regressions(worse, long, f"{long} 1x64x33x33 inference: macs 1 -> 2 (+100.0 %, +1)" * 2)]
    text = summary.render(result(*rows))
    size = len(text.encode())
    assert 100_000 < size <= 900 * 1024
    assert text.count("<details>") == text.count("</details>")
    assert "This summary was cut at 900 KiB; the other of its 5,000 rows are in the JSON report." in text
    assert worse == 0 or text.index("### regressed") < 400


def test_the_body_of_a_comment_is_shorter() -> None:
    text = summary.render(result(*regressions(5000)), summary.COMMENT)
    assert 40_000 < len(text.encode()) <= 60_000
    assert "This summary was cut at 58 KiB; the other of its 5,000 rows" in text


def test_a_small_summary_is_not_cut() -> None:
    text = summary.render(result(*regressions(20)))
    assert "was cut" not in text
    assert text.count("macs 1") == 20


@pytest.mark.parametrize("limit", [summary.LEAST, 10_000, 50_000])
def test_a_summary_takes_the_room_that_is_left(limit: int) -> None:
    rows = [*regressions(3000), *judge.judge(held(point()), [point()])]
    assert limit * 0.6 < len(summary.render(result(*rows), limit).encode()) <= limit


def test_annotations_escape_and_are_ten_at_most() -> None:
    lines = github.render(result(*regressions(1, "a", "50 %, a:b\nnext\r::error::x")))
    assert lines == ["::error file=specs/own.yaml,line=3,col=5::50 %25, a:b next ::error::x"]
    many = github.render(result(*regressions(10)))
    assert len(many) == 10
    more = github.render(result(*regressions(500), Row(EXACT, Reason.NEW_POINT, Outcome.WARN, "new")))
    assert len(more) == 11
    assert more[9].startswith("::error file=specs/own.yaml::own: 491 more; own: regressed")
    assert more[10] == "::warning file=specs/own.yaml::new"
    hostile = replace(result(*regressions(1)), file="a,b:c%d.yaml")
    assert github.render(hostile)[0].startswith("::error file=a%2Cb%3Ac%25d.yaml,line=3,col=5::")
    (line,) = github.render(replace(result(*regressions(1, "a", HOSTILE)), file="a\ud800\x1b\n.yaml"))
    assert line.startswith("::error file=a???.yaml,line=3,col=5::<b>`|x|`[a](b) ::error::%250A,??[31m & ? 名")
    assert line.encode().decode().isprintable()


def test_annotations_name_the_file_from_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert github.render(result(*regressions(1)), tmp_path)[0].startswith("::error file=sub/specs/own.yaml,")
    assert github.wanted("auto", {"GITHUB_ACTIONS": "true"})
    assert not github.wanted("auto", {})
    assert not github.wanted("none", {"GITHUB_ACTIONS": "true"})
    assert github.wanted("github", {})


def test_a_baseline_is_listed_in_eighty_columns() -> None:
    broken = replace(point("k3", "名" * 40), status="oom", metrics={})
    ledger = (replace(accepted("macs", 2000, 2500), reason="word " * 60, who=HOSTILE),)
    text = listing.render(held(point(), point("k2", HOSTILE), broken, accepted=ledger))
    assert max(map(width, text.splitlines())) <= 80
    assert "2.000 K" in text
    assert "oom" in text
    assert "macs 2,000 -> 2,500" in text


def test_a_tolerance_allows_in_exact_fractions() -> None:
    big = 10**17
    assert parse_tolerance("macs", "0.1%").allows(big, big + big // 1000)
    assert not parse_tolerance("macs", "0.1%").allows(big, big + big // 1000 + 1)
    assert Tolerance().allows(3, 3)
