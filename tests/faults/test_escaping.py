"""Whatever a name, an argument, a message or a machine's fact holds, nothing in a report or on a screen acts on it.

One hostile record in every place that takes text, through every format: no character that a terminal obeys, no tag, no cell
that is a formula, no command of TeX, no annotation that somebody else wrote.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from attnprof import errors, report, store
from attnprof.cli import progress
from attnprof.gate import baseline, github, judge, junit, listing, outputs, summary
from attnprof.records import Case, Counts, Holder, OpCost, Opinion, Placement, Record, Shape, to_json
from attnprof.report import compare, console, explain, wide
from tests.command import caller

pytestmark = pytest.mark.fault

PARTS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "]]>",
    "<!--",
    "a|b",
    "`x`",
    "[l](javascript:x)",
    "\\input{/etc/passwd}",
    "$x^2$",
    "\x1b[31m\x1b]0;title\x07",
    "\x9b31m",
    "\r",
    "\nb\n\n# head\n- item",
    "\u2028",
    "\u202egnp.exe",
    "\u2066",
    "\x00",
    "\x7f",
    "%0A::error::x",
    "\n::error::x",
    "{{ 7*7 }}",
    "'\"",
    "\ud800",
)
HOSTILE = " ".join(PARTS)
FORMULAS = ("=cmd()|'/C calc'!A0", "+1+cmd()", "-1+cmd()", "@SUM(1)", "\t=1", "\r=1", " =1")


def counts() -> Counts:
    holders = (Holder(64, HOSTILE, HOSTILE, "forward", (1, 8), HOSTILE), Holder(36, "bmm", "", "forward", (9,)))
    ops = (OpCost(HOSTILE, HOSTILE, "forward", 1, 50, 100, 200), OpCost("bmm", "", "forward", 1, 50, 100, 200))
    named = {HOSTILE: 1}
    return Counts(10, 100, 200, 400, 100, 100, 100, 512, holders, named, named, "meta", ops, named)


def hostile_records(text: str) -> list[Record]:
    """Cases that are ok, that failed, and that stand in a network, with `text` wherever there is text."""
    opinion = Opinion(text, "crashed", None, None, {text: 3}, {text: 4}, text, (text,))
    facts = {text: text, "nested": {text: [text]}, "torch": text, "gpu": text, "provenance": {"attnprof": text}}
    common = {"environment": facts, "crosscheck": (opinion,)}
    shape = Shape(1, 8, 9, 9)
    network = Placement(f"{text}:Net", {text: text}, text)
    return [
        Record(Case(f"{text}:Mine", text, {text: text, "r": 1}, shape), counts=counts(), detail=text, **common),  # type: ignore[arg-type]
        Record(Case(f"{text}:Mine", f"{text}2", {text: "other", "r": 2}, shape), counts=counts()),
        Record(Case(text, f"{text}3", {}, shape), status="error", detail=text, **common),  # type: ignore[arg-type]
        Record(Case("channel/se", f"{text}4", {}, shape, host=network, settings={text: text}), counts=counts(), detail=text),
    ]


def obeyed(text: str) -> set[str]:
    """Characters that a terminal or an editor obeys: control, direction of writing, line separators, halves of characters."""
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return {char for char in text if char not in "\n\t" and unicodedata.category(char) in kinds}


def check_plain(text: str) -> None:
    assert not obeyed(text), obeyed(text)


class Tags(HTMLParser):
    """The tags of a page, its attributes, and what stands in scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}


def check_html(text: str, plain: str) -> None:
    """The tags are those of the page of harmless records."""
    found, harmless = Tags(), Tags()
    found.feed(text)
    harmless.feed(plain)
    assert found.tags.count("script") == harmless.tags.count("script")
    assert set(found.tags) <= set(harmless.tags)
    assert not any(name.startswith("on") for name in found.attributes)
    check_plain(re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))  # scripts are ours; the data is checked as JSON
    assert "<script>alert" not in text


def check_markdown(text: str) -> None:
    check_plain(text)
    assert not re.search(r"<(?!/?u>)[a-z!/]", text)  # what is underlined is ours
    assert "\n# head" not in text
    assert not re.search(r"(?<!\\)`", text)
    tables = [line for line in text.split("\n") if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
    rules = [index for index, line in enumerate(tables) if re.fullmatch(r"[|: -]+", line)]
    assert rules
    for begin, end in zip(rules, [*rules[1:], len(tables) + 1], strict=True):
        assert len(set(widths[begin - 1 : end - 1])) == 1


def check_csv(text: str) -> None:
    check_plain(text)
    numbers = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")
    for row in csv.reader(io.StringIO(text)):
        for cell in row:
            assert numbers.fullmatch(cell) or not cell.lstrip().startswith(("=", "+", "-", "@")), cell


def check_latex(text: str) -> None:
    check_plain(text)
    assert text.isascii()
    assert not re.search(r"\\input\W*\{", text)
    assert not re.search(r"(?<!\\)\$x", text)


def check_json(text: str) -> None:
    check_plain(text)
    json.loads(text)


CHECKS: dict[str, Callable[[str], None]] = {".md": check_markdown, ".csv": check_csv, ".tex": check_latex, ".json": check_json}


@pytest.mark.parametrize("text", [HOSTILE, *FORMULAS])
def test_no_format_lets_hostile_text_act(text: str) -> None:
    records = hostile_records(text)
    built = report.build(records, name=text, baseline=text, source=text, commit=text)
    for form in ("md", "csv", "json", "latex"):
        for suffix, content in report.FORMATS[form](built).items():
            assert isinstance(content, str)
            CHECKS[suffix](content)
    check_csv(wide.render(built))
    check_plain(console.render(built))
    comparison = compare.comparison(records[:2], text, ("macs", "params"))
    check_plain(compare.render(comparison, None))
    check_plain(explain.render(records[0]))


def test_the_page_lets_hostile_text_not_act() -> None:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    pages = []
    for text in ("plain", HOSTILE):
        built = report.build(hostile_records(text), name=text, baseline=text)
        (content,) = report.FORMATS["html"](built).values()
        assert isinstance(content, str)
        pages.append(content)
    check_html(pages[1], pages[0])


def gated(text: str) -> outputs.Result:
    """A regression, a failure and what passed, of points with hostile names."""
    records = hostile_records(text)
    points = [baseline.point_of(record) for record in records]
    made = baseline.Made(text, text, text)
    before = {point.key: point for point in points}
    ledger = (baseline.Accepted("macs", points[0].key, text, text, 1, 2, text, text, text),)
    held = baseline.Baseline(text, made, before, ledger)
    worse = {**points[0].metrics, "macs": 500}
    now = [replace(points[0], metrics=worse), replace(points[1], metrics={}, status="error", detail=text), *points[2:]]
    rows = judge.judge(held, now)
    return outputs.Result(text, text, tuple(rows), text, {text: text}, {text: text}, (text,))


@pytest.mark.parametrize("text", [HOSTILE, *FORMULAS])
def test_no_output_of_the_gate_lets_hostile_text_act(text: str) -> None:
    result = gated(text)
    document = junit.render(result, datetime.now(UTC), 1.0).decode()
    check_plain(document)
    ET.fromstring(document)
    assert "<script" not in document
    lines = github.render(result)
    assert lines
    for line in lines:
        check_plain(line)
        assert "\n" not in line
        assert re.match(r"::(error|warning) file=[^,:]*(,line=\d+)?(,col=\d+)?::", line)
        assert "%0A" not in line
    text_of_summary = summary.render(result)
    check_plain(text_of_summary)
    assert not re.search(r"<(?!/?(details|summary)>|!-- attnprof gate -->)", text_of_summary)
    check_plain(outputs.console(result, explain=True))
    check_plain(json.dumps(outputs.data(result)))


def test_a_baseline_of_hostile_names_is_plain_and_listed_plainly(tmp_path: Path) -> None:
    points = [baseline.point_of(record) for record in hostile_records(HOSTILE.replace("\ud800", ""))]
    held = baseline.Baseline("own", baseline.Made("1", "2", "3"), {point.key: point for point in points})
    file = tmp_path / "base.json"
    file.write_text(baseline.write(held), encoding="utf-8")
    check_plain(file.read_text(encoding="utf-8"))
    assert baseline.read(file).points.keys() == held.points.keys()
    check_plain(listing.render(held))


def test_a_store_of_hostile_records_is_plain(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    for record in hostile_records(HOSTILE):
        store.append(path, record)
    check_plain(path.read_text(encoding="utf-8"))
    assert len(store.load(path).records) == 4


def test_messages_and_progress_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    check_plain(str(errors.UsageError(HOSTILE)))
    check_plain(str(errors.SpecError([errors.Problem(HOSTILE, 3, 4, HOSTILE, HOSTILE, HOSTILE)])))
    progress.say(HOSTILE)
    check_plain(capsys.readouterr().err)


def test_commands_over_a_hostile_store_print_nothing_that_acts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A store that somebody sent: `report` writes and says what is in it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    records = hostile_records(HOSTILE)
    keys = tuple(record.case.key for record in records)
    store.append(folder / "run.jsonl", store.Run(HOSTILE, keys, HOSTILE, ("macs",), HOSTILE, HOSTILE))
    for record in records:
        store.append(folder / "run.jsonl", record)
    call = caller(capsys)
    done = call("report", folder, "--format", "md,csv,json,latex", "--out", "out")
    assert done.code == 0, done.err
    check_plain(done.out + done.err)
    written = sorted((tmp_path / "out").iterdir())
    assert [file.suffix for file in written] == [".csv", ".json", ".md", ".tex"]
    for file in written:
        check_plain(file.name)
        CHECKS[file.suffix](file.read_text(encoding="utf-8"))


def test_commands_say_hostile_words_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is typed or stands in a spec and is printed again."""
    monkeypatch.chdir(tmp_path)
    call = caller(capsys)
    odd = "se\x9b31m\u202e \u2066x"
    spec = {"name": "own", "input": {"channels": 8, "hw": 9}, "mechanisms": [{"name": "se", "as": odd}], "baseline": odd}
    (tmp_path / "own.yaml").write_text(json.dumps(spec), encoding="utf-8")
    for words in (
        ("run", "own.yaml", "--device", "none", "--dry-run"),
        ("run", "own.yaml", "--device", "none", "--dry-run", "--json"),
        ("run", "own.yaml", "--device", "none", "--only", odd + "x"),
        ("run", "own.yaml", "--device", "none", "--set", f"{odd}=1"),
        ("run", "own.yaml", "--device", odd),
        ("run", f"{odd}.yaml"),
        ("validate", "own.yaml"),
        ("report", odd),
        ("show", odd),
        ("compare", odd, "se", "--hw", "9x9"),
        ("gate", "own.yaml", "--baseline", f"{odd}.json"),
        ("list", "--family", odd),
        (odd,),
    ):
        done = call(*words)
        assert done.out + done.err
        assert not obeyed(done.out + done.err), (words, obeyed(done.out + done.err))


def test_json_of_hostile_records_says_all_of_it() -> None:
    """Escaped, not left out: who reads the JSON finds what was there."""
    record = hostile_records(HOSTILE)[0]
    assert json.loads(json.dumps(to_json(record)))["detail"] == HOSTILE
